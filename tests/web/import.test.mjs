// Publishers' files in the browser: GGUF and checkpoints by address, hub id, and as a person's own files.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, afterEach, before, test } from "node:test";
import { tinyGguf } from "./gguf.mjs";
import { serve } from "./server.mjs";
import { QUESTION, apiPage, assertRefused, environment, load, outcome, root } from "./support.mjs";

const folder = mkdtempSync(path.join(tmpdir(), "openweights-import-"));
const fixture = `${root}/tests/fixtures/tiny/llama_plain`;
const gguf = tinyGguf();
writeFileSync(`${folder}/tiny.gguf`, gguf);
for (const name of ["checkpoint", "gptq"]) {
  for (const file of ["config.json", "model.safetensors"]) cpSync(`${fixture}/${file}`, `${folder}/${name}/${file}`);
}
writeFileSync(`${folder}/checkpoint/README.md`, "---\nlicense: apache-2.0\nbase_model: org/base\n---\n# Tiny\n");
const config = JSON.parse(readFileSync(`${fixture}/config.json`, "utf8"));
writeFileSync(`${folder}/gptq/config.json`, JSON.stringify({ ...config, quantization_config: { quant_method: "gptq", bits: 4 } }));
const checkpoint = readdirSync(`${folder}/checkpoint`);

const env = environment({ roots: { "/files/": folder, "/smollm2/": `${root}/.cache` } });
const hubs = {};
before(async () => {
  hubs.hub = await serve({ "/org/tiny/resolve/main/": `${folder}/checkpoint`, "/org/gptq/resolve/main/": `${folder}/gptq` }, { cors: true });
  hubs.store = await serve({ "/": `${folder}/checkpoint` }, { cors: true });
});
after(async () => {
  for (const server of Object.values(hubs)) await server.close();
  rmSync(folder, { recursive: true });
});
afterEach(() => {
  for (const server of [env.server, ...Object.values(hubs)]) server.fault = () => undefined;
});

const cpu = { backend: "cpu" };
const weights = (server) => server.log.filter(({ address }) => /safetensors$|gguf$/.test(address));

/** Loads again with every server refusing: the model comes from storage. */
async function again(page, source, options = {}) {
  for (const server of [env.server, ...Object.values(hubs)]) server.fault = (address) => (/files|org/.test(address) ? { status: 500 } : undefined);
  const loaded = await load(page, source, { ...cpu, ...options });
  assert.deepEqual(loaded.phases, ["load"], JSON.stringify(loaded));
}

for (const whole of [false, true]) {
  test(`a GGUF by address, ${whole ? "without" : "with"} ranges`, async () => {
    const page = await apiPage(env);
    env.server.fault = (address) => (whole && address.endsWith(".gguf") ? { whole: true } : undefined);
    env.server.log.length = 0;
    const inspection = await outcome(page, (source) => ow.inspect(source), "/files/tiny.gguf");
    assert.equal(inspection.card?.name?.value, "Tiny GGUF", JSON.stringify(inspection));
    assert.deepEqual([inspection.kind, inspection.stored, inspection.bytes], ["gguf", false, gguf.length]);
    if (!whole) assert.deepEqual(weights(env.server).map(({ range }) => range), ["bytes=0-262143"], "the header, and no more");
    const loaded = await load(page, "/files/tiny.gguf", cpu);
    assert.equal(loaded.info?.architecture, "llama", JSON.stringify(loaded));
    assert(loaded.phases.includes("import"));
    const [stored] = await outcome(page, () => ow.store.list());
    assert.equal(stored.id, inspection.id);
    await again(page, "/files/tiny.gguf");
    await again(page, `store:${stored.id}`);
    await page.context().close();
  });
}

test("a GGUF file of one's own is known again by its contents", async () => {
  const page = await apiPage(env);
  const loadFile = (flip) => outcome(page, async (flip) => {
    const bytes = new Uint8Array(await (await fetch("/files/tiny.gguf")).arrayBuffer());
    if (flip) bytes[bytes.length / 2 | 0] ^= 1;
    const file = new File([bytes], "mine.gguf");
    const { stored } = await ow.inspect(file);
    const model = await ow.load(file, { backend: "cpu" });
    await model.unload();
    return { stored, models: (await ow.store.list()).length };
  }, flip);
  assert.deepEqual(await loadFile(false), { stored: false, models: 1 });
  assert.deepEqual(await loadFile(false), { stored: true, models: 1 });
  assert.deepEqual(await loadFile(true), { stored: false, models: 2 });
  await page.context().close();
});

