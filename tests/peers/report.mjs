#!/usr/bin/env node
// Medians with their spread from a result of run.mjs, and the share of the machine's limits: node report.mjs RESULT.json [CONTEXTS.json]
import fs from 'node:fs'; import { median, range, table } from './lib/stats.mjs';
const { summary, results, machine, versions, started } = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
// SmolLM2-135M: bytes of weights that a token reads (the whole GGUF), and multiplications a token, with and without the logits.
const BYTES = 96576768, MACS = 0.135e9, MACS_PREFILL = 0.107e9;
const num = x => (x < 10 ? x.toFixed(2) : x.toFixed(x < 100 ? 1 : 0)), cell = (id, key) => { const xs = results[id].map(r => r[key]).filter(Number.isFinite); return xs.length ? `${num(median(xs))} (${range(xs).map(num).join('-')})` : '-'; };
const KEYS = [['prefill128', 'prefill 128'], ['prefill512', 'prefill 512'], ['decode', 'decode'], ['load_warm_ms', 'load warm ms'], ['peak_mb', 'peak MB']];
const ids = Object.keys(summary), rows = ids.map(id => [id, summary[id].runs, ...KEYS.map(([key]) => cell(id, key))]);
console.log(`${new Date(started).toISOString().slice(0, 10)}, ${machine.cpus} x ${machine.cpu}, Chromium ${machine.chromium}, ${Object.entries(versions).filter(([, v]) => v).map(([n, v]) => `${n} ${v}`).join(', ')}`);
console.log(`Medians (and ranges) of interleaved runs, tokens a second\n\n${table(['engine', 'runs', ...KEYS.map(([, name]) => name)], rows)}`);
const memory = machine.bandwidth && Math.max(machine.bandwidth.read_gb_s_2t, machine.bandwidth.read_gb_s_1t);
const arithmetic = process.argv[3] && JSON.parse(fs.readFileSync(process.argv[3], 'utf8')).gmac_s; // on one and two threads
console.log(`\nlimits: reading ${memory ? `${num(memory)} GB/s` : 'not measured'}; products of bytes in wasm, ${arithmetic ? `${arithmetic.map(num).join(' and ')} GMAC/s on one and two threads` : 'not measured'}`);
for (const id of ids.filter(id => id.startsWith('ours') || id.startsWith('native'))) {
  const { decode, prefill512 } = summary[id], parts = [];
  if (memory && decode) parts.push(`decode reads ${num(decode * BYTES / 1e9)} GB/s, ${(decode * BYTES / memory / 1e7).toFixed(0)} % of memory's limit, and computes ${num(decode * MACS / 1e9)} GMAC/s`);
  const limit = arithmetic && id.startsWith('ours') && arithmetic[id.endsWith('1') ? 0 : 1];
  if (prefill512) parts.push(`prefill computes ${num(prefill512 * MACS_PREFILL / 1e9)} GMAC/s${limit ? `, ${(prefill512 * MACS_PREFILL / limit / 1e7).toFixed(0)} % of arithmetic's` : ''}`);
  console.log(`${id}: ${parts.join('; ')}`);
}
