// The kernels in Chromium, whose own WGSL compiler never sees most of them in a chat: each compiles, and each op's cases agree
// with the plain references.
import assert from "node:assert/strict";
import { test } from "node:test";
import { TINY, apiPage, environment, load, openWorker, tinyPackage } from "./support.mjs";

const limit = { timeout: 300_000 };
let page;
async function ready(env) {
  page = await apiPage(env);
  await openWorker(page, "relaxed-simd");
}
environment({ ready, roots: { [TINY]: tinyPackage() } });

test("every kernel compiles", limit, async () => {
  const { count, faults } = await page.evaluate(async () => {
    const adapter = await navigator.gpu.requestAdapter();
    const device = await adapter.requestDevice();
    const kernels = await check("kernels");
    const faults = [];
    for (const { name, source } of kernels) {
      device.pushErrorScope("validation");
      const module = device.createShaderModule({ code: source });
      device.createComputePipeline({ layout: "auto", compute: { module, entryPoint: "main" } });
      const error = await device.popErrorScope();
      if (error) faults.push(`${name}: ${error.message}`);
    }
    return { count: kernels.length, faults };
  });
  assert(count > 60, `${count} kernels`);
  assert.deepEqual(faults, []);
});

async function cases(emulated, matmul) {
  const { limit, cases } = await page.evaluate((args) => check("check_ops", ...args), [emulated, matmul]);
  assert(cases.length > 100, `${cases.length} cases`);
  assert(limit > 0 && limit < 1e-9);
  assert.deepEqual(cases.filter(({ nmse }) => !(nmse <= limit)), []);
}

for (const emulated of [true, false]) test(`cases with the kernels for ${emulated ? "emulated" : "real"} GPUs`, limit, () => cases(emulated));
for (const matmul of ["plain", "block", "matvec", "tiled"]) test(`cases with products by ${matmul}`, limit, () => cases(matmul === "plain" || matmul === "block", matmul));

test("an emulated adapter is known as one", limit, async () => {
  const loaded = await load(page, TINY, { backend: "webgpu" });
  assert.equal(loaded.info?.software, true, JSON.stringify(loaded));
  assert.match(loaded.info.device, /swiftshader/i);
});
