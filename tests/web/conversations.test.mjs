// Conversations: kept, named, exported, imported, encrypted, deleted; and everything deleted.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { launchWithProfile } from "./browser.mjs";
import { asExported, stored } from "./library.mjs";
import { serve } from "./server.mjs";
import { SMOLLM2, ask, cardShown, controlled, environment, loadModel, openDemo, root, tinyPackage, watch } from "./support.mjs";

const limit = { timeout: 600_000 };
const env = environment({ policy: true });
const folder = mkdtempSync(path.join(tmpdir(), "openweights-conversations-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const dialog = (page) => page.getByRole("dialog", { name: "Conversations" });
const items = (page) => page.locator("#conversations .open");
const message = (page) => page.locator("#library-message").innerText();

async function openLibrary(page) {
  await page.getByRole("button", { name: "Conversations" }).click();
  await dialog(page).waitFor();
}

async function setPassphrase(page, passphrase) {
  await page.locator("#passphrase").evaluate((details) => (details.open = true));
  await page.getByLabel("New passphrase").fill(passphrase);
  await page.getByLabel("The same again").fill(passphrase);
  await page.keyboard.press("Enter");
  await page.getByText("every conversation is stored encrypted").waitFor();
}

async function unlock(page, passphrase) {
  await page.getByLabel("Passphrase", { exact: true }).fill(passphrase);
  await page.keyboard.press("Enter");
}

async function importFile(page, file) {
  await page.setInputFiles("#import-file", file);
  await page.locator("#library-message").waitFor();
  return message(page);
}

async function exported(page, press) {
  const [download] = await Promise.all([page.waitForEvent("download"), press()]);
  return readFileSync(await download.path(), "utf8");
}

/** A file of conversations, as an export writes it. */
function conversationFile(name, ...titles) {
  writeFileSync(`${folder}/${name}`, asExported(...titles));
  return `${folder}/${name}`;
}

test("a chat is kept, read again without a model, gone on with, named, exported, deleted", limit, async () => {
  const page = await (await env.browser.newContext({ viewport: { width: 360, height: 640 }, acceptDownloads: true })).newPage();
  const problems = await watch(page);
  await openDemo(page, env.server.url);
  await loadModel(page);
  await ask(page, "What is the capital of France?");
  await openLibrary(page);
  assert.match(await items(page).innerText(), /What is the capital of France\?\s+SmolLM2/i);
  assert(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "nothing sticks out of a phone's width");
  await page.keyboard.press("Escape");
  await dialog(page).waitFor({ state: "hidden" });

  await page.reload();
  await cardShown(page);
  await openLibrary(page);
  await items(page).click();
  assert.match(await page.locator(".message.assistant").innerText(), /Paris/);
  assert.equal(await page.getByLabel("Your message").isVisible(), false);
  await page.getByRole("button", { name: "Choose a model" }).click();
  await loadModel(page);
  assert.match(await ask(page, "Thank you."), /./);
  assert.equal(await page.locator(".message").count(), 4);

  await openLibrary(page);
  assert.equal(await items(page).count(), 1, "the same conversation, longer");
  await page.getByRole("button", { name: /^Rename/ }).click();
  await page.getByLabel("New title").fill("A capital talk");
  await page.keyboard.press("Enter");
  await page.locator("#conversations").getByText("A capital talk").waitFor();
  const markdown = await exported(page, () => page.getByRole("button", { name: "Export: A capital talk" }).click());
  assert.match(markdown, /^# A capital talk\n[\s\S]*\*\*You:\*\*\n\nWhat is the capital[\s\S]*\*\*Model:\*\*\n\nThe capital of France is Paris\./);
  const json = JSON.parse(await exported(page, () => page.getByRole("button", { name: "Export all" }).click()));
  assert.equal(json.conversations[0].messages.length, 4);
  writeFileSync(`${folder}/all.json`, JSON.stringify(json));

  const remove = page.getByRole("button", { name: /Delete.*: A capital talk/ });
  await remove.click();
  assert.equal(await items(page).count(), 1, "the first press asks");
  await remove.click();
  await page.getByText("None yet").waitFor();
  assert.equal(await page.locator(".message").count(), 0);
  assert.equal(await importFile(page, `${folder}/all.json`), "One conversation was added.");
  assert.equal(await importFile(page, `${folder}/all.json`), "0 conversations were added.");
  assert.deepEqual(problems, []);
  await page.context().close();
});

test("files that are no conversations are refused, and markup in them stays text", limit, async () => {
  const page = await (await env.browser.newContext()).newPage();
  const problems = await watch(page);
  await openDemo(page, env.server.url);
  await openLibrary(page);
  const bad = [["not json", /not JSON/], ["{}", /no exported/], ['{"format":"openweights-conversations","version":2,"conversations":[]}', /newer/],
    ['{"format":"openweights-conversations","version":1,"conversations":[{"id":"x"}]}', /conversation 1: no id/]];
  for (const [text, expected] of bad) {
    writeFileSync(`${folder}/bad.json`, text);
    assert.match(await importFile(page, `${folder}/bad.json`), expected);
  }
  await importFile(page, conversationFile("markup.json", '<img src=x onerror="noteViolation(1)"> [x](javascript:noteViolation(2)) ![x](https://example.com/)'));
  await items(page).click();
  assert.equal(await page.locator("#log img, #log script, #log a[href^=javascript]").count(), 0);
  assert.deepEqual(problems, []);
  await page.context().close();
});

test("a passphrase: right, wrong, changed, removed, and in two tabs", limit, async () => {
  const context = await env.browser.newContext();
  const page = await context.newPage();
  await openDemo(page, env.server.url);
  await openLibrary(page);
  await importFile(page, conversationFile("two.json", "zebra", "yak"));
  assert.match((await stored(page)).join(), /zebra/);
  await page.locator("#passphrase").evaluate((details) => (details.open = true));
  await page.getByLabel("New passphrase").fill("correct horse");
  await page.getByLabel("The same again").fill("correct mouse");
  await page.keyboard.press("Enter");
  assert.match((await stored(page)).join(), /zebra/, "two that differ set nothing");
  await setPassphrase(page, "correct horse");
  const sealed = await stored(page);
  assert.equal(sealed.length, 2);
  assert(sealed.every((value) => value.startsWith("sealed") && !/zebra|yak|answer|a model/.test(value)), "titles, too");
  assert.equal(await items(page).count(), 2);

  await page.reload();
  await cardShown(page);
  await openLibrary(page);
  assert.equal(await items(page).count(), 0);
  await unlock(page, "wrong horse");
  await page.getByText("That is not the passphrase. Nothing was changed.").waitFor();
  assert.deepEqual(await stored(page), sealed, "nothing is lost");
  await unlock(page, "correct horse");
  await items(page).first().waitFor();
  assert.match(await items(page).first().innerText(), /yak/);

  // Another tab has the key that counted until now.
  const other = await context.newPage();
  await openDemo(other, env.server.url);
  await openLibrary(other);
  await unlock(other, "correct horse");
  await items(other).first().waitFor();
  await setPassphrase(page, "battery staple");
  await other.setInputFiles("#import-file", conversationFile("late.json", "xerus"));
  await other.getByText("locked").waitFor();
  await unlock(other, "correct horse");
  await other.getByText("That is not the passphrase").waitFor();
  await unlock(other, "battery staple");
  await items(other).first().waitFor();
  assert.equal(await items(other).count(), 2);

  await page.getByRole("button", { name: "Remove passphrase" }).click();
  await page.getByRole("button", { name: "Really remove?" }).click();
  await page.getByText("The passphrase is removed").waitFor();
  assert.match((await stored(page)).join(), /zebra/);
  await context.close();
});

/** Files below `place` that hold one of `words`, in one byte a character or in two. */
function filesWith(place, words) {
  const forms = words.flatMap((word) => [Buffer.from(word), Buffer.from(word, "utf16le")]);
  const files = readdirSync(place, { recursive: true }).map((name) => path.join(place, name)).filter((name) => statSync(name, { throwIfNoEntry: false })?.isFile());
  return files.filter((name) => forms.some((form) => readFileSync(name).includes(form)));
}

test("on the disk nothing of an encrypted conversation can be found", limit, async () => {
  const words = ["quokkaquestion", "quokkaanswer"];
  const one = [{ role: "user", content: words[0] }, { role: "assistant", content: words[1] }];
  const file = `${folder}/quokka.json`;
  writeFileSync(file, JSON.stringify({ format: "openweights-conversations", version: 1, conversations: [{ id: "00000000-0000-4000-8000-0000000000aa", title: words[0], model: "m", created: 1, updated: 2, messages: one }] }));
  for (const encrypted of [false, true]) {
    const profile = `${folder}/profile-${encrypted}`;
    const context = await launchWithProfile(profile);
    const page = await context.newPage();
    await openDemo(page, env.server.url);
    await openLibrary(page);
    if (encrypted) await setPassphrase(page, "correct horse");
    assert.equal(await importFile(page, file), "One conversation was added.");
    await items(page).click();
    await page.waitForTimeout(500);
    await context.close();
    const found = filesWith(profile, words);
    if (encrypted) assert.deepEqual(found, []);
    else assert(found.length > 0, "without a passphrase it is there, so this search would find it");
  }
});

test("delete everything leaves the origin's storage empty", limit, async () => {
  const server = await serve({ "/": `${root}/web/dist`, [SMOLLM2]: tinyPackage() }, { policy: true });
  const context = await env.browser.newContext();
  const page = await context.newPage();
  await openDemo(page, server.url);
  await controlled(page);
  const other = await context.newPage();
  await openDemo(other, server.url);
  await loadModel(other);
  await openLibrary(page);
  await importFile(page, conversationFile("last.json", "the last"));
  const contents = () => page.evaluate(async () => {
    const files = [];
    for await (const name of (await navigator.storage.getDirectory()).keys()) files.push(name);
    return {
      files, databases: await indexedDB.databases(), caches: await caches.keys(), local: localStorage.length, session: sessionStorage.length,
      workers: (await navigator.serviceWorker.getRegistrations()).length,
    };
  });
  const full = await contents();
  assert(full.files.length && full.databases.length && full.caches.length && full.workers, JSON.stringify(full));
  await page.locator("#wipe summary").click();
  await page.getByRole("button", { name: "Delete everything" }).click();
  await page.getByRole("button", { name: "Really delete everything?" }).click();
  await page.getByText("Everything was deleted.").waitFor();
  await other.getByText("Everything was deleted.").waitFor();
  assert.deepEqual(await contents(), { files: [], databases: [], caches: [], local: 0, session: 0, workers: 0 });
  // What the browser counts shrinks once nothing of the page runs any more.
  await other.close();
  await page.goto(`${server.url}/icon.svg`);
  assert.deepEqual((await contents()).workers, 0);
  const session = await context.newCDPSession(page);
  let usage;
  for (let tries = 0; tries < 20; tries++) {
    usage = (await session.send("Storage.getUsageAndQuota", { origin: server.url })).usageBreakdown.filter(({ usage }) => usage > 10_000);
    if (!usage.length) break;
    await page.waitForTimeout(1000);
  }
  assert.deepEqual(usage, []);
  await context.close();
  await server.close();
});
