// The npm package, packed and installed into other projects: as a server, a TypeScript compiler and a bundler see it.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { launch } from "../web/browser.mjs";
import { serve } from "../web/server.mjs";

const root = path.resolve(import.meta.dirname, "../..");
const project = mkdtempSync(path.join(tmpdir(), "openweights-project-"));
const run = (command, args, options) => execFileSync(command, args, { cwd: project, encoding: "utf8", ...options });

before(() => {
  const [{ filename }] = JSON.parse(run("npm", ["pack", "--json", "--pack-destination", project], { cwd: `${root}/pkg` }));
  writeFileSync(`${project}/package.json`, JSON.stringify({ name: "other", private: true, type: "module" }));
  run("npm", ["install", "--no-audit", "--no-fund", "--loglevel=error", `./${filename}`]);
});
after(() => rmSync(project, { recursive: true, force: true }));

test("holds what a page needs and nothing else", () => {
  const installed = `${project}/node_modules/openweights`;
  const { exports } = JSON.parse(readFileSync(`${installed}/package.json`, "utf8"));
  assert(existsSync(path.join(installed, exports["."].default)) && existsSync(path.join(installed, exports["."].types)));
  assert.deepEqual(readdirSync(installed).sort(), ["LICENSE", "README.md", "dist", "package.json", "wasm"]);
});

test("is thin: less than 600 lines of TypeScript beside types and documentation", () => {
  const names = readdirSync(`${root}/pkg/src`).filter((name) => name !== "types.ts");
  const files = names.map((name) => readFileSync(`${root}/pkg/src/${name}`, "utf8"));
  const code = (line) => line.trim() && !/^\s*(\/\/|\/?\*)/.test(line);
  const lines = files.reduce((sum, text) => sum + text.split("\n").filter(code).length, 0);
  assert(lines > 300 && lines < 600, `${lines} lines`);
});

test("can be imported on a server", () => {
  const names = run("node", ["-e", 'import("openweights").then((m) => console.log(Object.keys(m).sort().join()))']);
  assert.equal(names.trim(), "Model,OpenWeightsError,inspect,load,store");
});

test("its types hold in a strict project", () => {
  writeFileSync(
    `${project}/use.ts`,
    `import { load, store, OpenWeightsError, type ChatCompletion, type ErrorCode } from "openweights";
const model = await load("/m/", { backend: "auto", onProgress: (p) => p.loaded satisfies number });
const whole: ChatCompletion = await model.chat.completions.create({ messages: [{ role: "user", content: "hi" }] });
whole.choices[0].message.content satisfies string;
for await (const chunk of await model.completions.create({ prompt: "x", stream: true })) chunk.choices[0].text satisfies string;
try { await store.list(); } catch (e) { if (e instanceof OpenWeightsError) e.code satisfies ErrorCode; }
// @ts-expect-error a message needs a role
await model.chat.completions.create({ messages: [{ content: "hi" }] });
`,
  );
  run(`${root}/node_modules/.bin/tsc`, "--strict --noEmit --target es2022 --module esnext --moduleResolution bundler --lib es2022,dom,dom.iterable use.ts".split(" "));
});

test("works in a page that Vite builds", { timeout: 300_000 }, async () => {
  writeFileSync(`${project}/index.html`, '<!doctype html><link rel="icon" href="data:,"><script type="module" src="/main.js"></script>');
  writeFileSync(`${project}/main.js`, 'import * as ow from "openweights"; globalThis.ow = ow;');
  run(`${root}/node_modules/.bin/vite`, ["build", "--logLevel", "error"]);
  const model = path.join(project, "tiny");
  run(`${root}/target/debug/openweights`, ["convert", `${root}/tests/fixtures/tiny/llama_plain`, model]);

  const server = await serve({ "/": `${project}/dist`, "/tiny/": model });
  const browser = await launch();
  try {
    const page = await browser.newPage();
    await page.goto(`${server.url}/`);
    await page.waitForFunction(() => globalThis.ow);
    const info = await page.evaluate(async () => (await ow.load("/tiny/", { backend: "cpu" })).info);
    assert.equal(info.architecture, "llama");
  } finally {
    await browser.close();
    await server.close();
  }
});
