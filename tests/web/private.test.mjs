// A private model: its worker may connect to nothing, gets bytes, and answers.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { launchFirefox } from "./browser.mjs";
import { QUESTION, SMOLLM2, TINY, apiPage, environment, load, openApi, outcome, tinyPackage } from "./support.mjs";

const limit = { timeout: 300_000 };
const options = { private: true, backend: "cpu", contextLength: 512 };
const answer = (page) => outcome(page, (messages) => model.chat.completions.create({ messages, temperature: 0, max_tokens: 16 }), QUESTION);

describe("Chromium", () => {
  const env = environment({ roots: { [TINY]: tinyPackage() } });

  test("answers with threads; nothing in its worker reaches the page's server", limit, async () => {
    const page = await apiPage(env);
    const loaded = await load(page, SMOLLM2, options);
    assert.equal(loaded.info?.private, true, JSON.stringify(loaded));
    assert(loaded.info.threads > 1);
    assert.deepEqual(loaded.phases, ["manifest", "download", "load"]);
    assert.match((await answer(page)).choices[0].message.content, /Paris/);

    const workers = page.workers().filter((worker) => worker.url().startsWith("blob:"));
    assert(workers.length >= 1, "the engine's worker and its threads are made of a blob");
    assert.deepEqual(page.workers().filter((worker) => !worker.url().startsWith("blob:")), [], "the worker that downloaded has ended");
    assert.deepEqual(await outcome(page, () => model.requests()), []);
    env.server.log.length = 0;
    const reached = await workers[0].evaluate(async (url) => {
      const worked = [];
      const attempt = async (name, run) => run().then(() => worked.push(name), () => {});
      await attempt("fetch", () => fetch(`${url}/fetch`, { mode: "no-cors" }));
      await attempt("XMLHttpRequest", () => new Promise((resolve, reject) => {
        const request = new XMLHttpRequest();
        request.onload = resolve;
        request.onerror = reject;
        request.open("GET", `${url}/xhr`);
        request.send();
      }));
      const socket = (what) => new Promise((resolve, reject) => {
        what.onopen = resolve;
        what.onerror = reject;
      });
      await attempt("WebSocket", async () => socket(new WebSocket(`${url.replace("http", "ws")}/ws`)));
      await attempt("EventSource", async () => socket(new EventSource(`${url}/events`)));
      await attempt("importScripts", async () => importScripts(`${url}/openweights/dist/errors.js`));
      await attempt("import", () => import(`${url}/openweights/dist/errors.js`));
      await attempt("a worker", async () => new Promise((resolve, reject) => {
        const worker = new Worker(`${url}/openweights/dist/errors.js`);
        worker.onerror = reject;
        setTimeout(resolve, 2000);
      }));
      return worked;
    }, env.server.url);
    assert.deepEqual(reached, []);
    assert.deepEqual(env.server.log, []);

    assert.equal((await outcome(page, (source) => model.adapters.add(source), "/adapter/")).code, "invalid_input");
    await outcome(page, () => model.unload());
    assert.equal(await page.locator("iframe").count(), 0);
    await page.context().close();
  });

  test("from storage, with WebGPU, under the demo's own policy", limit, async () => {
    const page = await (await env.browser.newContext()).newPage();
    page.setDefaultTimeout(120_000);
    await page.goto(`${env.server.url}/index.html`);
    await page.evaluate(async () => {
      globalThis.ow = await import("/openweights/dist/index.js");
      await (await ow.load("/tiny/", { backend: "cpu" })).unload();
    });
    env.server.requests.length = 0;
    const loaded = await load(page, TINY, { private: true, backend: "webgpu" });
    assert.equal(loaded.info?.backend, "webgpu", JSON.stringify(loaded));
    assert.deepEqual(env.server.requests.filter((address) => address.startsWith(TINY)), []);
    await page.context().close();
  });

  test("an abort and an error end frame and worker", limit, async () => {
    const page = await apiPage(env);
    assert.equal((await load(page, "/nowhere/", options)).code, "not_found");
    const aborted = await outcome(page, (source) => ow.load(source, { private: true, signal: AbortSignal.timeout(50) }), SMOLLM2);
    assert.equal(aborted.code, "aborted");
    assert.equal((await load(page, TINY, { ...options, contextLength: 0 })).code, "invalid_input");
    assert.equal(await page.locator("iframe").count(), 0);
    await page.context().close();
  });
});

describe("Firefox", () => {
  const env = environment({ start: launchFirefox });

  test("answers with threads", limit, async () => {
    const page = await env.browser.newPage();
    await openApi(page, env.server);
    const loaded = await load(page, SMOLLM2, { ...options, threads: 2 });
    assert.equal(loaded.info?.threads, 2, JSON.stringify(loaded));
    assert.match((await answer(page)).choices[0].message.content, /Paris/);
  });
});
