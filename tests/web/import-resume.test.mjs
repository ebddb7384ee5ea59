// Imports that end early: after the tab died the next one goes on, and what is stored is not fetched again. What is bad of one is made again.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { apiPage, environment, load, openApi, outcome, root } from "./support.mjs";

const env = environment({ roots: { "/smollm2/": `${root}/.cache` } });
const limit = { timeout: 600_000 };
const GGUF = "/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const options = { backend: "cpu", contextLength: 64 };
const asked = () => env.server.log.filter(({ address }) => address === GGUF);
const sent = () => asked().reduce((sum, { sent }) => sum + sent, 0);
const until = async (condition) => {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 20));
};

afterEach(() => {
  env.server.fault = () => undefined;
});

/** Loads in `page`; also why an import began again. */
const loadTold = (page) => outcome(page, async ([source, options]) => {
  let restarted;
  const model = await ow.load(source, { ...options, onProgress: (progress) => (restarted ??= progress.restarted) });
  const { card, info } = model;
  await model.unload();
  return { card, info, restarted };
}, [GGUF, options]);

/** Names and digests of all files, as the store's record has them; also the digest of the source. */
const manifest = (page) => page.evaluate(async () => {
  const folder = await (await (await navigator.storage.getDirectory()).getDirectoryHandle("openweights")).getDirectoryHandle("models");
  for await (const name of folder.keys()) {
    const { files, source } = JSON.parse(await (await (await folder.getFileHandle(name)).getFile()).text()).manifest;
    return { files, source };
  }
});

/** What is in the store besides blobs and records. */
const partials = (page) => page.evaluate(async () => {
  const names = [];
  const folder = await (await (await navigator.storage.getDirectory()).getDirectoryHandle("openweights")).getDirectoryHandle("partial");
  for await (const name of folder.keys()) names.push(name);
  return names;
});

/** Imports until `bytes` have been sent, and then the tab dies. Gives the context and how many were sent in all. */
async function dies(bytes) {
  const page = await apiPage(env);
  env.server.log.length = 0;
  // Slow enough that what was sent has arrived, too, but for little.
  env.server.fault = (address) => (address === GGUF ? { trickle: 20 } : undefined);
  page.evaluate(([source, options]) => void ow.load(source, options).catch(() => {}), [GGUF, options]).catch(() => {});
  await until(() => sent() > bytes);
  const session = await page.context().newCDPSession(page);
  session.send("Page.crash").catch(() => {});
  await new Promise((resolve) => page.once("crash", resolve));
  env.server.fault = () => undefined;
  const before = sent();
  const next = await page.context().newPage();
  next.setDefaultTimeout(120_000);
  await openApi(next, env.server);
  return { next, before };
}

let whole;
test("what one visit imports", limit, async () => {
  const page = await apiPage(env);
  const loaded = await load(page, GGUF, options);
  assert.equal(loaded.info?.architecture, "llama", JSON.stringify(loaded));
  whole = await manifest(page);
  whole.bytes = (await outcome(page, (source) => ow.inspect(source), GGUF)).bytes;
  assert.deepEqual(await partials(page), []);
  await page.context().close();
});

for (const part of [0.25, 0.7]) {
  test(`a tab that dies after ${100 * part} % of an import: the next one goes on`, limit, async (t) => {
    const size = Number(whole.source.files[0].size);
    const { next, before } = await dies(part * size);
    const loaded = await loadTold(next);
    assert.equal(loaded.info?.architecture, "llama", JSON.stringify(loaded));
    assert.equal(loaded.restarted, undefined);
    const twice = sent() - size;
    t.diagnostic(`${before} of ${size} bytes before, ${twice} fetched twice: ${((100 * twice) / size).toFixed(2)} %`);
    assert(before < size && twice < 4_000_000, `${twice} bytes`);
    const { files, source } = await manifest(next);
    assert.deepEqual(files, whole.files);
    assert.deepEqual(source, whole.source, "the digest of all that was read, in two visits");
    assert.deepEqual(await partials(next), []);
    await next.context().close();
  });
}

test("another version of the source: the import begins again, and says so", limit, async () => {
  const { next } = await dies(20_000_000);
  env.server.fault = (address) => (address === GGUF ? { etag: '"other"' } : undefined);
  env.server.log.length = 0;
  const loaded = await loadTold(next);
  assert.match(loaded.restarted ?? JSON.stringify(loaded), /Q4_1\.gguf" has changed since its import began/);
  assert.equal(sent(), Number(whole.source.files[0].size));
  assert.deepEqual((await manifest(next)).files, whole.files);
  assert.deepEqual(await partials(next), []);
  await next.context().close();
});

test("verifying an import makes the bad shard again, of no more than that needs; a file of one's own is asked for", limit, async (t) => {
  const page = await apiPage(env);
  await load(page, GGUF, options);
  const damage = () => outcome(page, async () => {
    const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("openweights");
    const [models, blobs] = [await root.getDirectoryHandle("models"), await root.getDirectoryHandle("blobs")];
    for await (const name of models.keys()) {
      const { manifest } = JSON.parse(await (await (await models.getFileHandle(name)).getFile()).text());
      const { path, size, sha256 } = manifest.files.findLast(({ path }) => path.endsWith(".safetensors"));
      const writer = await (await blobs.getFileHandle(sha256)).createWritable({ keepExistingData: true });
      await writer.write({ type: "write", position: 5000, data: "damaged" });
      await writer.close();
      return { path, size };
    }
  });
  const verify = () => outcome(page, async () => ow.store.verify((await ow.store.list())[0].id));
  const bad = await damage();
  env.server.log.length = 0;
  const mended = await verify();
  assert.deepEqual([mended.bad, mended.repaired, mended.unrepaired], [[bad.path], true, null], JSON.stringify(mended));
  t.diagnostic(`${bad.size} bytes were bad, ${sent()} of ${whole.source.files[0].size} were fetched`);
  assert(sent() < 0.6 * whole.source.files[0].size, `${sent()}`);
  assert.deepEqual((await verify()).bad, []);
  assert.deepEqual((await manifest(page)).files, whole.files);
  await damage();
  env.server.fault = (address) => (address === GGUF ? { status: 404 } : undefined);
  assert.equal((await verify()).code, "not_found");
  await page.context().close();
});

test("a file of one's own that is bad in the store is asked for", limit, async () => {
  const page = await apiPage(env);
  const results = await outcome(page, async (source) => {
    const file = new File([await (await fetch(source)).blob()], "mine.gguf");
    const loadFile = async () => (await ow.load(file, { backend: "cpu", contextLength: 64 })).unload();
    await loadFile();
    const blobs = await (await (await navigator.storage.getDirectory()).getDirectoryHandle("openweights")).getDirectoryHandle("blobs");
    let largest;
    for await (const handle of blobs.values()) {
      const { size } = await handle.getFile();
      if (size > (largest?.size ?? 0)) largest = { name: handle.name, size };
    }
    await blobs.removeEntry(largest.name);
    const [{ id }] = await ow.store.list();
    const found = await ow.store.verify(id);
    await loadFile();
    return [found, await ow.store.verify(id)];
  }, GGUF);
  assert.equal(results[0]?.repaired, false, JSON.stringify(results));
  assert.equal(results[0].unrepaired.code, "not_found");
  assert.match(results[0].unrepaired.message, /mine\.gguf.*load them again/);
  assert.equal(results[1].repaired, true);
  await page.context().close();
});
