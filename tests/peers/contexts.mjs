#!/usr/bin/env node
// How our decoding slows down as the context grows: node contexts.mjs [--runs N] [--threads N] [--out FILE]
// OURS_PKG and OURS_MODEL as for run.mjs. Contexts are interleaved; each is a prompt of that many tokens, then 32 tokens.
import fs from 'node:fs'; import os from 'node:os'; import path from 'node:path'; import { fileURLToPath } from 'node:url';
import ours from './adapters/ours.mjs'; import { serve } from './lib/serve.mjs'; import { launch } from './lib/browser.mjs';
import * as cpu from './lib/cpu.mjs'; import { median, range, table } from './lib/stats.mjs';

const argv = process.argv.slice(2), arg = (n, d) => { const i = argv.indexOf('--' + n); return i < 0 ? d : argv[i + 1]; };
const here = path.dirname(fileURLToPath(import.meta.url)), CONTEXTS = [128, 1024, 4096], TOKENS = 32;
const runs = +arg('runs', 5), threads = +arg('threads', 2), env = { OURS_PKG: process.env.OURS_PKG || '', OURS_MODEL: process.env.OURS_MODEL || '', GGUF: '' };
const why = ours.check(env);
if (why) { console.error(why); process.exit(2); }
const { opts } = ours.variants(env)['ours-cpu2'], seed = JSON.parse(fs.readFileSync(path.join(here, 'prompts.json'), 'utf8')).p512;

const srv = await serve({ '/h/': here + '/', ...ours.roots(env) }), profile = fs.mkdtempSync(path.join(os.tmpdir(), 'peerbench-'));
const { ctx, page } = await launch(profile, false);
const results = CONTEXTS.map(context => ({ context, prefill_tok_s: [], decode_tok_s: [] }));
let info, gmac_s;
try {
  await page.goto(`http://localhost:${srv.port}/bench`);
  info = await page.evaluate(async ({ opts, threads, context }) => {
    globalThis.model = await (await import(opts.pkg)).load(location.origin + opts.url, { backend: 'cpu', threads, contextLength: context });
    return model.info;
  }, { opts, threads, context: Math.max(...CONTEXTS) + TOKENS + 64 });
  const measure = (context, tokens) => page.evaluate(async ({ seed, context, tokens }) => {
    const ids = await model.tokenizer.encode(seed), many = Array.from({ length: context }, (_, i) => ids[i % ids.length]);
    const { usage } = await model.completions.create({ prompt: await model.tokenizer.decode(many), max_tokens: tokens, temperature: 0, ignore_eos: true, reuse_prefix: false, speculative: false });
    return usage;
  }, { seed, context, tokens });
  gmac_s = await page.evaluate(async () => { const { gmacs } = await import('/h/page/peak.js'); return [await gmacs(1), await gmacs(2)]; });
  await measure(128, 16); // compiles
  for (let r = 0; r < runs; r++) for (const result of results) {
    await cpu.waitIdle(0.3, 60);
    const u = await measure(result.context, TOKENS);
    result.prompt_tokens = u.prompt_tokens;
    result.prefill_tok_s.push(u.prompt_tokens / u.prefill_ms * 1e3);
    result.decode_tok_s.push((u.completion_tokens - 1) / u.decode_ms * 1e3);
    console.error(`run ${r + 1}/${runs} context ${result.context}: prefill ${result.prefill_tok_s.at(-1).toFixed(1)}, decode ${result.decode_tok_s.at(-1).toFixed(2)} tok/s`);
  }
} finally { await ctx.close(); srv.close(); fs.rmSync(profile, { recursive: true, force: true, maxRetries: 3 }); }

const spread = xs => `${median(xs).toFixed(1)} (${range(xs).map(x => x.toFixed(1)).join('-')})`, ms = r => 1e3 / median(r.decode_tok_s);
console.log(`\nOurs, ${info.threads} threads, by context: medians (and ranges) of ${runs} interleaved runs\n`);
console.log(table(['context', 'prompt tokens', 'prefill t/s', 'decode t/s', 'ms a token'], results.map(r => [r.context, r.prompt_tokens, spread(r.prefill_tok_s), spread(r.decode_tok_s), ms(r).toFixed(2)])));
const [first, last] = [results[0], results.at(-1)], slope = (ms(last) - ms(first)) / (last.context - first.context) * 1e3;
console.log(`\nwasm multiplies at most ${gmac_s.map(x => x.toFixed(0)).join(' and ')} billion bytes a second, on one and two threads`);
console.log(`a token takes ${slope.toFixed(2)} ms longer for every 1,000 tokens of context`);
if (arg('out')) fs.writeFileSync(arg('out'), JSON.stringify({ date: new Date(), info, gmac_s, runs, slope_ms_per_1000: slope, results }, null, 1));
