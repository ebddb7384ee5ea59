// Firefox: conversations under a passphrase, right and wrong; a chat that makes no request, by the browser's own events and by the page's
// meter; an import that goes on after a reload. Offline, private models, threads and sessions have Firefox's tests beside Chromium's.
import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { after, before, test } from "node:test";
import { launchFirefox } from "./browser.mjs";
import { asExported, stored } from "./library.mjs";
import { serve } from "./server.mjs";
import { SMOLLM2, load, openApi, root, tinyPackage } from "./support.mjs";

const limit = { timeout: 600_000 };
const roots = { "/": `${root}/web/dist`, "/models/": `${root}/models` };
let browser;
before(async () => {
  browser = await launchFirefox();
});
after(() => browser.close());

const ready = (page) => page.waitForFunction(() => !document.getElementById("load").disabled);
const shown = (page, text) => page.waitForFunction((text) => document.body.innerText.includes(text), {}, text);

/** The demo, in storage of its own. */
async function open(server) {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  page.setDefaultTimeout(120_000);
  await page.goto(`${server.url}/`);
  await ready(page);
  return page;
}

async function openLibrary(page) {
  await page.click("#library-open");
  await page.waitForFunction(() => document.getElementById("library").open);
}

async function unlock(page, passphrase) {
  await page.waitForFunction(() => !document.getElementById("unlock").hidden);
  await page.$eval("#unlock-passphrase", (input) => (input.value = ""));
  await page.type("#unlock-passphrase", passphrase);
  await page.keyboard.press("Enter");
}

const items = (page) => page.$$eval("#conversations .open", (items) => items.map((item) => item.innerText));

test("a passphrase: set, wrong, right, removed", limit, async () => {
  const server = await serve({ ...roots, [SMOLLM2]: tinyPackage() }, { policy: true });
  const page = await open(server);
  await openLibrary(page);
  await page.evaluate((text) => {
    const chosen = new DataTransfer();
    chosen.items.add(new File([text], "two.json", { type: "application/json" }));
    const input = document.getElementById("import-file");
    input.files = chosen.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }, asExported("zebra", "yak"));
  await shown(page, "2 conversations were added.");
  assert.match((await stored(page)).join(), /zebra/);

  await page.$eval("#passphrase", (details) => (details.open = true));
  await page.type("#passphrase-new", "correct horse");
  await page.type("#passphrase-again", "correct horse");
  await page.keyboard.press("Enter");
  await shown(page, "every conversation is stored encrypted");
  const sealed = await stored(page);
  assert.equal(sealed.length, 2);
  assert(sealed.every((value) => value.startsWith("sealed") && !/zebra|yak|answer|a model/.test(value)), "titles, too");

  await page.reload();
  await ready(page);
  await openLibrary(page);
  assert.deepEqual(await items(page), []);
  await unlock(page, "wrong horse");
  await shown(page, "That is not the passphrase. Nothing was changed.");
  assert.deepEqual([await items(page), await stored(page)], [[], sealed], "nothing is lost, nothing is read");
  await unlock(page, "correct horse");
  await page.waitForFunction(() => document.querySelectorAll("#conversations .open").length === 2);
  assert.match((await items(page))[0], /yak/);

  await page.$eval("#passphrase", (details) => (details.open = true));
  await page.click("#passphrase-remove");
  await page.click("#passphrase-remove");
  await shown(page, "The passphrase is removed");
  assert.match((await stored(page)).join(), /zebra/);
  await page.browserContext().close();
  await server.close();
});

test("a chat makes no request, and the meter says so; one on purpose is counted", limit, async () => {
  const server = await serve(roots, { policy: true });
  const page = await open(server);
  await page.waitForFunction(() => navigator.serviceWorker.controller);
  await page.click("#load");
  await page.waitForFunction(() => !document.getElementById("chat").hidden);
  const meter = () => page.$eval("#meter-count", (count) => count.textContent);
  assert.equal(await meter(), "0 requests since the model was loaded");

  const seen = [];
  page.on("request", (request) => seen.push(request.url()));
  server.log.length = 0;
  await page.$eval("#temperature", (input) => (input.value = "0"));
  await page.type("#input", "What is the capital of France?");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => /Paris/.test(document.querySelector(".message.assistant:last-of-type")?.innerText ?? "") && !document.getElementById("send").hidden);
  assert.deepEqual([await meter(), seen, server.log], ["0 requests since the model was loaded", [], []]);

  const address = `${SMOLLM2}config.json`;
  await page.evaluate(async (address) => void (await (await fetch(address)).arrayBuffer()), address);
  await shown(page, "1 request since the model was loaded");
  await page.$eval("#meter", (details) => (details.open = true));
  assert.match(await page.$eval("#meter-list", (list) => list.innerText), /config\.json$/);
  assert.deepEqual([seen.map((url) => new URL(url).pathname), server.log.map(({ address }) => address)], [[address], [address]], "the browser tells of it, too");
  await page.browserContext().close();
  await server.close();
});

test("an import that a reload ended goes on", limit, async (t) => {
  const server = await serve({ ...roots, "/test/": `${root}/tests/web/pages`, "/smollm2/": `${root}/.cache` });
  const page = await (await browser.createBrowserContext()).newPage();
  page.setDefaultTimeout(120_000);
  await openApi(page, server);
  const source = "/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
  const { size } = statSync(`${root}/.cache/SmolLM2-135M-Instruct.Q4_1.gguf`);
  const options = { backend: "cpu", contextLength: 64 };
  const sent = () => server.log.filter(({ address }) => address === source).reduce((sum, { sent }) => sum + sent, 0);
  server.fault = (address) => (address === source ? { trickle: 10 } : undefined);
  await page.evaluate(([source, options]) => void ow.load(source, options).catch(() => {}), [source, options]);
  while (sent() < 40_000_000) await new Promise((resolve) => setTimeout(resolve, 20));
  server.fault = () => undefined;
  await openApi(page, server);
  const before = sent();
  const loaded = await load(page, source, options);
  assert.equal(loaded.info?.architecture, "llama", JSON.stringify(loaded));
  const [stored] = await page.evaluate(() => ow.store.list());
  const { bytes, repaired } = await page.evaluate((id) => ow.store.verify(id), stored.id);
  assert.deepEqual([bytes, repaired], [stored.bytes, true]);
  const twice = sent() - size;
  t.diagnostic(`${before} of ${size} bytes before, ${twice} fetched twice`);
  assert(before < 90_000_000 && twice < 6_000_000, `${twice}`);
  await page.browserContext().close();
  await server.close();
});
