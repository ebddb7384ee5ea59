// The code in the README runs as it is printed, and does what it says.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { apiPage, environment, root } from "./support.mjs";

const env = environment();

for (const readme of ["README.md", "pkg/README.md"]) {
  test(`the example of ${readme} names Paris`, { timeout: 300_000 }, async () => {
    const [, code] = /```js\n(.*?)```/s.exec(readFileSync(`${root}/${readme}`, "utf8")) ?? [];
    assert(code, `${readme} has no js example`);
    const page = await apiPage(env);
    await page.context().route("**/example.js", (route) =>
      route.fulfill({ contentType: "text/javascript", body: code.replace('from "openweights"', 'from "/openweights/dist/index.js"') }),
    );
    await page.evaluate(() => import("/example.js"));
    assert.match(await page.locator("body").innerText(), /The capital of France is Paris\./);
    await page.context().close();
  });
}