test("a checkpoint as files and as a directory's handle", async () => {
  const page = await apiPage(env);
  const results = await outcome(page, async (names) => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("mine", { create: true });
    const files = [];
    for (const name of names) {
      const file = new File([await (await fetch(`/files/checkpoint/${name}`)).arrayBuffer()], name);
      const writer = await (await folder.getFileHandle(name, { create: true })).createWritable();
      await writer.write(file);
      await writer.close();
      files.push(file);
    }
    await folder.getDirectoryHandle("deeper", { create: true });
    const inspection = await ow.inspect(files, { quantize: "q8" });
    const first = await ow.load(files, { backend: "cpu", quantize: "q8" });
    const handle = await ow.inspect(folder, { quantize: "q8" });
    const second = await ow.load(folder, { backend: "cpu" });
    return { inspection, handle, quantisations: [first, second].map(({ card }) => card.quantisation), stored: await ow.store.list() };
  }, checkpoint);
  assert.equal(results.inspection?.card.license?.value, "apache-2.0", JSON.stringify(results));
  assert.equal(results.inspection.card.base_models[0].value, "org/base");
  assert(results.inspection.storage < results.inspection.bytes / 2, "8 bits instead of 32");
  assert.equal(results.handle.stored, true, "the same files, by handle");
  assert.deepEqual(results.quantisations, ["q8_0", "f32"]);
  assert.equal(results.stored.length, 2);
  await page.context().close();
});

test("a hub id: the token goes to the hub, and not along with a redirect", async () => {
  const page = await apiPage(env);
  const { hub, store } = hubs;
  hub.fault = (address) => (address.endsWith(".safetensors") ? { redirect: `${store.url}/model.safetensors?signed` } : undefined);
  const options = { hub: hub.url, token: "secret" };
  const loaded = await load(page, "org/tiny", { ...cpu, ...options });
  assert.equal(loaded.info?.architecture, "llama", JSON.stringify(loaded));
  assert(hub.log.length > 3 && hub.log.every(({ authorization }) => authorization === "Bearer secret"), JSON.stringify(hub.log));
  assert(store.log.length && store.log.every(({ authorization }) => authorization === undefined), JSON.stringify(store.log));
  assert(![...hub.log, ...store.log].some(({ address }) => address.includes("secret")));
  await again(page, "org/tiny", options);
  await page.context().close();
});

test("the hub's digest decides", async () => {
  const page = await apiPage(env);
  const etag = (sha256) => (address) => (address.endsWith(".safetensors") ? { headers: { "x-linked-etag": `"${sha256}"` } } : undefined);
  hubs.hub.fault = etag("0".repeat(64));
  await assertRefused(page, await load(page, "org/tiny", { ...cpu, hub: hubs.hub.url }), "integrity");
  hubs.hub.fault = etag(createHash("sha256").update(readFileSync(`${fixture}/model.safetensors`)).digest("hex"));
  assert.equal((await load(page, "org/tiny", { ...cpu, hub: hubs.hub.url })).info?.architecture, "llama");
  await page.context().close();
});

test("a checkpoint that GPTQ has packed is refused by name, and no weight is asked for", async () => {
  const page = await apiPage(env);
  hubs.hub.log.length = 0;
  const result = await load(page, "org/gptq", { ...cpu, hub: hubs.hub.url });
  await assertRefused(page, result, "unsupported_format");
  assert.match(result.message, /GPTQ/);
  assert.deepEqual(weights(hubs.hub), []);
  await page.context().close();
});

test("a model straight from its publisher's GGUF answers", { timeout: 600_000 }, async () => {
  const page = await apiPage(env);
  const loaded = await load(page, "/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", { backend: "webgpu", contextLength: 256 });
  assert.equal(loaded.info?.backend, "webgpu", JSON.stringify(loaded));
  const answer = await outcome(page, (messages) => model.chat.completions.create({ messages, temperature: 0, max_tokens: 8 }), QUESTION);
  assert.match(answer.choices?.[0].message.content ?? JSON.stringify(answer), /Paris/);
  await page.context().close();
});
