// A large download's memory: 512 MiB from a server that is always ready, through a worker whose storage is slow.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { apiPage, environment, outcome, tinyPackage } from "./support.mjs";

const LIMIT = 96 << 20;
const MiB = 1 << 20;
const SHARD = 32 * MiB;
const SHARDS = 16;

/** What shard `number` consists of, over and over. */
const block = (number) => Buffer.alloc(MiB, `shard ${number} `);

function shard(number) {
  const hash = createHash("sha256");
  for (let at = 0; at < SHARD; at += MiB) hash.update(block(number));
  return { path: `${number}.safetensors`, size: SHARD, sha256: hash.digest("hex") };
}

const tiny = JSON.parse(readFileSync(`${tinyPackage()}/openweights.json`, "utf8"));
const manifest = Buffer.from(JSON.stringify({ ...tiny, files: Array.from({ length: SHARDS }, (_, number) => shard(number)) }));

/** The package's files, made while they are served. */
function made(name) {
  const pieces = name === "openweights.json" ? manifest : block(Number.parseInt(name));
  if (!/^(openweights\.json|\d+\.safetensors)$/.test(name)) return undefined;
  const size = name === "openweights.json" ? manifest.length : SHARD;
  return {
    size,
    *read(start, end) {
      for (let at = start; at <= end; ) {
        const from = at % pieces.length;
        const piece = pieces.subarray(from, Math.min(pieces.length, from + 65_536, from + end + 1 - at));
        yield piece;
        at += piece.length;
      }
    },
  };
}

const env = environment({ roots: { "/large/": made }, webgpu: false, flags: ["--enable-blink-features=ForceEagerMeasureMemory"] });

/** Before the worker's own script: each write takes its time, as on a slow disk, and what wasm's memory has grown to can be asked. */
const SLOW = `
const write = FileSystemSyncAccessHandle.prototype.write;
FileSystemSyncAccessHandle.prototype.write = function (bytes, options) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, bytes.byteLength / 30_000); // 30 MB/s
  return write.call(this, bytes, options);
};
const Memory = WebAssembly.Memory;
WebAssembly.Memory = function (...args) { return (self.memory = new Memory(...args)); };
`;

/** Bytes that belong to the process alone: what is shared with others (the browser's own code) is not a page's doing. */
function resident(pid) {
  const pages = readFileSync(`/proc/${pid}/statm`, "utf8").split(" ").map(Number);
  return (pages[1] - pages[2]) * 4096;
}

test("512 MiB through a slow store: what the page holds stays small", { timeout: 600_000, skip: process.platform !== "linux" && "counts in /proc, which only Linux has" }, async (t) => {
  const page = await apiPage(env);
  await page.context().route("**/openweights/dist/worker.js", async (route) => {
    const answer = await route.fetch();
    await route.fulfill({ response: answer, body: SLOW + (await answer.text()) });
  });
  const browser = await env.browser.newBrowserCDPSession();
  const { processInfo } = await browser.send("SystemInfo.getProcessInfo");
  const renderers = processInfo.filter(({ type }) => type === "renderer").map(({ id }) => id);
  const all = () => renderers.reduce((sum, pid) => sum + resident(pid), 0);

  const loading = outcome(page, async (source) => {
    globalThis.told = [];
    await ow.load(source, { backend: "cpu", threads: 1, onProgress: ({ phase, loaded }) => (globalThis.now = { phase, loaded }) });
  }, "/large/");
  let ended = false;
  loading.finally(() => (ended = true)).catch(() => {});
  const samples = [];
  let measured;
  while (!ended) {
    const now = await page.evaluate(() => globalThis.now).catch(() => undefined);
    if (now?.phase === "download") {
      const memories = await Promise.all(page.workers().map((worker) => worker.evaluate(() => globalThis.memory?.buffer.byteLength ?? 0).catch(() => 0)));
      samples.push({ loaded: now.loaded, resident: all(), wasm: Math.max(0, ...memories) });
      if (now.loaded > (SHARD * SHARDS) / 2) measured ??= await page.evaluate(() => performance.measureUserAgentSpecificMemory());
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const result = await loading;
  // The shards are no weights, which is noticed once all of them are stored.
  assert(["not_found", "invalid_file", "integrity"].includes(result?.code), JSON.stringify(result));
  const { models } = await outcome(page, () => ow.store.usage());
  assert.equal(models, SHARD * SHARDS, "all of it was stored");

  const [first] = samples;
  const wasm = Math.max(...samples.map(({ wasm }) => wasm));
  const quarter = (n) => samples.filter(({ loaded }) => Math.min(3, Math.floor((4 * loaded) / (SHARD * SHARDS))) === n).map(({ resident }) => resident - first.resident);
  const growth = [0, 1, 2, 3].map((n) => Math.max(...quarter(n)));
  const mb = (bytes) => `${(bytes / MiB).toFixed(1)} MiB`;
  t.diagnostic(`wasm memory ${mb(wasm)}; JavaScript ${mb(measured.bytes)} half way`);
  t.diagnostic(`the renderer, ${mb(first.resident)} at the beginning, grew by at most, in each quarter: ${growth.map(mb).join(", ")} (${samples.length} samples)`);
  assert(samples.length > 40 && first.loaded < 64 * MiB && samples.at(-1).loaded > 0.9 * SHARD * SHARDS);
  assert(wasm > 0 && wasm + measured.bytes < LIMIT, "what this package's code holds");
  // The rest is what the browser has not collected yet: some 80 MiB at any time, however much has passed.
  assert(Math.max(growth[2], growth[3]) < Math.max(growth[0], growth[1]) + 32 * MiB, "the process does not grow with the size");
  await page.context().close();
});
