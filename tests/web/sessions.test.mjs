// Conversations beside each other, in a page: forked, cut, saved; after a reload what was saved goes on without a prefill.
import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { launchFirefox } from "./browser.mjs";
import { QUESTION, SMOLLM2, environment, load, openApi, outcome } from "./support.mjs";

const limit = { timeout: 600_000 };
const WHERE = { role: "user", content: "And of Germany?" };

describe("Chromium, processor", () => suite({}, "cpu"));
describe("Chromium, WebGPU", () => suite({}, "webgpu"));
describe("Firefox, processor", () => suite({ start: launchFirefox, webgpu: false }, "cpu"));

function suite(options, backend) {
  const env = environment(options);
  let page;
  before(async () => {
    page = await env.browser.newPage();
    await openApi(page, env.server);
    const loaded = await load(page, SMOLLM2, { backend, contextLength: 512 });
    assert.equal(loaded.info?.backend, backend, JSON.stringify(loaded));
  });

  /** Asks in the page's `session`, greedily; `{ ids, text, computed, ms }`. */
  const ask = (messages) =>
    outcome(page, async (messages) => {
      const { choices, usage } = await model.chat.completions.create({ messages, temperature: 0, max_tokens: 12, session: globalThis.session });
      const { message, token_ids } = choices[0];
      return { ids: token_ids, text: message.content, computed: usage.prompt_tokens - usage.reused_tokens, ms: usage.prefill_ms };
    }, messages);

  test("a saved conversation goes on after a reload, and only what is new is computed", limit, async () => {
    await outcome(page, async () => void (globalThis.session = await model.sessions.create()));
    const first = await ask(QUESTION);
    assert.equal(first.text, "The capital of France is Paris.", JSON.stringify(first));
    const saved = await outcome(page, () => session.save("France"));
    assert.deepEqual([saved.name, saved.usable], ["France", true], JSON.stringify(saved));
    const messages = [...QUESTION, { role: "assistant", content: first.text }, WHERE];
    const expected = await ask(messages);

    await openApi(page, env.server);
    await load(page, SMOLLM2, { backend, contextLength: 512 });
    assert.deepEqual(await outcome(page, () => model.sessions.list()), [saved]);
    assert.equal((await outcome(page, () => ow.store.list())).find(({ kind }) => kind === "session").bytes, saved.bytes);
    const restoring = await outcome(page, async () => {
      const begun = performance.now();
      globalThis.session = await model.sessions.restore("France");
      return performance.now() - begun;
    });
    const restored = await ask(messages);
    assert.deepEqual([restored.ids, restored.computed], [expected.ids, expected.computed]);
    await outcome(page, async () => void (globalThis.session = await model.sessions.create()));
    const anew = await ask(messages);
    assert.deepEqual(restored.ids, anew.ids);
    assert(restored.computed < anew.computed / 2, `${restored.computed} of ${anew.computed}`);
    const ms = (value) => `${value.toFixed(0)} ms`;
    console.log(`${backend}: ${saved.tokens} tokens, ${saved.bytes} bytes restored in ${ms(restoring)}; first token of the next answer after ${ms(restored.ms)} instead of ${ms(anew.ms)}`);
  });

  test("forks go their own ways; what is cut is computed again; what is closed is gone", limit, async () => {
    const result = await outcome(page, async (question) => {
      const ask = async (content, session) => {
        const { choices, usage } = await model.chat.completions.create({ messages: [{ role: "user", content }], temperature: 0, max_tokens: 6, session });
        return [choices[0].message.content, usage.reused_tokens];
      };
      const one = await model.sessions.create();
      await ask(question, one);
      const [two, all] = [await one.fork(), (await one.tokens()).length];
      const [fresh] = await ask("What is the capital of Italy?", await model.sessions.create());
      const asked = [await ask("What is the capital of Italy?", two), await ask(question, one), await ask("What is the capital of Italy?", two)];
      const left = await one.truncate(10);
      const [again, reused] = await ask(question, one);
      await two.close();
      const closed = await ask(question, two).catch(({ code }) => code);
      return { fresh, asked, all, left, again, reused, closed, none: await ask(question) };
    }, QUESTION[0].content);
    const [[italy], [france, kept], [same]] = result.asked;
    assert.equal(italy, result.fresh, JSON.stringify(result));
    assert.notEqual(italy, france);
    assert.match(france, /France/);
    assert.equal(same, italy);
    assert(kept > 30 && result.all > kept, JSON.stringify(result));
    assert.deepEqual([result.left, result.again, result.reused, result.closed], [10, france, 10, "not_found"]);
    assert.equal(result.none[0], france);
  });

  test("a damaged or missing one is refused by code; removed, it is gone", limit, async () => {
    const codes = await outcome(page, async () => {
      const code = (promise) => promise.then(() => "fine", ({ code }) => code);
      const codes = [await code(model.sessions.restore("Spain"))];
      const { bytes } = (await model.sessions.list())[0];
      const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("openweights");
      const blobs = await root.getDirectoryHandle("blobs");
      for await (const handle of blobs.values()) {
        if ((await handle.getFile()).size !== bytes) continue;
        const stream = await handle.createWritable({ keepExistingData: true });
        await stream.write({ type: "write", position: bytes / 2, data: Uint8Array.of(1, 2, 3, 4) });
        await stream.close();
      }
      codes.push(await code(model.sessions.restore("France")));
      const session = await model.sessions.restore("France").catch(() => model.sessions.create());
      codes.push((await session.tokens()).length);
      await model.sessions.remove("France");
      codes.push(await code(model.sessions.restore("France")), (await model.sessions.list()).length);
      return codes;
    });
    assert.deepEqual(codes, ["not_found", "integrity", 0, "not_found", 0]);
  });

  test("guesses change nothing but the time", limit, async () => {
    const prompt = "one two three four five six seven eight nine ten. ".repeat(4);
    const [guessed, plain] = await outcome(page, async (prompt) => {
      const run = async (speculative) => {
        const { choices, usage } = await model.completions.create({ prompt, temperature: 0, max_tokens: 40, speculative, reuse_prefix: false });
        return { ids: choices[0].token_ids, drafted: usage.drafted_tokens, accepted: usage.accepted_tokens };
      };
      return [await run(true), await run(false)];
    }, prompt);
    assert.deepEqual(guessed.ids, plain.ids);
    assert.equal(plain.drafted, 0);
    if (backend === "cpu") assert(guessed.accepted > 5, JSON.stringify(guessed));
    else assert.equal(guessed.drafted, 0);
  });
}
