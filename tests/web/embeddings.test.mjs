// Embeddings through the package, on WebGPU and on the CPU: a tiny BERT with a tokenizer of words w0, w1, ...
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { TINY, apiPage, environment, load, outcome, root } from "./support.mjs";

const BERT = `${root}/tests/fixtures/tiny/bert_mean`;
const golden = JSON.parse(readFileSync(`${BERT}/golden.json`, "utf8"));
const text = golden.input_ids.map((id) => `w${id}`).join(" ");

/** The checkpoint, with Sentence Transformers' modules: the first token, then a dense layer that takes its first 16 elements. */
function encoder() {
  const folder = mkdtempSync(path.join(tmpdir(), "openweights-"));
  for (const file of ["config.json", "model.safetensors"]) copyFileSync(`${BERT}/${file}`, `${folder}/${file}`);
  const vocab = Object.fromEntries(Array.from({ length: 384 }, (_, id) => [`w${id}`, id]));
  const model = { type: "WordLevel", vocab, unk_token: "w0" };
  const tokenizer = { version: "1.0", added_tokens: [], pre_tokenizer: { type: "WhitespaceSplit" }, model };
  writeFileSync(`${folder}/tokenizer.json`, JSON.stringify(tokenizer));
  execFileSync(`${root}/target/debug/openweights`, ["convert", folder, `${folder}/package`], { stdio: "ignore" });

  const put = (file, content) => {
    mkdirSync(path.dirname(`${folder}/${file}`), { recursive: true });
    writeFileSync(`${folder}/${file}`, typeof content === "object" && !Buffer.isBuffer(content) ? JSON.stringify(content) : content);
  };
  const module = (path, type) => ({ path, type: `sentence_transformers.models.${type}` });
  put("modules.json", [module("", "Transformer"), module("1_Pooling", "Pooling"), module("2_Dense", "Dense")]);
  put("1_Pooling/config.json", { pooling_mode_cls_token: true });
  put("2_Dense/config.json", { in_features: 64, out_features: 16, bias: false, activation_function: "torch.nn.modules.linear.Identity" });
  const weight = Float32Array.from({ length: 16 * 64 }, (_, i) => (i % 64 === Math.floor(i / 64) ? 1 : 0));
  const header = JSON.stringify({ "linear.weight": { dtype: "F32", shape: [16, 64], data_offsets: [0, weight.byteLength] } });
  const length = Buffer.alloc(8);
  length.writeUInt32LE(header.length);
  put("2_Dense/model.safetensors", Buffer.concat([length, Buffer.from(header), Buffer.from(weight.buffer)]));
  return folder;
}

const folder = encoder();
const CHECKPOINT = ["config.json", "model.safetensors", "tokenizer.json", "modules.json", "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"];
const env = environment({ roots: { [TINY]: `${folder}/package`, "/checkpoint/": folder } });
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

test("a person's own folder with modules: by address, as a handle, as files", async () => {
  const page = await apiPage(env);
  const vectors = await outcome(page, async ([names, input]) => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("mine", { create: true });
    const files = [];
    for (const name of names) {
      const bytes = await (await fetch(`/checkpoint/${name}`)).arrayBuffer();
      const parts = name.split("/");
      const inner = parts.length > 1 ? await folder.getDirectoryHandle(parts[0], { create: true }) : folder;
      const writer = await (await inner.getFileHandle(parts.at(-1), { create: true })).createWritable();
      await writer.write(bytes);
      await writer.close();
      files.push(new File([bytes], name)); // as the demo page names what lies in a dropped folder
    }
    await (await folder.getDirectoryHandle("onnx", { create: true })).getFileHandle("config.json", { create: true });
    const vectors = [];
    for (const source of ["/checkpoint/", folder, files]) {
      const model = await ow.load(source, { backend: "cpu" });
      vectors.push((await model.embeddings.create({ input })).data[0].embedding);
      await model.unload();
    }
    return vectors;
  }, [CHECKPOINT, text]);
  const first = golden.cls_normalised.slice(0, 16);
  const length = Math.hypot(...first);
  assert.equal(vectors.length, 3, JSON.stringify(vectors));
  for (const vector of vectors) assert(near(vector, first.map((v) => v / length)));
  await page.context().close();
});
