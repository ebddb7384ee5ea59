// Packages: who vouches for them, as one file, and without a network.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, before, test } from "node:test";
import { launchFirefox } from "./browser.mjs";
import { apiPage, assertRefused, environment, load, openApi, outcome, root } from "./support.mjs";

const fixture = `${root}/tests/fixtures/signing`;
const SIGNED = "/signed/";
const key = (name) => readFileSync(`${fixture}/${name}.pub`, "utf8");
const pin = (bytes) => `sha256-${createHash("sha256").update(bytes).digest("base64")}`;
const cpu = { backend: "cpu" };
const roots = { [SIGNED]: `${fixture}/package` };

describe("Chromium", () => {
  const env = environment({ roots });
  const weights = () => env.server.requests.filter((address) => address.endsWith(".safetensors"));

  test("a signed package, by the right key and by another", async () => {
    const page = await apiPage(env);
    await assertRefused(page, await load(page, SIGNED, { ...cpu, signedBy: key("other") }), "integrity");
    assert.deepEqual(weights(), []);
    const loaded = await load(page, SIGNED, { ...cpu, signedBy: key("key") });
    assert.equal(loaded.info?.verification, "digests match the manifest; signed by the given key", JSON.stringify(loaded));
    const bare = key("key").replace(/-----.*-----|\s/g, "");
    assert.match((await load(page, SIGNED, { ...cpu, signedBy: bare, offline: true })).info?.verification, /signed by/);
    assert.equal((await load(page, SIGNED, { ...cpu, signedBy: key("other") })).code, "integrity", "whatever is stored");
    assert.equal((await load(page, SIGNED, { ...cpu, signedBy: "no key" })).code, "invalid_input");
    await page.context().close();
  });

  test("a pinned manifest, the right one and another", async () => {
    const page = await apiPage(env);
    env.server.requests.length = 0;
    await assertRefused(page, await load(page, SIGNED, { ...cpu, integrity: pin("another") }), "integrity");
    assert.deepEqual(weights(), []);
    const integrity = pin(readFileSync(`${fixture}/package/openweights.json`));
    assert.match((await load(page, SIGNED, { ...cpu, integrity })).info?.verification, /pinned digest/);
    assert.equal((await load(page, SIGNED, { ...cpu, integrity: "sha256-?" })).code, "invalid_input");
    await page.context().close();
  });
  archives(() => apiPage(env), env);
});

describe("Firefox", () => {
  const env = environment({ roots, start: launchFirefox });
  let page;
  before(async () => {
    page = await env.browser.newPage();
  });
  archives(async () => {
    await openApi(page, env.server);
    return page;
  }, env);

  test("a connection that drops, and a tab that is closed: it goes on", async () => {
    await openApi(page, env.server);
    await outcome(page, async () => {
      for (const { id } of await ow.store.list()) await ow.store.remove(id);
    });
    let answers = 0;
    env.server.fault = (address) => (address.endsWith(".safetensors") ? [{ drop: 40_000 }, { stall: 20_000 }][answers++] : undefined);
    env.server.log.length = 0;
    const shards = () => env.server.log.filter(({ address }) => address.endsWith(".safetensors"));
    page.evaluate((source) => void ow.load(source, { backend: "cpu" }), SIGNED).catch(() => {});
    while (shards().length < 2) await new Promise((resolve) => setTimeout(resolve, 50));
    await new Promise((resolve) => setTimeout(resolve, 1000));
    await page.close();
    page = await env.browser.newPage();
    await openApi(page, env.server);
    const loaded = await load(page, SIGNED, cpu);
    assert.equal(loaded.info?.backend, "cpu", JSON.stringify(loaded));
    const starts = shards().map(({ range }) => Number(/\d+/.exec(range ?? "0")[0]));
    assert(starts.length === 3 && starts[1] > 0 && starts[2] > starts[1], `${starts}`);
  });
});

/** A model out of the store as one file, and in again. */
function archives(open, env) {
  test("a package goes out as one file and comes back without a network", async () => {
    const page = await open();
    const loaded = await load(page, SIGNED, { ...cpu, signedBy: key("key") });
    assert.equal(loaded.info?.backend, "cpu", JSON.stringify(loaded));
    env.server.requests.length = 0;
    const trip = await outcome(page, async ([signedBy]) => {
      const digest = async (blob) => [...new Uint8Array(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()))].join();
      const [{ id }] = await ow.store.list();
      const out = await ow.store.export(id);
      // A copy: what was exported is read from the store, which is emptied now.
      const file = new File([await out.arrayBuffer()], "signed.owpkg");
      await ow.store.remove(id);
      const gone = (await ow.store.list()).length;
      const { kind, stored } = await ow.inspect(file);
      const model = await ow.load(file, { backend: "cpu", signedBy });
      const [back] = await ow.store.list();
      const again = await ow.store.export(back.id);
      return { gone, kind, stored, info: model.info, size: out.size, same: (await digest(file)) === (await digest(again)) };
    }, [key("key")]);
    assert.deepEqual([trip.gone, trip.kind, trip.stored, trip.same], [0, "package", false, true], JSON.stringify(trip));
    assert.match(trip.info.verification, /signed by the given key/);
    assert(trip.size > 90_000);
    assert.deepEqual(env.server.requests.filter((address) => address.startsWith(SIGNED)), []);
  });

  test("a file that is no package, and one that was damaged", async () => {
    const page = await open();
    const codes = await outcome(page, async () => {
      const attempt = (parts, name) => ow.load(new File(parts, name), { backend: "cpu" }).then(() => "loaded", ({ code }) => code);
      const [{ id }] = await ow.store.list().then(async (list) => (list.length ? list : (await (await ow.load("/signed/", { backend: "cpu" })).unload(), ow.store.list())));
      const bytes = new Uint8Array(await (await ow.store.export(id)).arrayBuffer());
      await ow.store.remove(id);
      const flipped = bytes.slice();
      flipped[flipped.length - 20_000] ^= 1;
      return [await attempt(["junk"], "a.owpkg"), await attempt([bytes.subarray(0, 9000)], "b.owpkg"), await attempt([flipped], "c.owpkg")];
    });
    assert.deepEqual(codes, ["integrity", "integrity", "integrity"]);
  });
}
