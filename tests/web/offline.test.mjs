// The page without a network: with the server killed, on hosts that set no headers, and when there is a new version.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { appendFileSync, cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { launch, launchFirefox } from "./browser.mjs";
import { serve } from "./server.mjs";
import { SMOLLM2, ask, cardShown, controlled, loadModel, openDemo, root, tinyPackage, watch } from "./support.mjs";

const limit = { timeout: 600_000 };
const dist = `${root}/web/dist`;
let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

/** The real server, in a process that can be killed. */
async function startServer() {
  const server = spawn(`${root}/target/debug/openweights`, ["serve", dist, "--mount", `/models=${root}/models`, "--port", "0"]);
  const [line] = await once(server.stdout, "data");
  return { url: String(line).trim(), kill: () => server.kill("SIGKILL") && once(server, "exit") };
}

/** How often the page was loaded. */
function loads(page) {
  const seen = { count: 0 };
  page.on("domcontentloaded", () => (seen.count += 1));
  return seen;
}

test("with the server killed and the network off the page opens, loads the stored model and chats", limit, async () => {
  const server = await startServer();
  const context = await browser.newContext();
  const page = await context.newPage();
  const problems = await watch(page);
  await openDemo(page, server.url);
  await controlled(page);
  await loadModel(page);
  const answer = await ask(page, "What is the capital of France?");
  assert.match(answer, /Paris/);
  assert.deepEqual(problems, []);

  await server.kill();
  await context.setOffline(true);
  await assert.rejects(fetch(server.url), "the server is dead");
  await page.reload();
  await cardShown(page);
  assert.equal(await page.evaluate(() => navigator.onLine), false);
  assert.equal(await page.evaluate(() => crossOriginIsolated), true);
  assert.equal(await page.getByRole("button", { name: /^Load/ }).innerText(), "Load from this device");
  await loadModel(page);
  assert.match(await page.locator("#device").innerText(), /CPU · [2-9] threads/);
  assert.equal(await ask(page, "What is the capital of France?"), answer);
  // In private mode, too.
  await page.getByRole("button", { name: "Change model" }).click();
  await page.getByLabel("Private mode").check();
  await loadModel(page);
  assert.match(await page.locator("#device").innerText(), /private/);
  assert.equal(await ask(page, "What is the capital of France?"), answer);
  await context.close();
});

test("is kept whole, with the one build of the engine that this browser runs, and can be installed", limit, async (t) => {
  const server = await startServer();
  const page = await (await browser.newContext()).newPage();
  await openDemo(page, server.url);
  await controlled(page);
  const kept = await page.evaluate(async () => {
    const found = {};
    for (const name of await caches.keys()) {
      const cache = await caches.open(name);
      for (const request of await cache.keys()) found[new URL(request.url).pathname] = (await (await cache.match(request)).blob()).size;
    }
    return found;
  });
  const names = Object.keys(kept);
  for (const name of ["/index.html", "/main.js", "/style.css", "/models.json", "/openweights/dist/index.js", "/openweights/dist/private/relaxed-simd.js", "/openweights/wasm/relaxed-simd/openweights_bg.wasm"]) assert(names.includes(name), name);
  assert.deepEqual(names.filter((name) => /simd128|\.safetensors|sw\.js/.test(name)), []);
  t.diagnostic(`${names.length} files, ${Object.values(kept).reduce((sum, size) => sum + size)} bytes`);
  const session = await page.context().newCDPSession(page);
  const { installabilityErrors } = await session.send("Page.getInstallabilityErrors");
  // A context of tests is a private window to Chromium.
  assert.deepEqual(installabilityErrors.filter(({ errorId }) => errorId !== "in-incognito"), []);
  const { data, errors } = await session.send("Page.getAppManifest");
  assert.deepEqual(errors, []);
  const icons = JSON.parse(data).icons.filter(({ type }) => type === "image/png");
  assert.deepEqual(icons.map(({ sizes, purpose }) => `${sizes} ${purpose}`), ["192x192 any", "512x512 any", "512x512 maskable"]);
  for (const { src, sizes } of icons) {
    // As large as it says, and kept with the page.
    const size = await page.evaluate(async (src) => {
      const { width, height } = await createImageBitmap(await (await fetch(src)).blob());
      return `${width}x${height}`;
    }, src);
    assert.deepEqual([size, names.includes(`/${src}`)], [sizes, true], src);
  }
  await page.context().close();
  await server.kill();
});

/** A static host that sets no headers, with the page under a path of its own; `folder` may stand in for the page. */
const plainHost = (folder = dist) => serve({ "/openweights/": folder, [`/openweights${SMOLLM2}`]: tinyPackage() }, { isolated: false });

