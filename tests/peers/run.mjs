#!/usr/bin/env node
// node run.mjs [--engines a,b,...|all] [--runs N] [--quick] [--list] [--out FILE] [--verbose] [--no-cold]
//   --quick leaves out the engines marked slow (WebGPU on a software adapter)   --engines all adds the ones that run only when named
//   --max-other C   cores that other processes may use before a run is called noisy (0.3); such a run is waited for and repeated
//   --wait S (60)   seconds to wait for an idle machine    --retries N (1)   repeats of a noisy run, the quietest is kept
//   --timeout S (1200) for one run
//   --p512-budget S (120), --decode-budget S (40)   limits for slow engines: the 512 prompt is left out, fewer tokens are decoded
import fs from 'node:fs'; import os from 'node:os'; import path from 'node:path'; import { fileURLToPath } from 'node:url';
import { serve } from './lib/serve.mjs'; import { launch, CHROMIUM, ARGS } from './lib/browser.mjs';
import * as mem from './lib/memory.mjs'; import { median, range, table } from './lib/stats.mjs'; import * as cpu from './lib/cpu.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const argv = process.argv.slice(2);
const flag = n => argv.includes('--' + n);
const arg = (n, d) => { const i = argv.indexOf('--' + n); return i < 0 ? d : argv[i + 1]; };
const models = process.env.BENCH_MODELS || path.join(here, 'models');
const env = {
  here, models,
  GGUF: process.env.BENCH_GGUF || path.join(models, 'smollm2-gguf/SmolLM2-135M-Instruct.Q4_1.gguf'),
  ONNX_DIR: process.env.BENCH_ONNX_DIR || path.join(models, 'smollm2-onnx-q4'),
  PYTHON: process.env.BENCH_PYTHON || path.join(here, '.venv/bin/python'),
  OURS_PKG: process.env.OURS_PKG || '',
  OURS_MODEL: process.env.OURS_MODEL || '',
};
const P = JSON.parse(fs.readFileSync(path.join(here, 'prompts.json'), 'utf8'));
const STEPS = { warmup: { prompt: P.p16, promptTokens: 16, maxTokens: 4 }, warmup128: { prompt: P.w128, promptTokens: 128, maxTokens: 16 }, p128: { prompt: P.p128, promptTokens: 128, maxTokens: 64 }, p512: { prompt: P.p512, promptTokens: 512, maxTokens: 1 } };
const p512Budget = +arg('p512-budget', 120), decodeBudget = +arg('decode-budget', 40), maxOther = +arg('max-other', 0.3), waitS = +arg('wait', 60), retries = +arg('retries', 1), runTimeout = +arg('timeout', 1200);

const adapters = [];
for (const f of ['wllama', 'transformersjs', 'native', 'ours']) adapters.push((await import(`./adapters/${f}.mjs`)).default);
const variants = new Map();
for (const a of adapters) for (const [id, v] of Object.entries(a.variants(env))) variants.set(id, { id, a, ...v });
if (flag('list')) { for (const v of variants.values()) console.log(v.id.padEnd(16), (v.a.check(env, v.id, v) || 'ready').slice(0, 160), v.slow ? '(slow)' : '', v.a.optional?.includes(v.id) ? '(only when named)' : ''); process.exit(0); }
const asked = arg('engines', '');
const ids = asked && asked !== 'all' ? asked.split(',') : [...variants.keys()].filter(id => (asked === 'all' || !variants.get(id).a.optional?.includes(id)) && !(flag('quick') && variants.get(id).slow));
const todo = [], skipped = {};
for (const id of ids) { const v = variants.get(id); if (!v) { console.error(`unknown engine ${id}; --list shows them`); process.exit(2); } const why = v.a.check(env, id, v); if (why) skipped[id] = why; else todo.push(v); }
const runs = +arg('runs', 3), verbose = flag('verbose');

const roots = { '/n/': path.join(here, 'node_modules/'), '/h/': here + '/' };
for (const a of adapters) Object.assign(roots, a.roots?.(env) || {});
const srv = await serve(roots);
const url = `http://localhost:${srv.port}/bench`;
const results = Object.fromEntries(todo.map(v => [v.id, []]));
const errors = {};
let chromiumVersion = null, adapterInfo = null;

async function open(profile) {
  const b = await launch(profile, verbose);
  chromiumVersion ||= b.ctx.browser()?.version() || chromiumVersion;
  await b.page.goto(url);
  adapterInfo ||= await b.page.evaluate(async () => { const a = await navigator.gpu?.requestAdapter(); return a && { vendor: a.info.vendor, architecture: a.info.architecture, description: a.info.description, fallback: a.info.isFallbackAdapter, features: [...a.features] }; });
  return b;
}
const inPage = (page, fn, ...args) => page.evaluate(async ({ fn, args }) => (await import('/h/page/driver.js'))[fn](...args), { fn, args });

