// Nothing leaves: the browser's own network log during a chat, the page's meter, its policy, and whom it may be told to ask.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { launch } from "./browser.mjs";
import { tinyGguf } from "./gguf.mjs";
import { serve } from "./server.mjs";
import { SMOLLM2, ask, cardShown, controlled, loadModel, openDemo, root, watch } from "./support.mjs";

const limit = { timeout: 600_000 };
const folder = mkdtempSync(path.join(tmpdir(), "openweights-privacy-"));
writeFileSync(`${folder}/tiny.gguf`, tinyGguf());
const roots = { "/": `${root}/web/dist`, "/models/": `${root}/models` };
let server, elsewhere;
before(async () => {
  server = await serve(roots, { policy: true });
  elsewhere = await serve({ "/": folder }, { cors: true });
});
after(async () => {
  await Promise.all([server.close(), elsewhere.close()]);
  rmSync(folder, { recursive: true });
});

/**
 * Every request that the browser's network service began for a page, worker or service worker, and every one to `server`:
 * `[{ url, time }]`. What the browser asks its maker for on its own account (dictionaries, how to fill in forms) has no page as initiator.
 */
function netLog(file, server) {
  const { constants, events } = JSON.parse(readFileSync(file, "utf8"));
  const { URL_REQUEST_START_JOB: type } = constants.logEventTypes;
  const begun = events.filter(({ type: one, params }) => one === type && params?.url && (/^http/.test(params.initiator) || params.url.startsWith(server)));
  return begun.map(({ time, params }) => ({ url: params.url, time: Number(time) + constants.timeTickOffset }));
}

test("a chat makes no request: the browser's network log and the page's meter agree; one on purpose is counted by both", limit, async () => {
  const log = `${folder}/net.json`;
  const browser = await launch({ flags: [`--log-net-log=${log}`] });
  const page = await (await browser.newContext()).newPage();
  const problems = await watch(page);
  await openDemo(page, server.url);
  await controlled(page);
  await loadModel(page);
  const meter = () => page.locator("#meter-count").innerText();
  assert.equal(await meter(), "0 requests since the model was loaded");
  const begun = Date.now();
  assert.match(await ask(page, "What is the capital of France?"), /Paris/);
  await ask(page, "And of Spain? Answer in **bold**, with ![a picture](https://example.com/leak.png).");
  const ended = Date.now();
  assert.equal(await meter(), "0 requests since the model was loaded");
  assert.deepEqual(problems, [], "the console is silent, the policy is kept");

  await page.evaluate(() => fetch("./models/smollm2-135m-instruct/config.json"));
  await page.getByText("1 request since the model was loaded").waitFor();
  await page.locator("#meter summary").click();
  assert.match(await page.locator("#meter-list").innerText(), /config\.json$/);
  await browser.close();

  const requests = netLog(log, server.url);
  const during = requests.filter(({ time }) => time >= begun && time <= ended);
  assert.deepEqual(during, []);
  const later = requests.filter(({ time }) => time > ended).map(({ url }) => url);
  assert.deepEqual(later, [`${server.url}${SMOLLM2}config.json`]);
  assert(requests.some(({ url }) => url.endsWith(".safetensors")), "the log does see the worker's requests");
  const hosts = new Set(requests.map(({ url }) => new URL(url).host).filter(Boolean));
  assert.deepEqual([...hosts], [new URL(server.url).host], "no other host was ever asked");
});

test("page and worker obey the policy; a host that the person allows is added to it", limit, async () => {
  const browser = await launch();
  const page = await (await browser.newContext()).newPage();
  await openDemo(page, server.url);
  await controlled(page);
  const source = `${elsewhere.url}/tiny.gguf`;
  // The page may ask nobody else, the engine's worker neither.
  assert.equal(await page.evaluate((url) => fetch(url).then(() => "reached", () => "refused"), source), "refused");
  const direct = () => page.evaluate(async (url) => {
    const ow = await import("/openweights/dist/index.js");
    const cancel = AbortSignal.timeout(5000);
    return ow.load(url, { backend: "cpu", quantize: "keep", signal: cancel }).then(() => "loaded", ({ code }) => code);
  }, source);
  assert(["network", "aborted"].includes(await direct()));
  assert.deepEqual(elsewhere.requests, [], "nothing reached the other host");

  await page.locator("#open > summary").click();
  await page.getByLabel("Address or hub id").fill(source);
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Allow and reload" }).waitFor();
  assert.match(await page.locator("#allow").innerText(), new RegExp(elsewhere.url));
  await page.getByRole("button", { name: "No", exact: true }).click();
  assert.deepEqual(elsewhere.requests, []);
  await page.keyboard.press("Tab");
  await page.getByLabel("Address or hub id").press("Enter");
  await page.getByRole("button", { name: "Allow and reload" }).click();
  await page.locator("#card").getByText("Tiny GGUF").waitFor();
  await cardShown(page);
  assert(elsewhere.requests.length > 0);
  assert.equal(await page.evaluate((url) => fetch(url).then(() => "reached", () => "refused"), source), "refused", "the page itself still may not");

  await page.locator("#open > summary").click();
  await page.getByRole("button", { name: "Take back" }).click();
  await page.waitForFunction(() => document.getElementById("chosen")?.hidden);
  await cardShown(page);
  elsewhere.requests.length = 0;
  assert(["network", "aborted"].includes(await direct()));
  assert.deepEqual(elsewhere.requests, []);
  await browser.close();
});

test("what was built names no other host, and has no script or style in its markup", () => {
  const dist = `${root}/web/dist`;
  const html = readFileSync(`${dist}/index.html`, "utf8");
  const policy = /http-equiv="Content-Security-Policy" content="([^"]*)"/.exec(html)?.[1] ?? "";
  for (const directive of ["default-src 'self'", "script-src 'self' 'wasm-unsafe-eval'", "connect-src 'self'", "object-src 'none'", "base-uri 'none'", "form-action 'none'"]) {
    assert(policy.split("; ").includes(directive), directive);
  }
  assert(!/unsafe-inline|'unsafe-eval'|\*|https?:/.test(policy), policy);
  assert(!/<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=/.test(html));

  // The hub and where it redirects; an example in a field; names of standards; what libraries say in messages of theirs.
  const allowed = [/^huggingface\.co$/, /^\*\.hf\.co$/, /^example\.org$/, /^www\.w3\.org$/, /^github\.com$/, /^bit\.ly$/, /^developer\.mozilla\.org$/];
  const texts = readdirSync(dist, { recursive: true }).filter((name) => /\.(js|html|css|json|svg|webmanifest)$|_headers$/.test(name));
  const found = texts.flatMap((name) => [...readFileSync(`${dist}/${name}`, "utf8").matchAll(/\b(?:https?|wss?):\/\/([^\s/"'`<>)\\;,]+)/g)].map(([, host]) => [name, host]));
  const strange = found.filter(([, host]) => !host.includes("$") && !allowed.some((pattern) => pattern.test(host)));
  assert.deepEqual(strange, []);
  for (const name of texts) assert(!/sendBeacon|RTCPeerConnection|google-analytics|[?&](token|access_token)=/.test(readFileSync(`${dist}/${name}`, "utf8")), name);
});
