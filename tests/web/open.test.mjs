// The demo page opens models of one's own: files, a folder, an address, something dropped.
import assert from "node:assert/strict";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { tinyGguf } from "./gguf.mjs";
import { environment, root } from "./support.mjs";

const folder = mkdtempSync(path.join(tmpdir(), "openweights-open-"));
writeFileSync(`${folder}/tiny.gguf`, tinyGguf());
for (const file of ["config.json", "model.safetensors"]) cpSync(`${root}/tests/fixtures/tiny/llama_bf16/${file}`, `${folder}/my-checkpoint/${file}`);
const env = environment({ roots: { "/files/": folder } });
after(() => rmSync(folder, { recursive: true }));

async function openDemo(viewport) {
  const page = await (await env.browser.newContext({ viewport })).newPage();
  page.setDefaultTimeout(120_000);
  await page.goto(`${env.server.url}/`);
  await page.waitForFunction(() => !document.getElementById("load").disabled);
  return page;
}

const card = (page) => page.locator("#card").innerText();
const focused = (page) => page.evaluate(() => document.activeElement.id);
const fits = (page) => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);

/** The card of what was opened last. */
async function shown(page, text) {
  await page.locator("#card").getByText(text).first().waitFor();
  await page.waitForFunction(() => !document.getElementById("load").disabled);
}

test("a GGUF file: card, precision, import, and again from this device", { timeout: 600_000 }, async () => {
  const page = await openDemo({ width: 360, height: 640 });
  await page.locator("#open > summary").focus();
  await page.keyboard.press("Enter");
  assert(await fits(page), "nothing sticks out of a phone's width");
  await page.keyboard.press("Tab");
  assert.equal(await focused(page), "open-text");
  await page.setInputFiles("#open-files", `${folder}/tiny.gguf`);
  await shown(page, "Tiny GGUF");
  assert.match(await card(page), /Licence\s+not declared/);
  assert.match(await card(page), /GGUF file/);
  assert.equal(await page.getByLabel("Precision").inputValue(), "q4", "floats can be made smaller");
  assert.equal(await focused(page), "load");
  assert(await fits(page), "nor does the card");
  await page.getByLabel("Precision").selectOption("keep");
  await page.waitForFunction(() => /Load \(/.test(document.getElementById("load").textContent) && !document.getElementById("load").disabled);
  await page.getByRole("button", { name: /^Load/ }).click();
  await page.getByLabel("Your message").waitFor();

  await page.reload();
  await page.waitForFunction(() => !document.getElementById("load").disabled);
  await page.getByLabel("Model", { exact: true }).selectOption({ label: "Tiny GGUF (on this device)" });
  await shown(page, "Tiny GGUF");
  assert.equal(await page.getByLabel("Precision").isVisible(), false);
  await page.getByRole("button", { name: "Load from this device" }).click();
  await page.getByLabel("Your message").waitFor();
  await page.getByRole("button", { name: "Change model" }).click();
  await page.getByRole("button", { name: "Remove from this device" }).click();
  await shown(page, "SmolLM2");
  await page.context().close();
});

test("a folder, an address, what is neither, and something dropped", { timeout: 600_000 }, async () => {
  const page = await openDemo({ width: 1000, height: 800 });
  await page.locator("#open > summary").click();
  await page.setInputFiles("#open-folder", `${folder}/my-checkpoint`);
  await shown(page, "Hugging Face checkpoint");
  assert.match(await card(page), /bf16/);

  await page.getByLabel("Address or hub id").fill("/files/tiny.gguf");
  await page.keyboard.press("Enter");
  await shown(page, "Tiny GGUF");

  await page.getByLabel("Address or hub id").fill("no such thing");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").waitFor();
  assert.match(await page.getByRole("alert").innerText(), /hub id/);
  assert.equal(await page.getByRole("button", { name: /^Load/ }).isDisabled(), true);

  const files = await page.evaluateHandle(async () => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([await (await fetch("/files/tiny.gguf")).arrayBuffer()], "dropped.gguf"));
    return transfer;
  });
  for (const type of ["dragenter", "dragover", "drop"]) await page.dispatchEvent("#setup", type, { dataTransfer: files });
  await shown(page, "dropped.gguf");
  await page.context().close();
});
