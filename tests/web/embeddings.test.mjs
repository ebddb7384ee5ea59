// Embeddings through the package, on WebGPU and on the CPU: a tiny BERT with a tokenizer of words w0, w1, ...
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { TINY, apiPage, environment, load, outcome, root } from "./support.mjs";

const BERT = `${root}/tests/fixtures/tiny/bert_mean`;
const golden = JSON.parse(readFileSync(`${BERT}/golden.json`, "utf8"));
const text = golden.input_ids.map((id) => `w${id}`).join(" ");

function encoderPackage() {
  const folder = mkdtempSync(path.join(tmpdir(), "openweights-"));
  for (const file of ["config.json", "model.safetensors"]) copyFileSync(`${BERT}/${file}`, `${folder}/${file}`);
  const vocab = Object.fromEntries(Array.from({ length: 384 }, (_, id) => [`w${id}`, id]));
  const model = { type: "WordLevel", vocab, unk_token: "w0" };
  const tokenizer = { version: "1.0", added_tokens: [], pre_tokenizer: { type: "WhitespaceSplit" }, model };
  writeFileSync(`${folder}/tokenizer.json`, JSON.stringify(tokenizer));
  execFileSync(`${root}/target/debug/openweights`, ["convert", folder, `${folder}/package`], { stdio: "ignore" });
  return `${folder}/package`;
}

const env = environment({ roots: { [TINY]: encoderPackage() } });
const embed = (page, params) => outcome(page, (params) => model.embeddings.create(params), params);
const near = (vector, expected) => vector.every((value, i) => Math.abs(value - expected[i]) < 1e-3) && vector.length === expected.length;

for (const backend of ["webgpu", "cpu"]) {
  test(`a text and several texts become vectors, in OpenAI's shape: ${backend}`, async () => {
    const page = await apiPage(env);
    const loaded = await load(page, TINY, { backend });
    assert.deepEqual(loaded.info?.embedding, { length: 64, pooling: "mean" }, JSON.stringify(loaded));

    const one = await embed(page, { input: text });
    assert.equal(one.object, "list");
    assert.deepEqual(one.usage, { prompt_tokens: 24, total_tokens: 24 });
    assert.deepEqual(one.data.map(({ object, index }) => [object, index]), [["embedding", 0]]);
    assert(near(one.data[0].embedding, golden.mean_pooled_normalised));

    const three = await embed(page, { input: ["w5 w6", text, "w5 w6"] });
    assert.deepEqual(three.data.map(({ index }) => index), [0, 1, 2]);
    assert(near(three.data[1].embedding, golden.mean_pooled_normalised));
    assert(!near(three.data[0].embedding, golden.mean_pooled_normalised));
    assert.deepEqual(three.data[0].embedding, three.data[2].embedding);
    assert.equal(three.usage.prompt_tokens, 28);

    for (const params of [{}, { input: [] }, { input: "" }, { input: 1 }, { input: text, dimensions: 8 }]) {
      assert.equal((await embed(page, params)).code, "invalid_input", JSON.stringify(params));
    }
    assert.equal((await embed(page, { input: "w1 ".repeat(65) })).code, "context_overflow");
    const code = await outcome(page, () => model.embeddings.create({ input: "w1", signal: AbortSignal.abort() }));
    assert.equal(code.code, "aborted");
    assert.match((await outcome(page, () => model.completions.create({ prompt: "w1" }))).message, /encoder/);
    assert(near((await embed(page, { input: text })).data[0].embedding, golden.mean_pooled_normalised), "the model goes on");
    await page.context().close();
  });
}
