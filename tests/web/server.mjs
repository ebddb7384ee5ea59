// A static file server for tests: cross-origin isolation or none, byte ranges, a log of what was asked for, and faults on demand.
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";
import { Readable } from "node:stream";
import { setTimeout as wait } from "node:timers/promises";
import { gzipSync } from "node:zlib";

const types = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm", ".json": "application/json", ".svg": "image/svg+xml", ".png": "image/png", ".webmanifest": "application/manifest+json" };
const isolating = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
  "cross-origin-resource-policy": "same-origin",
};

/** What lets pages of other origins ask, and see what they need. */
const shared = {
  "access-control-allow-origin": "*",
  "access-control-allow-headers": "authorization, range, if-range",
  "access-control-expose-headers": "content-range, etag, x-linked-etag, x-repo-commit",
};

/** The headers that a folder's `_headers` asks for. */
async function asked(folder) {
  const lines = (await readFile(`${folder}/_headers`, "utf8")).split("\n").filter((line) => line.startsWith(" "));
  return Object.fromEntries(lines.map((line) => line.trim().split(/: (.*)/s)));
}

/**
 * Serves `roots`, an object from address prefix to folder (the longest prefix wins), or to a function from a name to `{ size, read(start, end) }`,
 * which gives a file's pieces while they are made. `fault(path)` may return
 * `{ status }`, `{ truncate: bytes }`, `{ flip: offset }`, `{ delay: milliseconds }`, `{ redirect: address }`, `{ whole: true }`
 * (no ranges), `{ headers }`, `{ etag }`, `{ drop: bytes }` (then the connection breaks), `{ stall: bytes }`, `{ trickle: milliseconds }`
 * before each 64 KiB, `{ wrongRange: true }`, `{ long: bytes }` too many or `{ gzip: true }` for a request; nothing leaves it alone. `cors` lets
 * other origins in, `policy` sends the headers that the page asks its host for. `log` has what was asked, with range and authorization.
 */
export async function serve(roots, { isolated = true, cors = false, policy = false } = {}) {
  const isolation = policy ? await asked(roots["/"]) : isolated ? isolating : {};
  const server = { requests: [], log: [], fault: () => undefined, url: "", close: undefined };
  const always = cors ? { ...isolation, ...shared } : isolation;
  const prefixes = Object.keys(roots).sort((a, b) => b.length - a.length);

  async function answer(request, response) {
    const address = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    if (request.method === "OPTIONS") return response.writeHead(204, always).end();
    server.requests.push(address);
    const entry = { address, range: request.headers.range, authorization: request.headers.authorization, sent: 0 };
    server.log.push(entry);
    const fault = server.fault(address) ?? {};
    if (fault.delay) await new Promise((resolve) => setTimeout(resolve, fault.delay));
    if (fault.status) return response.writeHead(fault.status, { ...always, ...fault.headers }).end();
    if (fault.redirect) return response.writeHead(302, { ...always, location: fault.redirect }).end();

    const prefix = prefixes.find((prefix) => address.startsWith(prefix));
    if (!prefix) return response.writeHead(404, always).end();
    const name = address.slice(prefix.length) || "index.html";
    const made = typeof roots[prefix] === "function" ? roots[prefix](name) ?? {} : undefined;
    const file = made ? name : path.join(roots[prefix], name);
    const size = made ? made.size : (await stat(file).catch(() => undefined))?.size;
    if (size === undefined) return response.writeHead(404, always).end();

    const etag = fault.etag ?? `"${size}"`;
    const headers = { ...always, etag, ...fault.headers, "content-type": types[path.extname(file)] ?? "application/octet-stream", "accept-ranges": "bytes", "cache-control": "no-store" };
    if (fault.truncate !== undefined || fault.flip !== undefined) {
      const body = (await readFile(file)).subarray(0, fault.truncate ?? size);
      if (fault.flip !== undefined) body[fault.flip] ^= 1;
      return response.writeHead(200, { ...headers, "content-length": body.length }).end(body);
    }
    const same = (request.headers["if-range"] ?? etag) === etag;
    const range = !fault.whole && same && /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const start = range ? Number(range[1]) >> (fault.wrongRange ? 1 : 0) : 0;
    const end = range?.[2] ? Math.min(Number(range[2]), size - 1) : size - 1;
    if (range && start > end) return response.writeHead(416, { ...headers, "content-range": `bytes */${size}` }).end();
    if (range) headers["content-range"] = `bytes ${start}-${end}/${size}`;
    if (fault.gzip) {
      const packed = gzipSync(await readFile(file)).subarray(start);
      return response.writeHead(range ? 206 : 200, { ...headers, "content-encoding": "gzip", "content-length": packed.length }).end(packed);
    }
    response.writeHead(range ? 206 : 200, { ...headers, "content-length": end - start + 1 + (fault.long ?? 0) });
    if (request.method === "HEAD" || size === 0) return response.end();
    const source = made ? made.read(start, end) : createReadStream(file, { start, end, highWaterMark: 1 << 16 });
    Readable.from(body(source, fault, response, entry)).on("error", () => response.destroy()).pipe(response);
  }

  /** The pieces of a file, as its fault has them; counts what is given out. */
  async function* body(source, fault, response, entry) {
    for await (let chunk of source) {
      if (fault.trickle) await wait(fault.trickle);
      const left = (fault.drop ?? fault.stall ?? Infinity) - entry.sent;
      if (chunk.length > left) chunk = chunk.subarray(0, left);
      entry.sent += chunk.length;
      yield chunk;
      if (chunk.length < left) continue;
      await wait(1000); // until the page has it: a connection that breaks takes with it what the browser has not handed on
      if (fault.drop !== undefined) return response.destroy();
      await new Promise((resolve) => response.on("close", resolve));
      return;
    }
    if (fault.long) yield Buffer.alloc(fault.long);
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
