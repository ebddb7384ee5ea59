// What happens to stored models: a tab that dies, storage that is full, cleared, evicted, damaged or not granted.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { SMOLLM2, TINY, apiPage, environment, load, openApi, outcome, tinyPackage } from "./support.mjs";

const env = environment({ roots: { [TINY]: tinyPackage() } });
const cpu = { backend: "cpu" };
const isShard = (address) => address.endsWith(".safetensors");
const shards = () => env.server.log.filter(({ address }) => isShard(address));
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const until = async (condition) => {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 20));
};

afterEach(() => {
  env.server.fault = () => undefined;
});

/** Changes a stored file behind the store's back; without `offset` it goes. */
const damage = (page, suffix, offset) => outcome(page, async ([suffix, offset]) => {
  const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("openweights");
  const [models, blobs] = [await root.getDirectoryHandle("models"), await root.getDirectoryHandle("blobs")];
  for await (const name of models.keys()) {
    const { manifest } = JSON.parse(await (await (await models.getFileHandle(name)).getFile()).text());
    for (const { path, sha256 } of manifest.files.filter(({ path }) => path.endsWith(suffix))) {
      if (offset === undefined) await blobs.removeEntry(sha256);
      else {
        const writer = await (await blobs.getFileHandle(sha256)).createWritable({ keepExistingData: true });
        await writer.write({ type: "write", position: offset, data: "damaged" });
        await writer.close();
      }
    }
  }
}, [suffix, offset]);

test("a tab that dies in mid-download: the next one goes on where it ended", { timeout: 300_000 }, async (t) => {
  const page = await apiPage(env);
  const context = page.context();
  env.server.log.length = 0;
  // Slow enough that what was sent has arrived, too, but for little.
  env.server.fault = (address) => (isShard(address) ? { trickle: 40 } : undefined);
  page.evaluate((source) => void ow.load(source, { backend: "cpu" }), SMOLLM2).catch(() => {});
  await until(() => sum(shards().map(({ sent }) => sent)) > 25_000_000);
  const session = await context.newCDPSession(page);
  session.send("Page.crash").catch(() => {});
  await new Promise((resolve) => page.once("crash", resolve));
  const before = sum(shards().map(({ sent }) => sent));
  env.server.fault = () => undefined;
  const next = await context.newPage();
  await openApi(next, env.server);
  const loaded = await load(next, SMOLLM2, { ...cpu, contextLength: 64 });
  assert.equal(loaded.info?.backend, "cpu", JSON.stringify(loaded));
  const { models } = await outcome(next, () => ow.store.usage());
  const twice = sum(shards().map(({ sent }) => sent)) - loaded.card.bytes;
  t.diagnostic(`${before} bytes before, ${twice} of ${models} fetched twice: ${((100 * twice) / models).toFixed(2)} %`);
  assert(before > 25_000_000 && before < models && twice < models / 100, `${twice} bytes`);
  await context.close();
});

// Chromium tells pages a quota of 10 GiB whatever it grants, so here a write fails; `tests/tests/download.rs` has the refusal before.
test("a browser that grants too little is a quota error that says how much is missing; then the download goes on", { timeout: 300_000 }, async () => {
  const page = await apiPage(env);
  const session = await page.context().newCDPSession(page);
  const grant = (quotaSize) => session.send("Storage.overrideQuotaForOrigin", { origin: env.server.url, quotaSize });
  await grant(50_000_000);
  env.server.log.length = 0;
  const refused = await load(page, SMOLLM2, cpu);
  assert.equal(refused.code, "quota", JSON.stringify(refused));
  assert.match(refused.message, /[1-9]\d* bytes are needed, .*[1-9]\d* are missing/);

  await grant(undefined);
  env.server.fault = (address) => (isShard(address) ? { trickle: 4 } : undefined);
  const loading = load(page, SMOLLM2, cpu);
  await until(() => sum(shards().map(({ sent }) => sent)) > 20_000_000);
  await grant(25_000_000);
  const full = await loading;
  assert.equal(full.code, "quota", JSON.stringify(full));
  assert.deepEqual(await outcome(page, () => ow.store.list()), []);
  await grant(undefined);
  env.server.fault = () => undefined;
  env.server.log.length = 0;
  const { unfinished } = await outcome(page, () => ow.store.usage());
  const loaded = await load(page, SMOLLM2, { ...cpu, contextLength: 64 });
  assert.equal(loaded.info?.backend, "cpu", JSON.stringify(loaded));
  const fetched = sum(shards().map(({ sent }) => sent));
  assert(unfinished > 15_000_000 && fetched < loaded.card.bytes - unfinished + 1_000_000, `${unfinished} were there, ${fetched} came`);
  await page.context().close();
});

