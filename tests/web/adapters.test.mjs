// Adapters in the browser, on WebGPU: PEFT's tokens, from addresses and files; added, scaled and removed while the model stays.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { apiPage, environment, load, outcome, root } from "./support.mjs";

const llama = `${root}/tests/fixtures/tiny/llama_plain`;
const golden = (name) => JSON.parse(readFileSync(path.join(llama, name, "golden.json"), "utf8"));
const limit = { timeout: 300_000 };

/** The tiny model with a tokenizer of one word for each token: "t0 t1 ...". */
function worded() {
  const folder = mkdtempSync(path.join(tmpdir(), "openweights-"));
  const [source, out] = [path.join(folder, "source"), path.join(folder, "package")];
  cpSync(llama, source, { recursive: true, filter: (file) => !path.basename(file).startsWith("lora_") });
  const vocab = Object.fromEntries(Array.from({ length: 384 }, (_, id) => [`t${id}`, id]));
  const model = { type: "WordLevel", vocab, unk_token: "t0" };
  const rest = { version: "1.0", truncation: null, padding: null, added_tokens: [], normalizer: null, post_processor: null, decoder: { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: false } };
  writeFileSync(`${source}/tokenizer.json`, JSON.stringify({ ...rest, pre_tokenizer: { type: "Whitespace" }, model }));
  execFileSync(`${root}/target/debug/openweights`, ["convert", source, out], { stdio: "ignore" });
  return out;
}

const env = environment({ roots: { "/worded/": worded(), "/llama/": llama } });

/** What must not fail. */
async function done(...call) {
  const result = await outcome(...call);
  assert(!result?.code, JSON.stringify(result));
  return result;
}

const prompt = golden("").input_ids.map((id) => `t${id}`).join(" ");
const greedy = (page) =>
  done(page, async (prompt) => {
    const answer = await model.completions.create({ prompt, temperature: 0, max_tokens: 16, ignore_eos: true });
    return { ids: answer.choices[0].token_ids, reused: answer.usage.reused_tokens };
  }, prompt);
const tokens = async (page) => (await greedy(page)).ids;

test("adapters come and go by address; the base is the same afterwards", limit, async () => {
  const page = await apiPage(env);
  assert.equal((await load(page, "/worded/", { backend: "webgpu" })).info?.backend, "webgpu");
  assert.deepEqual(await tokens(page), golden("").greedy_ids);
  for (const name of ["lora_r4", "lora_rslora_qv", "lora_dora"]) {
    const info = await outcome(page, (name) => model.adapters.add(`/llama/${name}/`), name);
    assert.deepEqual([info.name, info.scale, info.kind], [name, 1, name === "lora_dora" ? "dora" : "lora"], JSON.stringify(info));
    assert.equal(info.baseModel, "llama_plain");
    const answer = await greedy(page);
    assert.deepEqual([answer.ids, answer.reused], [golden(name).greedy_ids, 0]);
    await outcome(page, (name) => model.adapters.remove(name), name);
    assert.deepEqual(await tokens(page), golden("").greedy_ids);
  }
  assert.deepEqual(await outcome(page, () => model.adapters.list()), []);

  // Stored: the second time nothing is asked for.
  env.server.requests.length = 0;
  await outcome(page, () => model.adapters.add("/llama/lora_r4/", { name: "again", scale: 0 }));
  assert.deepEqual(env.server.requests, []);
  assert.deepEqual(await tokens(page), golden("").greedy_ids);
  await outcome(page, () => model.adapters.setScale("again", 1));
  assert.deepEqual(await tokens(page), golden("lora_r4").greedy_ids);
  const stored = await outcome(page, () => ow.store.list());
  assert.deepEqual(stored.map(({ kind }) => kind).sort(), ["adapter", "adapter", "adapter", "model"]);
  await outcome(page, (id) => ow.store.remove(id), stored.find(({ source }) => source.includes("lora_r4")).id);
  assert.equal((await outcome(page, () => ow.store.list())).length, 3);
  await page.context().close();
});

test("load adds adapters; files of one's own; several at once, as on the CPU", limit, async () => {
  const page = await apiPage(env);
  const files = ["adapter_config.json", "adapter_model.safetensors"].map((name) => [name, readFileSync(`${llama}/lora_dora/${name}`).toString("base64")]);
  const both = (backend) =>
    done(page, async ([files, backend, prompt]) => {
      const open = ([name, data]) => new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name);
      globalThis.model = await ow.load("/worded/", {
        backend,
        adapters: ["/llama/lora_rslora_qv/", { source: files.map(open), name: "mine", scale: 0.5 }],
      });
      const answer = await model.completions.create({ prompt, temperature: 0, max_tokens: 16, ignore_eos: true });
      const list = await model.adapters.list();
      await model.adapters.remove("lora_rslora_qv");
      await model.adapters.setScale("mine", 1);
      const alone = await model.completions.create({ prompt, temperature: 0, max_tokens: 16, ignore_eos: true });
      await model.unload();
      return { list, both: answer.choices[0].token_ids, alone: alone.choices[0].token_ids };
    }, [files, backend, prompt]);
  const gpu = await both("webgpu");
  assert.deepEqual(gpu.list.map(({ name, kind, scale }) => [name, kind, scale]), [["lora_rslora_qv", "lora", 1], ["mine", "dora", 0.5]]);
  assert.deepEqual(gpu.alone, golden("lora_dora").greedy_ids);
  assert.deepEqual(gpu.both, (await both("cpu")).both);
  assert.notDeepEqual(gpu.both, gpu.alone);
  await page.context().close();
});

test("what does not fit is refused by name, and nothing of it is kept", limit, async () => {
  const page = await apiPage(env);
  await load(page, "/worded/", { backend: "cpu" });
  const add = (source, options) => outcome(page, ([source, options]) => model.adapters.add(source, options), [source, options ?? {}]);
  const refused = async (source, code, message, options) => {
    const result = await add(source, options);
    assert.equal(result.code, code, JSON.stringify(result));
    assert.match(result.message, message);
  };
  await refused("/worded/", "not_found", /adapter_config\.json/);
  await refused("/llama/lora_r4/", "invalid_input", /strength/, { strength: 2 });
  await refused("/llama/model.safetensors", "not_found", /adapter_config\.json/);
  await refused(42, "invalid_input", /File/);
  env.server.fault = (address) => (address.endsWith("adapter_model.safetensors") ? { truncate: 9000 } : undefined);
  await refused("/llama/lora_r4/", "integrity", /adapter_model/);
  env.server.fault = () => undefined;
  assert.deepEqual((await outcome(page, () => ow.store.list())).map(({ kind }) => kind), ["model"]);
  // The same address, once it is well again.
  assert.equal((await add("/llama/lora_r4/")).name, "lora_r4");
  await refused("/llama/lora_r4/", "invalid_input", /lora_r4/);
  await page.context().close();
});