test("on a host without headers the service worker isolates the page: it is reloaded once, and has threads", limit, async () => {
  const server = await plainHost();
  const page = await (await browser.newContext()).newPage();
  const problems = await watch(page);
  const seen = loads(page);
  await page.goto(`${server.url}/openweights/`);
  await page.waitForFunction(() => crossOriginIsolated, undefined, { timeout: 60_000 });
  await cardShown(page);
  assert.equal(seen.count, 2);
  await loadModel(page);
  assert.match(await page.locator("#device").innerText(), /CPU · [2-9] threads/);
  await page.reload();
  await cardShown(page);
  assert.equal(await page.evaluate(() => crossOriginIsolated), true);
  assert.equal(seen.count, 3);
  assert.deepEqual(problems, []);
  await page.context().close();
  await server.close();
});

test("where isolation is impossible the page is reloaded at most once, and runs", limit, async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "openweights-page-"));
  cpSync(dist, folder, { recursive: true });
  writeFileSync(`${folder}/sw.js`, "onactivate = (event) => event.waitUntil(clients.claim());");
  const server = await plainHost(folder);
  for (const [serviceWorkers, expected] of [["allow", 2], ["block", 1]]) {
    const page = await (await browser.newContext({ serviceWorkers })).newPage();
    const seen = loads(page);
    await openDemo(page, `${server.url}/openweights/`);
    await page.waitForTimeout(3000);
    assert.equal(seen.count, expected, serviceWorkers);
    await cardShown(page);
    await loadModel(page);
    assert.match(await page.locator("#device").innerText(), /CPU · 1 thread$/);
    assert.match(await page.locator("#device").getAttribute("title"), /isolated/);
    await page.context().close();
  }
  await server.close();
  rmSync(folder, { recursive: true });
});

test("a new version is announced, waits for other tabs, and takes over when it is asked to", limit, async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "openweights-page-"));
  cpSync(dist, folder, { recursive: true });
  const server = await serve({ "/": folder, [SMOLLM2]: tinyPackage() });
  const context = await browser.newContext();
  const page = await context.newPage();
  await openDemo(page, `${server.url}/`);
  await controlled(page);
  assert.equal(await page.locator("#notice").isVisible(), false);

  release(folder);
  await page.reload();
  await page.getByText("A new version is ready.").waitFor();
  const color = () => page.evaluate(() => getComputedStyle(document.documentElement).getPropertyValue("--new-version").trim());
  assert.equal(await color(), "", "nothing is swapped until then");
  const other = await context.newPage();
  await openDemo(other, `${server.url}/`);
  const seen = loads(page);
  await page.getByRole("button", { name: "Reload" }).click();
  await page.getByText("Close the other tab of this page first").waitFor();
  assert.equal(seen.count, 0);
  await other.close();
  await page.getByRole("button", { name: "Reload" }).click();
  await page.waitForFunction(() => getComputedStyle(document.documentElement).getPropertyValue("--new-version").trim() === "yes");
  await cardShown(page);
  assert.equal(await page.locator("#notice").isVisible(), false);
  assert.equal(seen.count, 1);
  await context.close();
  await server.close();
  rmSync(folder, { recursive: true });
});

test("in Firefox, too, the page opens with the server gone, isolated, and loads the stored model", limit, async () => {
  const server = await serve({ "/": dist, [SMOLLM2]: tinyPackage() }, { policy: true });
  const firefox = await launchFirefox();
  const page = await firefox.newPage();
  page.setDefaultTimeout(120_000);
  const ready = () => page.waitForFunction(() => !document.getElementById("load").disabled);
  const loaded = async () => {
    await page.click("#load");
    await page.waitForFunction(() => !document.getElementById("chat").hidden);
    return page.$eval("#device", (badge) => badge.textContent);
  };
  await page.goto(`${server.url}/`);
  await ready();
  await page.waitForFunction(() => navigator.serviceWorker.controller);
  await loaded();
  await server.close();
  await page.reload();
  await ready();
  assert.equal(await page.evaluate(() => crossOriginIsolated), true);
  assert.equal(await page.$eval("#load", (button) => button.textContent), "Load from this device");
  assert.match(await loaded(), /CPU · [2-9] threads/);
  await firefox.close();
});

/** Changes the style sheet, and the service worker's list as a build would. */
function release(folder) {
  const digest = () => createHash("sha256").update(readFileSync(`${folder}/style.css`)).digest();
  const marks = (bytes) => [bytes.toString("base64"), bytes.toString("hex").slice(0, 16)];
  const before = marks(digest());
  appendFileSync(`${folder}/style.css`, ":root { --new-version: yes }\n");
  let script = readFileSync(`${folder}/sw.js`, "utf8");
  for (const [index, mark] of marks(digest()).entries()) {
    assert(script.includes(before[index]), "the list has the style sheet's digest");
    script = script.replaceAll(before[index], mark);
  }
  writeFileSync(`${folder}/sw.js`, script);
}
