// A static file server for tests: cross-origin isolation or none, byte ranges, a log of what was asked for, and faults on demand.
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";

const types = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm", ".json": "application/json", ".svg": "image/svg+xml" };
const isolating = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
  "cross-origin-resource-policy": "same-origin",
};

/**
 * Serves `roots`, an object from address prefix to folder (the longest prefix wins). `fault(path)` may return
 * `{ status }`, `{ truncate: bytes }`, `{ flip: offset }` or `{ delay: milliseconds }` for a request; nothing leaves it alone.
 */
export async function serve(roots, { isolated = true } = {}) {
  const isolation = isolated ? isolating : {};
  const server = { requests: [], fault: () => undefined, url: "", close: undefined };
  const prefixes = Object.keys(roots).sort((a, b) => b.length - a.length);

  async function answer(request, response) {
    const address = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    server.requests.push(address);
    const fault = server.fault(address) ?? {};
    if (fault.delay) await new Promise((resolve) => setTimeout(resolve, fault.delay));
    if (fault.status) return response.writeHead(fault.status, isolation).end();

    const prefix = prefixes.find((prefix) => address.startsWith(prefix));
    const file = path.join(roots[prefix], address.slice(prefix.length) || "index.html");
    const size = (await stat(file).catch(() => undefined))?.size;
    if (size === undefined) return response.writeHead(404, isolation).end();

    const headers = { ...isolation, "content-type": types[path.extname(file)] ?? "application/octet-stream", "accept-ranges": "bytes", "cache-control": "no-store" };
    if (fault.truncate !== undefined || fault.flip !== undefined) {
      const body = (await readFile(file)).subarray(0, fault.truncate ?? size);
      if (fault.flip !== undefined) body[fault.flip] ^= 1;
      return response.writeHead(200, { ...headers, "content-length": body.length }).end(body);
    }
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const start = range ? Number(range[1]) : 0;
    const end = range?.[2] ? Math.min(Number(range[2]), size - 1) : size - 1;
    if (start > end && size > 0) return response.writeHead(416, { ...headers, "content-range": `bytes */${size}` }).end();
    if (range) headers["content-range"] = `bytes ${start}-${end}/${size}`;
    response.writeHead(range ? 206 : 200, { ...headers, "content-length": end - start + 1 });
    if (request.method === "HEAD" || size === 0) return response.end();
    createReadStream(file, { start, end }).on("error", () => response.destroy()).pipe(response);
  }

  const http = createServer((request, response) => {
    answer(request, response).catch((error) => {
      console.error(error);
      response.destroy();
    });
  });
  await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));
  server.url = `http://127.0.0.1:${http.address().port}`;
  server.close = () => {
    http.closeAllConnections();
    return new Promise((resolve) => http.close(resolve));
  };
  return server;
}
