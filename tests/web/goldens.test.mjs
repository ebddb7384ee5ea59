// Tiny models of a third of the architectures in Chromium, on the processor and on WebGPU: transformers' logits and greedy ids.
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { apiPage, environment, openWorker, root } from "./support.mjs";

const NAMES = [
  "gemma2",
  "gemma3",
  "gpt2",
  "gpt_oss",
  "lfm2_conv",
  "llama3_rope_tied",
  "llama_f16_sharded",
  "mistral_swa",
  "mixtral_moe",
  "olmo2_postnorm",
  "phi3_partial",
  "qwen2_swa",
  "qwen3_moe",
];
const TOLERANCE = 1e-3;

let page;
async function ready(env) {
  page = await apiPage(env);
  await openWorker(page, "relaxed-simd");
}
environment({ ready });

/** The files of a checkpoint, and what transformers makes of it. */
function fixture(name) {
  const folder = `${root}/tests/fixtures/tiny/${name}`;
  const files = readdirSync(folder).filter((file) => file !== "golden.json" && file !== "config.v5.json" && /\.(json|safetensors)$/.test(file));
  const golden = JSON.parse(readFileSync(`${folder}/golden.json`, "utf8"));
  return { files: files.map((file) => [file, readFileSync(`${folder}/${file}`).toString("base64")]), golden };
}

for (const on of ["cpu", "webgpu"]) {
  for (const name of NAMES) {
    test(`${name} on ${on}`, { timeout: 120_000 }, async () => {
      const { files, golden } = fixture(name);
      const tokens = [...golden.input_ids, ...golden.greedy_ids];
      const logits = await page.evaluate(
        async ([files, tokens, on]) => {
          const decoded = files.map(([file, text]) => [file, Uint8Array.from(atob(text), (c) => c.charCodeAt(0))]);
          return [...(await check("check_logits", decoded, tokens, on))];
        },
        [files, tokens, on],
      );
      const vocab = logits.length / tokens.length;
      golden.logits.forEach((row, position) => {
        const ours = logits.slice(position * vocab, (position + 1) * vocab);
        const difference = Math.max(...row.map((value, i) => Math.abs(value - ours[i])));
        assert(difference < TOLERANCE, `position ${position} is off by ${difference}`);
        const next = tokens[position + 1];
        if (position >= golden.input_ids.length - 1 && next !== undefined) assert.equal(ours.indexOf(Math.max(...ours)), next);
      });
      assert.equal(golden.logits.length, tokens.length);
    });
  }
}
