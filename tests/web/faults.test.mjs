// What goes wrong on the way to a loaded model: each has its code, and nothing half-written counts as present.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { cpSync } from "node:fs";
import { afterEach, test } from "node:test";
import { TINY, apiPage, assertRefused, environment, load, outcome, tinyPackage } from "./support.mjs";

const tiny = tinyPackage();
const newer = `${tiny}-newer`;
cpSync(tiny, newer, { recursive: true });
const manifest = JSON.parse(readFileSync(`${newer}/openweights.json`, "utf8"));
writeFileSync(`${newer}/openweights.json`, JSON.stringify({ ...manifest, format: 99 }));
const unknown = `${tiny}-unknown`;
cpSync(tiny, unknown, { recursive: true });
writeFileSync(`${unknown}/openweights.json`, JSON.stringify({ ...manifest, architecture: "frobnicator" }));

const env = environment({ roots: { [TINY]: tiny, "/newer/": newer, "/unknown/": unknown } });
const shard = manifest.files.find(({ path }) => path.endsWith(".safetensors"));
const onShard = (fault) => (address) => (address.endsWith(".safetensors") ? fault : undefined);
const cpu = { backend: "cpu" };

afterEach(() => {
  env.server.fault = () => undefined;
});

async function withFault(fault, code, message = /./) {
  const page = await apiPage(env);
  env.server.fault = fault;
  const result = await load(page, TINY, cpu);
  await assertRefused(page, result, code);
  assert.match(result.message, message);
  // The same page, once the server is well again: nothing of the failed attempt is in the way.
  env.server.fault = () => undefined;
  assert.equal((await load(page, TINY, cpu)).info?.backend, "cpu");
  await page.context().close();
}

test("a wrong byte", () => withFault(onShard({ flip: shard.size - 1 }), "integrity", /sha256/));
test("a truncated shard", () => withFault(onShard({ truncate: shard.size - 100 }), "integrity", /cut short|expected/));
test("a missing shard", () => withFault(onShard({ status: 404 }), "not_found", /safetensors/));
test("a server error", () => withFault(onShard({ status: 500 }), "network", /500/));
/** Once, and then the server is well: the model comes, and what had arrived is not asked for again unless `whole`. */
async function recovers(fault, { first = { drop: 131_072 }, whole = false } = {}) {
  const page = await apiPage(env);
  const script = [first, ...[fault ?? []].flat()];
  let answers = 0;
  env.server.fault = (address) => (address.endsWith(".safetensors") ? script[answers++] : undefined);
  env.server.log.length = 0;
  const loaded = await load(page, TINY, cpu);
  assert.equal(loaded.info?.backend, "cpu", JSON.stringify(loaded));
  const asked = env.server.log.filter(({ address }) => address.endsWith(".safetensors"));
  assert(asked.length >= 2, JSON.stringify(asked));
  const starts = asked.map(({ range }) => Number(/\d+/.exec(range ?? "0")[0]));
  if (whole) assert.equal(starts.at(-1), 0, JSON.stringify(asked));
  else assert.deepEqual(starts.slice(1).filter((start) => start < 65_536), [], JSON.stringify(asked));
  await page.context().close();
}

test("a connection that drops is taken up where it dropped", () => recovers());
test("a stall", { timeout: 120_000 }, () => recovers(undefined, { first: { stall: 131_072 } }));
test("drops in a row", () => recovers({ drop: 65_536 }));
test("429, 503 and when to come back", async () => {
  for (const status of [429, 503]) await recovers({ status, headers: { "retry-after": "1" } });
});
test("a file cut short, and one byte more of the rest", () => recovers(undefined, { first: { truncate: 131_072 } }));
test("a file that is too long", () => recovers(undefined, { first: { long: 7 }, whole: true }));
test("one wrong bit, once", () => recovers(undefined, { first: { flip: 7 }, whole: true }));
test("206 with another range", () => recovers({ wrongRange: true }, { whole: true }));
test("another version", () => recovers({ etag: '"other"' }));
test("no ranges", () => recovers({ whole: true }));
test("a trickle", () => recovers({ trickle: 100 }));
// A browser that gets a part of a compressed file cannot unpack it, and says so.
test("gzip where identity was asked", () => recovers({ gzip: true }));
test("a redirect to an address that has expired", () => recovers([{ redirect: "/expired.safetensors" }, { status: 403 }]));

