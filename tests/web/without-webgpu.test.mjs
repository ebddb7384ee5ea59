// A browser without WebGPU: asked for, it is an error with a code; not asked for, the processor answers.
import assert from "node:assert/strict";
import { test } from "node:test";
import { TINY, apiPage, environment, load, outcome, tinyPackage } from "./support.mjs";

const env = environment({ webgpu: false, roots: { [TINY]: tinyPackage() } });

test("backend webgpu: no_webgpu", async () => {
  const page = await apiPage(env);
  assert.equal((await load(page, TINY, { backend: "webgpu" })).code, "no_webgpu");
  await page.context().close();
});

test("backend auto: the CPU", async () => {
  const page = await apiPage(env);
  const loaded = await load(page, TINY);
  assert.equal(loaded.info?.backend, "cpu", JSON.stringify(loaded));
  assert.equal((await outcome(page, () => model.completions.create({ prompt: "x" }))).code, "invalid_input");
  await page.context().close();
});
