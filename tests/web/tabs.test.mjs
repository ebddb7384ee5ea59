// Two tabs, or a load right after one that was cancelled: one downloads, the other shows its progress and finds the model stored.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { TINY, apiPage, environment, load, openApi, outcome, tinyPackage } from "./support.mjs";

const env = environment({ roots: { [TINY]: tinyPackage() } });
const slow = (address) => (address.endsWith(".safetensors") ? { delay: 1500 } : undefined);
const shards = () => env.server.requests.filter((address) => address.endsWith(".safetensors")).length;

afterEach(() => {
  env.server.fault = () => undefined;
});

test("two tabs load one model: it is fetched once", async () => {
  const first = await apiPage(env);
  const second = await first.context().newPage();
  await openApi(second, env.server);
  env.server.requests.length = 0;
  env.server.fault = slow;
  const loaded = await Promise.all([first, second].map((page) => load(page, TINY, { backend: "cpu" })));
  assert.deepEqual(loaded.map(({ info }) => info?.backend), ["cpu", "cpu"], JSON.stringify(loaded));
  assert.equal(shards(), 1);
  for (const { phases } of loaded) assert(phases.includes("download"), "both show how far it is");
  await first.context().close();
});

test("a load right after a cancelled one waits for nothing but its turn", async () => {
  const page = await apiPage(env);
  env.server.fault = slow;
  const cancelled = await outcome(page, async (source) => {
    const cancel = new AbortController();
    setTimeout(() => cancel.abort(), 700);
    await ow.load(source, { backend: "cpu", signal: cancel.signal });
  }, TINY);
  assert.equal(cancelled.code, "aborted");
  const loaded = await load(page, TINY, { backend: "cpu" });
  assert.equal(loaded.info?.backend, "cpu", JSON.stringify(loaded));
  await page.context().close();
});