async function browserRun(v) {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'peerbench-')), o = {};
  let live; // a run that takes too long is ended by closing its browser
  const guard = setTimeout(() => { console.error(`    ! ${v.id}: over ${runTimeout} s, closing the browser`); live?.ctx.close(); }, runTimeout * 1e3);
  try {
    if (!flag('no-cold')) { // first visit: empty profile; the same navigation then makes its first token
      const b = live = await open(profile);
      try {
        await b.page.goto(url);
        const l = await inPage(b.page, 'load', v.page, v.opts); o.load_cold_ms = l.load_ms;
        const g = await inPage(b.page, 'run', { ...STEPS.warmup, maxTokens: 1 }); o.first_visit_first_token_ms = g.since_navigation_first_token_ms; o.first_run_ttft_ms = g.ttft_ms;
      } finally { await b.ctx.close(); }
    }
    const b = live = await open(profile); // second visit: a new browser process, the same profile
    try {
      await b.page.goto(url); await new Promise(r => setTimeout(r, 500));
      const ps0 = mem.pids(profile), base = mem.rss(ps0), basePss = mem.pss(ps0), baseHwm = mem.hwm(ps0), w = mem.watch(profile), others = cpu.meter(() => mem.pids(profile));
      const l = await inPage(b.page, 'load', v.page, v.opts); o[flag('no-cold') ? 'load_cold_ms' : 'load_warm_ms'] = l.load_ms; o.info = l.info; o.isolated = l.isolated;
      o.pss_loaded_mb = (mem.pss(mem.pids(profile)) - basePss) / 1e6;
      const wu = await inPage(b.page, 'run', { ...STEPS.warmup, maxTokens: v.slow ? 3 : 4 });
      // slow engines decode fewer tokens, and skip the second warm-up and the repeats, so that a run stays within the budget
      const fast = wu.ttft_ms * 8 < 15e3, maxTokens = Math.max(4, Math.min(STEPS.p128.maxTokens, Math.ceil(wu.decode_tok_s * decodeBudget)));
      if (fast) await inPage(b.page, 'run', STEPS.warmup128); // the same shape as what is measured: wasm tiers up, pipelines get compiled
      const reps = [];
      for (const prompt of fast ? [P.p128, P.p128b, P.p128c] : [P.p128]) reps.push(await inPage(b.page, 'run', { ...STEPS.p128, prompt, maxTokens }));
      const a = reps[0], med = k => median(reps.map(x => x[k]));
      Object.assign(o, { ttft128_ms: med('ttft_ms'), prefill128: med('prefill_tok_s'), decode: med('decode_tok_s'), reps: reps.map(({ text, ...x }) => x), tokens: a.tokens, callbacks: a.callbacks, prompt128: a.prompt_tokens, own128: a.own, text: a.text });
      if (a.ttft_ms * 4 / 1e3 < p512Budget) {
        if (fast) o.prefill512_first = (await inPage(b.page, 'run', { ...STEPS.p512, prompt: P.w512 })).prefill_tok_s;
        const c = await inPage(b.page, 'run', STEPS.p512);
        Object.assign(o, { ttft512_ms: c.ttft_ms, prefill512: c.prefill_tok_s, prompt512: c.prompt_tokens, own512: c.own });
      }
      o.other_cores = others(); o.rss_peak_mb = (w.stop() - base) / 1e6;
      o.pss_end_mb = (mem.pss(mem.pids(profile)) - basePss) / 1e6;
      // growth of each process kind's own peak (exact, from the kernel; the kinds need not peak together)
      o.hwm_growth_mb = Object.fromEntries(Object.entries(mem.hwm(mem.pids(profile))).map(([k, x]) => [k, (x - (baseHwm[k] || 0)) / 1e6]));
      o.peak_mb = Object.values(o.hwm_growth_mb).reduce((p, q) => p + q, 0);
      const ua = await inPage(b.page, 'memory'); o.ua_memory_mb = ua && ua / 1e6;
      await inPage(b.page, 'dispose');
    } finally { await b.ctx.close(); }
  } finally { clearTimeout(guard); fs.rmSync(profile, { recursive: true, force: true, maxRetries: 3 }); }
  return o;
}

