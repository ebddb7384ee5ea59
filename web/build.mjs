// Puts the page together in web/dist: static files, the page's own code, the package beside it as it is published (the page
// imports it by address, so its worker and wasm keep their places), and last the service worker, which knows every file's digest.
import { createHash } from "node:crypto";
import { cp, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { build } from "esbuild";
import { HUB, ISOLATION, headerPolicy, pagePolicy } from "./src/policy.js";

const web = new URL("./", import.meta.url).pathname;
const out = `${web}dist`;
const options = { bundle: true, target: "es2022", minify: true };

await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });
for (const part of ["dist", "wasm"]) {
  await cp(`${web}../pkg/${part}`, `${out}/openweights/${part}`, { recursive: true, filter: (file) => !file.endsWith(".d.ts") });
}

const { metafile } = await build({
  ...options,
  entryPoints: [`${web}src/main.ts`],
  outdir: out,
  format: "esm",
  splitting: true,
  chunkNames: "part-[hash]",
  metafile: true,
  plugins: [
    {
      name: "package-by-address",
      setup: ({ onResolve }) => onResolve({ filter: /^openweights$/ }, () => ({ path: "./openweights/dist/index.js", external: true })),
    },
  ],
});

/** Hosts of listed models: who publishes the page chose them. */
const listed = JSON.parse(await readFile(`${web}static/models.json`, "utf8")).map(({ url }) => URL.canParse(url) && new URL(url).origin);
const sources = [...new Set([...HUB, ...listed.filter(Boolean)])];

await cp(`${web}static`, out, { recursive: true });
const html = await readFile(`${web}static/index.html`, "utf8");
// Before the service worker: its list has the digest of the page as it is served.
const finished = html.replace("{{policy}}", pagePolicy);
await writeFile(`${out}/index.html`, finished);
await writeFile(`${out}/_headers`, headersFile());
await build({
  ...options,
  entryPoints: [`${web}sw/sw.ts`],
  outfile: `${out}/sw.js`,
  format: "iife",
  define: { FILES: JSON.stringify(await files()), SOURCES: JSON.stringify(sources), "process.env.NODE_ENV": '"production"' },
});
await writeFile(`${out}/.first`, firstFiles().join("\n"));
// Last: scripts/build takes the age of index.html for the age of all.
await writeFile(`${out}/index.html`, finished);

/** What the service worker keeps: all that was built. */
async function files() {
  const names = await readdir(out, { recursive: true, withFileTypes: true });
  const kept = names.filter((entry) => entry.isFile() && !/^(_headers|sw\.js)$/.test(entry.name));
  const entries = await Promise.all(kept.map(async (entry) => {
    const file = path.join(entry.parentPath ?? entry.path, entry.name);
    const digest = createHash("sha256").update(await readFile(file)).digest();
    return { url: path.relative(out, file), revision: digest.toString("hex").slice(0, 16), integrity: `sha256-${digest.toString("base64")}` };
  }));
  return entries.sort((a, b) => (a.url < b.url ? -1 : 1));
}

/** The page's scripts that are fetched before the first token: main.js and what it imports at once. */
function firstFiles() {
  const entry = Object.keys(metafile.outputs).find((name) => name.endsWith("/main.js"));
  const found = new Set([entry]);
  for (const name of found) {
    for (const { path, kind, external } of metafile.outputs[name].imports) if (kind === "import-statement" && !external) found.add(path);
  }
  return [...found];
}

/** Headers for every answer, in the format of Netlify and Cloudflare Pages; `openweights serve` reads it, too. */
function headersFile() {
  const headers = { ...ISOLATION, "content-security-policy": headerPolicy(sources), "referrer-policy": "no-referrer", "x-content-type-options": "nosniff" };
  return `/*\n${Object.entries(headers).map(([name, value]) => `  ${name}: ${value}\n`).join("")}`;
}