test("storage that is cleared underneath a download, and under a stored model", async () => {
  const page = await apiPage(env);
  const session = await page.context().newCDPSession(page);
  const clear = () => session.send("Storage.clearDataForOrigin", { origin: env.server.url, storageTypes: "all" });
  env.server.fault = (address) => (isShard(address) ? { trickle: 300 } : undefined);
  env.server.log.length = 0;
  const loading = load(page, TINY, cpu);
  await until(() => sum(shards().map(({ sent }) => sent)) > 100_000);
  await clear();
  const result = await loading;
  assert(result.info || ["storage", "not_found", "integrity"].includes(result.code), JSON.stringify(result));
  env.server.fault = () => undefined;
  await openApi(page, env.server);
  assert.equal((await load(page, TINY, cpu)).info?.backend, "cpu");
  await openApi(page, env.server);
  await clear();
  assert.deepEqual(await outcome(page, () => ow.store.list()), []);
  assert.equal((await load(page, TINY, cpu)).info?.backend, "cpu");
  await page.context().close();
});

test("a model of which a file was evicted is reported, and that file fetched again", async () => {
  const page = await apiPage(env);
  const { card, info } = await load(page, TINY, cpu);
  assert.deepEqual([info.restored, info.storage, info.verification], [0, "files", "digests match the manifest; signer not verified"]);
  await damage(page, ".safetensors");
  const [stored] = await outcome(page, () => ow.store.list());
  assert.equal(stored.missing, card.bytes);
  env.server.log.length = 0;
  assert.equal((await load(page, TINY, { ...cpu, offline: true })).code, "offline");
  assert.deepEqual(env.server.log.filter(({ address }) => address.startsWith(TINY)), []);
  const again = await load(page, TINY, cpu);
  assert.equal(again.info?.restored, card.bytes, JSON.stringify(again));
  assert.deepEqual(env.server.requests.filter((address) => address.startsWith(TINY)).length > 0 && shards().length, 1);
  assert.equal((await load(page, TINY, { ...cpu, offline: true })).info?.restored, 0);
  await page.context().close();
});

test("verifying finds a damaged file and fetches that one", async () => {
  const page = await apiPage(env);
  await load(page, TINY, cpu);
  const verify = () => outcome(page, async () => {
    const phases = new Set();
    const [{ id }] = await ow.store.list();
    return { ...(await ow.store.verify(id, { onProgress: ({ phase }) => phases.add(phase) })), phases: [...phases] };
  });
  env.server.log.length = 0;
  assert.deepEqual((await verify()).bad, []);
  assert.deepEqual(env.server.log.filter(({ address }) => address.startsWith(TINY)), []);
  await damage(page, ".safetensors", 1000);
  const mended = await verify();
  assert.equal(mended.repaired, true, JSON.stringify(mended));
  assert.equal(mended.bad.length, 1);
  assert.deepEqual(mended.phases, ["verify", "download"]);
  assert.deepEqual(env.server.log.filter(({ address }) => address.startsWith(TINY)).map(({ address }) => isShard(address)), [true]);
  assert.deepEqual((await verify()).bad, []);
  await page.context().close();
});

test("what a given-up download left is counted and cleaned", async () => {
  const page = await apiPage(env);
  env.server.fault = (address) => (isShard(address) ? { drop: 131_072 } : undefined);
  const cancelled = outcome(page, async (source) => {
    const cancel = new AbortController();
    setTimeout(() => cancel.abort(), 2000);
    await ow.load(source, { backend: "cpu", signal: cancel.signal });
  }, TINY);
  const result = await cancelled;
  if (result) assert.equal(result.code, "aborted");
  const cleaned = await outcome(page, async () => {
    for (const { id } of await ow.store.list()) await ow.store.remove(id);
    return { freed: await ow.store.clean(), left: (await ow.store.usage()).unfinished };
  });
  assert.equal(cleaned.left, 0, JSON.stringify(cleaned));
  await page.context().close();
});

test("without private files a model is kept in memory, and that is said", async () => {
  const page = await apiPage(env);
  await page.context().route("**/openweights/dist/worker.js", async (route) => {
    const answer = await route.fetch();
    const none = 'navigator.storage.getDirectory = async () => { throw new DOMException("not here", "SecurityError"); };\n';
    await route.fulfill({ response: answer, body: none + (await answer.text()) });
  });
  await openApi(page, env.server);
  const loaded = await load(page, TINY, cpu);
  assert.equal(loaded.info?.storage, "memory", JSON.stringify(loaded));
  assert.match(loaded.info.storageReason, /not here/);
  assert.equal((await outcome(page, () => ow.store.usage())).kind, "memory");
  await page.context().close();
});

test("the browser is asked to keep a model once one was stored, and not where the page says no", async () => {
  const page = await apiPage(env, () => {
    globalThis.asked = 0;
    StorageManager.prototype.persist = async () => (globalThis.asked++, true);
  });
  const asked = () => page.evaluate(() => asked);
  await load(page, TINY, { ...cpu, persist: false });
  assert.equal(await asked(), 0);
  await outcome(page, async () => ow.store.remove((await ow.store.list())[0].id));
  await load(page, TINY, cpu);
  assert.equal(await asked(), 1);
  await load(page, TINY, cpu);
  assert.equal(await asked(), 1, "from storage: asked before");
  assert.equal(typeof (await outcome(page, () => ow.store.usage())).persisted, "boolean");
  await page.context().close();
});