// Without its manifest a package may still be a checkpoint.
const neither = (address) => (/(openweights|config)\.json$/.test(address) ? { status: 404 } : undefined);
test("neither a manifest nor a configuration", () => withFault(neither, "not_found", /openweights\.json/));

test("a manifest of a newer version", async () => {
  const page = await apiPage(env);
  await assertRefused(page, await load(page, "/newer/", cpu), "unsupported_format");
  assert.equal((await outcome(page, () => ow.inspect("/newer/"))).code, "unsupported_format");
  await page.context().close();
});

test("an unknown architecture is refused before any weight is fetched", async () => {
  const page = await apiPage(env);
  env.server.requests.length = 0;
  await assertRefused(page, await load(page, "/unknown/", cpu), "unsupported_architecture");
  assert(!env.server.requests.some((address) => address.endsWith(".safetensors")));
  await page.context().close();
});

test("not enough storage is said before any weight is fetched", async () => {
  // The worker asks the browser for an estimate; a worker's globals are its own, so its script gets the fake in front.
  const page = await apiPage(env);
  await page.context().route("**/openweights/dist/worker.js", async (route) => {
    const answer = await route.fetch();
    const fake = "navigator.storage.estimate = async () => ({ usage: 0, quota: 1000 });\n";
    await route.fulfill({ response: answer, body: fake + (await answer.text()) });
  });
  env.server.requests.length = 0;
  const result = await load(page, TINY, cpu);
  await assertRefused(page, result, "quota");
  assert(!env.server.requests.some((address) => address.endsWith(".safetensors")));
  await page.context().close();
});

test("cancelling while it waits for a server to be well", async () => {
  const page = await apiPage(env);
  env.server.fault = onShard({ status: 503, headers: { "retry-after": "50" } });
  const started = Date.now();
  const result = await outcome(page, async (source) => {
    const cancel = new AbortController();
    setTimeout(() => cancel.abort(), 1500);
    await ow.load(source, { backend: "cpu", signal: cancel.signal });
  }, TINY);
  await assertRefused(page, result, "aborted");
  assert(Date.now() - started < 20_000);
  await page.context().close();
});

test("cancelling a download: aborted, and nothing stored", async () => {
  const page = await apiPage(env);
  env.server.fault = onShard({ delay: 5000 });
  const result = await outcome(page, async (source) => {
    const cancel = new AbortController();
    setTimeout(() => cancel.abort(), 300);
    await ow.load(source, { backend: "cpu", signal: cancel.signal });
  }, TINY);
  await assertRefused(page, result, "aborted");
  await page.context().close();
});

test("the network is gone and the model is not stored; and with it stored", async () => {
  const page = await apiPage(env);
  await outcome(page, () => ow.store.list());
  await page.context().setOffline(true);
  const result = await load(page, TINY, cpu);
  assert(["offline", "network"].includes(result.code), JSON.stringify(result));
  await page.context().setOffline(false);
  assert.equal((await load(page, TINY, cpu)).info?.backend, "cpu");
  // The next worker's own script; a page that must open without a network keeps it with a service worker.
  await outcome(page, () => ow.store.list());
  await page.context().setOffline(true);
  assert.equal((await outcome(page, (source) => ow.inspect(source), TINY)).stored, true);
  await page.context().close();
});

test("a wasm or a worker that does not arrive is no reason for the next try to fail", async () => {
  for (const part of ["openweights_bg.wasm", "worker.js"]) {
    const page = await apiPage(env);
    env.server.fault = (address) => (address.endsWith(part) ? { status: 500 } : undefined);
    assert.equal((await outcome(page, () => ow.store.list())).code, "network", part);
    env.server.fault = () => undefined;
    assert.deepEqual(await outcome(page, () => ow.store.list()), [], part);
    await page.context().close();
  }
});

test("addresses that are none", async () => {
  const page = await apiPage(env);
  for (const source of ["org/", "", "smollm2", "https://", "https://[", "a b/c", 5, null, [], {}]) assert.equal((await load(page, source)).code, "invalid_input");
  assert.equal((await load(page, TINY, { backend: "tpu" })).code, "invalid_input");
  assert.equal((await load(page, TINY, { backend: "cpu", contextLength: 0 })).code, "invalid_input");
  await page.context().close();
});
