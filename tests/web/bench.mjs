// Measures the package in Chromium, joins it with what the command line measured, prints and writes bench.json.
//   node tests/web/bench.mjs OUT PROMPT_TOKENS ANSWER_TOKENS
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { launch } from "./browser.mjs";
import { SMOLLM2, openApi, root } from "./support.mjs";
import { serve } from "./server.mjs";

const [out, prompt, generate] = process.argv.slice(2);

/** Loads the model in a page with the storage of `context`; gives the page and milliseconds. */
async function load(context, server, backend) {
  const page = await context.newPage();
  // Keeps the package's worker at hand, for what its interface does not tell.
  await page.addInitScript(() => {
    const { Worker } = globalThis;
    globalThis.Worker = function (...args) {
      return (globalThis.worker = new Worker(...args));
    };
  });
  await openApi(page, server);
  const { ms, info } = await page.evaluate(async ([source, backend]) => {
    const started = performance.now();
    globalThis.model = await ow.load(source, { backend });
    return { ms: performance.now() - started, info: model.info };
  }, [SMOLLM2, backend]);
  return { page, ms, info };
}

/** Times a request. Every run has another prompt, so nothing of the one before can be reused. */
function request(page, promptTokens, tokens) {
  return page.evaluate(async ([promptTokens, tokens]) => {
    const word = String.fromCharCode(97 + Math.floor(Math.random() * 26));
    const text = await model.tokenizer.decode((await model.tokenizer.encode(`${word} lighthouse `.repeat(promptTokens))).slice(0, promptTokens));
    const started = performance.now();
    let first = 0;
    let usage;
    for await (const chunk of await model.completions.create({ prompt: text, stream: true, max_tokens: tokens, temperature: 0, ignore_eos: true, reuse_prefix: false, speculative: false })) {
      first ||= performance.now() - started;
      usage = chunk.usage;
    }
    return { ...usage, ttft_ms: first };
  }, [promptTokens, tokens]);
}

/** Kernel dispatches of the last step; the CPU backend has none. */
function dispatches(page) {
  return page.evaluate(() => new Promise((resolve) => {
    const id = "dispatches";
    worker.addEventListener("message", ({ data }) => data.id === id && resolve(data.result || undefined));
    worker.postMessage({ id, method: "dispatches", args: [] });
  }));
}

async function chromium(backend, promptTokens, tokens) {
  const server = await serve({ "/": `${root}/web/dist`, "/models/": `${root}/models`, "/test/": `${root}/tests/web/pages` });
  const browser = await launch();
  try {
    const context = await browser.newContext();
    const cold = await load(context, server, backend);
    await cold.page.close();
    const { page, ms, info } = await load(context, server, backend);
    if (backend === "webgpu") await request(page, 8, 2);
    const measured = await request(page, promptTokens, tokens);
    return {
      backend,
      device: info.device,
      prompt_tokens: measured.prompt_tokens,
      generated_tokens: measured.completion_tokens,
      prefill_tok_s: (measured.prompt_tokens / measured.prefill_ms) * 1000,
      decode_tok_s: ((measured.completion_tokens - 1) / measured.decode_ms) * 1000,
      ttft_ms: measured.ttft_ms,
      load_cold_ms: cold.ms,
      load_warm_ms: ms,
      peak_bytes: peakBytes(),
      dispatches_per_token: await dispatches(page),
    };
  } finally {
    await browser.close();
    await server.close();
  }
}

/** Peak resident memory of all the browser's processes together (Linux tells). Each peak has its own moment: an upper bound. */
function peakBytes() {
  if (!existsSync("/proc/self/status")) return null;
  const parents = new Map();
  const peaks = new Map();
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number)) {
    try {
      const status = readFileSync(`/proc/${pid}/status`, "utf8");
      parents.set(pid, Number(/^PPid:\s*(\d+)/m.exec(status)[1]));
      peaks.set(pid, 1024 * Number(/^VmHWM:\s*(\d+)/m.exec(status)?.[1] ?? 0));
    } catch {} // it ended meanwhile
  }
  const ours = (pid) => pid === process.pid || (pid > 1 && ours(parents.get(pid) ?? 0));
  return [...peaks].filter(([pid]) => pid !== process.pid && ours(pid)).reduce((sum, [, peak]) => sum + peak, 0);
}

function size() {
  const wasm = readFileSync(`${root}/pkg/wasm/relaxed-simd/openweights_bg.wasm`);
  return { raw: wasm.length, gzip: gzipSync(wasm, { level: 9 }).length };
}

const results = { date: new Date().toISOString(), model: "SmolLM2-135M-Instruct Q4_1", wasm: size(), native: [], chromium: [] };
for (const backend of ["gpu", "cpu"]) {
  results.native.push(JSON.parse(readFileSync(`${out}/native-${backend}.json`, "utf8")));
}
for (const backend of ["webgpu", "cpu"]) {
  results.chromium.push(await chromium(backend, +prompt, +generate).catch((error) => ({ backend, error: String(error) })));
}
writeFileSync(`${out}/bench.json`, `${JSON.stringify(results, null, 2)}\n`);

const rows = [...results.native.map((r) => ["native", r]), ...results.chromium.map((r) => ["chromium", r])];
console.log(`prompt of ${prompt} tokens, ${generate} generated`);
for (const [where, r] of rows) {
  if (r.error) {
    console.log(`${where} ${r.backend}: FAILED: ${r.error}`);
    process.exitCode = 1;
    continue;
  }
  const load = r.load_ms ? `${r.load_ms.toFixed(0)} ms` : `${r.load_cold_ms.toFixed(0)} ms cold, ${r.load_warm_ms.toFixed(0)} ms warm`;
  const dispatches = r.dispatches_per_token ? `, ${r.dispatches_per_token} dispatches a token` : "";
  const memory = r.peak_bytes ? `, ${(r.peak_bytes / 1e6).toFixed(0)} MB` : "";
  console.log(`${where} ${r.backend} (${r.device}): prefill ${r.prefill_tok_s.toFixed(1)} tok/s, decode ${r.decode_tok_s.toFixed(2)} tok/s, first token ${r.ttft_ms.toFixed(0)} ms, load ${load}${memory}${dispatches}`);
}
console.log(`wasm: ${results.wasm.raw} bytes, ${results.wasm.gzip} gzip; written to ${out}/bench.json`);
