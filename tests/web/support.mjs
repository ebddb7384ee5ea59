// What browser tests share: one server, one browser, and pages that use the package as it is published.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before } from "node:test";
import { launch } from "./browser.mjs";
import { serve } from "./server.mjs";

export const root = path.resolve(import.meta.dirname, "../..");
export const SMOLLM2 = "/models/smollm2-135m-instruct/";
export const TINY = "/tiny/";
export const reference = JSON.parse(readFileSync(`${root}/tests/fixtures/gguf/smollm2_chat.json`, "utf8"));
/** The package around the wasm that has the test-only exports (`scripts/build --checks`). */
const checks = { "/checks/wasm/": `${root}/.cache/checks/wasm`, "/checks/dist/": `${root}/pkg/dist` };
export const QUESTION = [{ role: "user", content: "What is the capital of France?" }];

/**
 * Starts server and browser before a file's tests, then runs `ready`, and ends them after. `webgpu: false` tests without,
 * `isolated: false` on pages that may not share memory, `start` launches another browser.
 */
export function environment(options = {}) {
  const env = { server: undefined, browser: undefined };
  before(async () => {
    assert(existsSync(`${root}${SMOLLM2}openweights.json`), "models/ is not prepared: run scripts/test, or scripts/demo once");
    const roots = { "/": `${root}/web/dist`, "/models/": `${root}/models`, "/test/": `${root}/tests/web/pages`, ...checks, ...options.roots };
    env.server = await serve(roots, options);
    env.browser = await (options.start ?? launch)(options);
    await options.ready?.(env);
  });
  after(async () => {
    await env.browser?.close();
    await env.server?.close();
  });
  return env;
}

/** A package of a few kilobytes, made by the command line from a fixture. */
export function tinyPackage() {
  const out = path.join(mkdtempSync(path.join(tmpdir(), "openweights-")), "tiny");
  execFileSync(`${root}/target/debug/openweights`, ["convert", `${root}/tests/fixtures/tiny/llama_plain`, out], { stdio: "ignore" });
  return out;
}

/** A page with empty storage and the package as `ow`. */
export async function apiPage({ browser, server }, prepare) {
  const context = await browser.newContext();
  const page = await context.newPage();
  page.setDefaultTimeout(120_000);
  if (prepare) await page.addInitScript(prepare);
  await openApi(page, server);
  return page;
}

/** Opens the test page, or opens it again. */
export async function openApi(page, server) {
  await page.goto(`${server.url}/test/blank.html`);
  await page.evaluate(async () => {
    globalThis.ow = await import("/openweights/dist/index.js");
  });
}

/** Starts a worker around the wasm for tests of `build` in the page, and defines `check(name, ...args)` there: calls of what that exports. */
export function openWorker(page, build) {
  return page.evaluate((build) => {
    const worker = new Worker(`/checks/dist/${build}.js`, { type: "module" });
    let last = 0;
    globalThis.check = (...args) =>
      new Promise((resolve, reject) => {
        const id = ++last;
        worker.addEventListener("error", ({ message }) => reject(new Error(message)));
        worker.addEventListener("message", ({ data }) => {
          if (data.id !== id) return;
          if ("error" in data) reject(new Error(data.error.message));
          else resolve(data.result);
        });
        worker.postMessage({ id, method: "check", args });
      });
    globalThis.endWorker = () => worker.terminate();
  }, build);
}

/** Loads a model in the page as `model`; gives its card and info, or the error's code and message. */
export function load(page, source, options = {}) {
  return outcome(page, async ([source, options]) => {
    const phases = new Set();
    globalThis.model = await ow.load(source, { ...options, onProgress: ({ phase }) => phases.add(phase) });
    return { card: model.card, info: model.info, phases: [...phases] };
  }, [source, options]);
}

/** Runs `body` in the page; an error comes back as `{ code, message }` if it is the package's, else it fails the test. */
export async function outcome(page, body, argument) {
  const result = await page.evaluate(
    async ([body, argument]) => {
      try {
        return { value: await new Function(`return (${body})`)()(argument) };
      } catch (error) {
        return { error: { ours: error instanceof ow.OpenWeightsError, code: error.code, message: error.message, stack: error.stack } };
      }
    },
    [String(body), argument],
  );
  if (!result.error) return result.value;
  assert(result.error.ours, `not an OpenWeightsError: ${result.error.stack}`);
  return { code: result.error.code, message: result.error.message };
}

/** Asserts that a load failed with `code`, and that nothing counts as stored. */
export async function assertRefused(page, result, code) {
  assert.equal(result.code, code, `${JSON.stringify(result)}`);
  assert.deepEqual(await outcome(page, () => ow.store.list()), [], "nothing half-written counts as a model");
}

/** Opens the demo page at `url` until its first model's card is there. */
export async function openDemo(page, url) {
  page.setDefaultTimeout(180_000);
  await page.goto(url);
  await cardShown(page);
}

export const cardShown = (page) => page.waitForFunction(() => !document.getElementById("load").disabled);

/** Waits until the service worker controls the page. */
export const controlled = (page) => page.waitForFunction(() => navigator.serviceWorker.controller);

export async function loadModel(page) {
  await page.getByRole("button", { name: /^Load/ }).click();
  await page.getByLabel("Your message").waitFor();
}

/** The answer to `text`, greedy. */
export async function ask(page, text) {
  await page.locator("#temperature").evaluate((input) => (input.value = "0"));
  await page.getByLabel("Your message").fill(text);
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Send" }).waitFor();
  return page.locator(".message.assistant").last().innerText();
}

/** Collects what a page says that it should not: anything in its console but the browser's own hints, uncaught errors, violations of its policy. */
export async function watch(page) {
  const problems = [];
  page.on("console", (message) => message.type() !== "verbose" && problems.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => problems.push(String(error)));
  await page.exposeFunction("noteViolation", (what) => problems.push(`violation: ${what}`));
  await page.addInitScript(() =>
    addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => noteViolation(`${violatedDirective} ${blockedURI}`)),
  );
  return problems;
}