const started = new Date();
let extra = {};
for (const a of adapters) if (a.extra && todo.some(v => v.a === a)) Object.assign(extra, await a.extra(env)); // machine facts (bandwidth)
async function attempt(v) {
  const idle = await cpu.waitIdle(maxOther, waitS), t0 = Date.now();
  let o;
  if (v.a.run) { const m = cpu.meter(() => []); o = await v.a.run(env, v, { P, STEPS }); o.other_cores = m(); }
  else o = await browserRun(v);
  o.other_cores_before = idle; o.run_s = (Date.now() - t0) / 1e3;
  return o;
}
const f = (x, d = 1) => Number.isFinite(x) ? x.toFixed(d) : '-';
for (let r = 0; r < runs; r++) for (const v of todo) { // interleaved: A B C A B C
  if ((errors[v.id]?.length || 0) >= 2) continue;
  try {
    let o = await attempt(v);
    for (let i = 0; i < retries && o.other_cores > maxOther && o.run_s < 150; i++) { const p = await attempt(v); p.repeated = i + 1; if (p.other_cores < o.other_cores) o = p; }
    results[v.id].push(o);
    console.error(`run ${r + 1}/${runs} ${v.id.padEnd(15)} cold ${f(o.load_cold_ms, 0)} warm ${f(o.load_warm_ms, 0)} ms  ttft128 ${f(o.ttft128_ms, 0)} ms  prefill ${f(o.prefill128)}/${f(o.prefill512)}  decode ${f(o.decode, 2)} tok/s  peak ${f(o.peak_mb, 0)} MB  [${f(o.run_s, 0)} s, other cores ${f(o.other_cores, 2)}${o.repeated ? ', repeated' : ''}]`);
  } catch (e) { (errors[v.id] ||= []).push(String(e.stack || e).slice(0, 1500)); console.error(`run ${r + 1}/${runs} ${v.id}: FAILED ${String(e).slice(0, 400)}`); }
}
srv.close();

const KEYS = ['load_cold_ms', 'load_warm_ms', 'first_visit_first_token_ms', 'first_run_ttft_ms', 'ttft128_ms', 'prefill128', 'ttft512_ms', 'prefill512', 'prefill512_first', 'decode', 'peak_mb', 'rss_peak_mb', 'pss_loaded_mb', 'pss_end_mb', 'ua_memory_mb', 'other_cores', 'tokens'];
const summary = {};
for (const [id, rs] of Object.entries(results)) if (rs.length) {
  summary[id] = { runs: rs.length, prompt_tokens_ok: rs.every(x => x.prompt128 === 128 && (x.prompt512 ?? 512) === 512), text: rs[rs.length - 1].text, same_text: new Set(rs.map(x => x.text)).size === 1 };
  for (const k of KEYS) { const xs = rs.map(x => x[k]); summary[id][k] = median(xs); summary[id][k + '_range'] = range(xs); }
}
const num = (x, d) => x == null ? '-' : x.toFixed(d);
const rows = Object.entries(summary).map(([id, s]) => [id, num(s.load_cold_ms, 0), num(s.load_warm_ms, 0), num(s.first_visit_first_token_ms, 0), num(s.ttft128_ms, 0), num(s.prefill128, 1), num(s.prefill512, 1), num(s.decode, s.decode < 10 ? 2 : 1), num(s.peak_mb ?? s.rss_peak_mb, 0), num(s.pss_end_mb, 0), num(s.ua_memory_mb, 0), s.runs, num(s.other_cores, 2)]);
const text = table(['engine', 'load cold ms', 'load warm ms', 'visit->token ms', 'TTFT128 ms', 'prefill128 t/s', 'prefill512 t/s', 'decode t/s', 'peak MB', 'PSS MB', 'UA mem MB', 'runs', 'other cores'], rows);
console.log(`\nMedians (${runs} interleaved runs asked for; memory above a blank page)\n\n${text}`);
if (Object.keys(extra).length) console.log('\nmachine:', JSON.stringify(extra));
for (const [id, w] of Object.entries(skipped)) console.log(`skipped ${id}: ${w}`);
for (const [id, e] of Object.entries(errors)) console.log(`failed ${id} (${e.length}x): ${e[0].split('\n')[0]}`);

const ver = n => { try { return JSON.parse(fs.readFileSync(path.join(here, 'node_modules', n, 'package.json'), 'utf8')).version; } catch { return null; } };
const file = arg('out', path.join(here, 'results', `${started.toISOString().slice(0, 19).replace(/[:T]/g, '-')}.json`));
fs.mkdirSync(path.dirname(file), { recursive: true });
fs.writeFileSync(file, JSON.stringify({
  started, finished: new Date(), argv,
  machine: { cpus: os.cpus().length, cpu: os.cpus()[0].model, memory_gb: os.totalmem() / 2 ** 30, kernel: os.release(), node: process.version, chromium: chromiumVersion, chromium_path: CHROMIUM, chromium_args: ARGS, gpu_adapter: adapterInfo, ...extra },
  versions: Object.fromEntries(['@wllama/wllama', '@huggingface/transformers', 'onnxruntime-web', 'playwright-core'].map(n => [n, ver(n)])),
  models: Object.fromEntries(adapters.map(a => [a.name, a.model])),
  summary, skipped, errors, results,
}, null, 1));
console.log('results:', path.relative(process.cwd(), file));
process.exit(Object.keys(errors).length ? 1 : 0);
