// The demo page, used as a person would.
import assert from "node:assert/strict";
import { test } from "node:test";
import { SMOLLM2, environment } from "./support.mjs";

const env = environment();

async function openDemo(page) {
  await page.goto(`${env.server.url}/`);
  await page.waitForFunction(() => !document.getElementById("load").disabled);
}

async function loadModel(page) {
  await page.getByRole("button", { name: /^Load/ }).click();
  await page.getByLabel("Your message").waitFor({ timeout: 180_000 });
}

async function ask(page, text) {
  await page.getByLabel("Your message").fill(text);
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Send" }).waitFor({ timeout: 180_000 });
  return page.locator(".message.assistant").last().innerText();
}

const focused = (page) => page.evaluate(() => document.activeElement.id);

async function fitsThePhone(page, what) {
  assert(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `nothing sticks out of a phone's width: ${what}`);
}

async function greedy(page) {
  await page.locator("#settings summary").click();
  await page.getByLabel("Temperature").fill("0");
}

test("opens, shows the card before any weight, loads, answers; loads from storage after a reload", { timeout: 600_000 }, async () => {
  const page = await (await env.browser.newContext()).newPage();
  const problems = [];
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(String(error)));

  await openDemo(page);
  const card = await page.locator("#card").innerText();
  for (const expected of ["SmolLM2", "apache-2.0", "135 million", "q4_1", "MB", "Licence text\\s+not declared"]) assert.match(card, new RegExp(expected, "i"));
  const weights = env.server.requests.filter((address) => address.endsWith(".safetensors"));
  assert.deepEqual(weights, [], "no weight is fetched before Load");

  await loadModel(page);
  assert.match(await page.locator("#device").innerText(), /^CPU · \d+ threads?$/, "an emulated GPU loses to the processor");
  assert.match(await page.locator("#device").getAttribute("title"), /swiftshader.* emulated/i);
  await greedy(page);
  // The page's policy allows connections to its own server only, so that server's log is all that could leave.
  const requests = env.server.requests.length;
  assert.match(await ask(page, "What is the capital of France?"), /The capital of France is Paris\./);
  assert.deepEqual(env.server.requests.slice(requests), [], "nothing leaves while chatting");
  assert.match(await page.locator("#stats").innerText(), /\d+ tokens · \d+\.\d tokens\/s/);

  // From here on a request for the package fails the test: the model has to come from storage.
  const asked = [];
  env.server.fault = (address) => {
    if (!address.startsWith(SMOLLM2)) return undefined;
    asked.push(address);
    return { status: 500 };
  };
  await page.reload();
  await page.waitForFunction(() => !document.getElementById("load").disabled);
  assert.equal(await page.getByRole("button", { name: /^Load/ }).innerText(), "Load from this device");
  await loadModel(page);
  await greedy(page);
  assert.match(await ask(page, "What is the capital of France?"), /Paris/);
  env.server.fault = () => undefined;
  assert.deepEqual(asked, []);
  assert.deepEqual(problems, []);
  await page.context().close();
});

test("stops, starts a new chat, changes the model, removes it, all by keyboard or button", { timeout: 600_000 }, async () => {
  const page = await (await env.browser.newContext({ viewport: { width: 360, height: 640 } })).newPage();
  await openDemo(page);
  await fitsThePhone(page, "the card");
  await loadModel(page);
  assert.equal(await focused(page), "input");

  await page.getByLabel("Your message").fill("Write a very long story about a lighthouse.");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector(".message.assistant")?.innerText.length > 10, undefined, { timeout: 120_000 });
  await page.keyboard.press("Escape");
  await page.getByText("Stopped.").waitFor();
  await page.getByRole("button", { name: "Send" }).waitFor();
  assert.equal(await focused(page), "input");
  // An answer as the page draws it, with a line of code that no screen is wide enough for.
  await page.locator(".message.assistant > div").evaluate((body) => {
    body.append(document.createElement("pre"));
    body.lastChild.append(document.createElement("code"));
    body.lastChild.lastChild.textContent = "let x = ".repeat(200);
  });
  await fitsThePhone(page, "the chat");

  await page.getByRole("button", { name: "New chat" }).click();
  assert.equal(await page.locator(".message").count(), 0);
  await page.getByLabel("Your message").fill("one");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("two");
  assert.equal(await page.getByLabel("Your message").inputValue(), "one\ntwo");

  // A new chat while a prompt is still being read: Enter sends the next message at once.
  await page.getByLabel("Your message").fill("lighthouse ".repeat(400));
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "New chat" }).click();
  await page.keyboard.type("Hello");
  await page.keyboard.press("Enter");
  assert.equal(await page.locator(".message.user").innerText(), "Hello");
  await page.getByLabel("Your message").click();
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Send" }).waitFor();

  // A setting without a value is pointed at, and nothing is sent.
  await page.getByRole("button", { name: "New chat" }).click();
  await page.locator("#settings summary").click();
  await page.getByLabel("Longest answer").fill("");
  await page.locator("#settings summary").click();
  await page.getByLabel("Your message").fill("Hello");
  await page.keyboard.press("Enter");
  assert.equal(await focused(page), "max-tokens");
  assert.equal(await page.locator(".message").count(), 0);

  await page.getByRole("button", { name: "Change model" }).click();
  await page.getByRole("button", { name: "Remove from this device" }).click();
  await page.getByRole("button", { name: /^Load \(/ }).waitFor();
  await page.waitForFunction(() => document.activeElement.id === "load");
  await page.context().close();
});

test("a download can be cancelled, and an error is shown in words", { timeout: 120_000 }, async () => {
  const page = await (await env.browser.newContext()).newPage();
  env.server.fault = (address) => (address.endsWith(".safetensors") ? { delay: 3000 } : undefined);
  await openDemo(page);
  await page.getByRole("button", { name: /^Load/ }).click();
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.waitForFunction(() => document.activeElement.id === "load");
  assert.equal(await page.locator("#error").isVisible(), false);

  env.server.fault = (address) => (address.endsWith(".safetensors") ? { status: 404 } : undefined);
  await page.waitForFunction(() => !document.getElementById("load").disabled);
  await page.getByRole("button", { name: /^Load/ }).click();
  await page.getByRole("alert").waitFor();
  assert.match(await page.getByRole("alert").innerText(), /not found/i);
  // The same model chosen again: its card is read, and the error is gone.
  await page.getByLabel("Model", { exact: true }).dispatchEvent("change");
  await page.waitForFunction(() => document.getElementById("error").hidden);
  env.server.fault = () => undefined;
  await page.context().close();
});
