// Puts the page together in web/dist: static files, one bundle of the page's own code, and the package beside it as it is
// published (the page imports it by address, so its worker and wasm keep their places).
import { cp, mkdir, rm } from "node:fs/promises";
import { build } from "esbuild";

const web = new URL("./", import.meta.url).pathname;
const out = `${web}dist`;

await mkdir(out, { recursive: true });
await rm(`${out}/openweights`, { recursive: true, force: true });
for (const part of ["dist", "wasm"]) {
  await cp(`${web}../pkg/${part}`, `${out}/openweights/${part}`, { recursive: true, filter: (file) => !file.endsWith(".d.ts") });
}
await build({
  entryPoints: [`${web}src/main.ts`],
  outfile: `${out}/main.js`,
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  plugins: [
    {
      name: "package-by-address",
      setup: ({ onResolve }) => onResolve({ filter: /^openweights$/ }, () => ({ path: "./openweights/dist/index.js", external: true })),
    },
  ],
});
// Last: scripts/build takes the age of index.html for the age of all.
await cp(`${web}static`, out, { recursive: true });
