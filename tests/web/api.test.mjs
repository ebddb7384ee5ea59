// The package's interface on WebGPU: the reference's tokens, OpenAI's shapes, aborts, bad requests.
import assert from "node:assert/strict";
import { test } from "node:test";
import { QUESTION, SMOLLM2, apiPage, environment, load, outcome, reference } from "./support.mjs";

const limit = { timeout: 300_000 };
let page;

async function ready(env) {
  page = await apiPage(env);
  const loaded = await load(page, SMOLLM2, { backend: "webgpu", contextLength: 512 });
  assert.equal(loaded.info?.backend, "webgpu", JSON.stringify(loaded));
  assert.equal(loaded.info.architecture, "llama");
  assert.equal(loaded.info.software, true, "SwiftShader is no GPU, and says so");
  assert.equal(loaded.info.contextLength, 512);
  assert.deepEqual(loaded.phases, ["manifest", "download", "load"]);
}
const env = environment({ ready });

const chat = (params) => outcome(page, (params) => model.chat.completions.create(params), params);
const stream = (params) =>
  outcome(page, async (params) => {
    const chunks = [];
    for await (const chunk of await model.chat.completions.create({ ...params, stream: true })) chunks.push(chunk);
    return chunks;
  }, params);

test("greedy answer: the reference's tokens through the end token", limit, async () => {
  const ids = reference.greedy_ids.slice(0, reference.greedy_ids.indexOf(2) + 1);
  const answer = await chat({ messages: QUESTION, temperature: 0, max_tokens: 32 });
  assert.equal(answer.object, "chat.completion");
  assert.deepEqual(answer.choices[0].token_ids, ids);
  assert.deepEqual(answer.choices[0].message, { role: "assistant", content: "The capital of France is Paris." });
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.equal(answer.usage.prompt_tokens, reference.input_ids.length);
  assert.equal(answer.usage.completion_tokens, ids.length);
});

test("greedy answer past the end token: all 16 of the reference", limit, async () => {
  const answer = await chat({ messages: QUESTION, temperature: 0, max_tokens: 16, ignore_eos: true, reuse_prefix: false });
  assert.deepEqual(answer.choices[0].token_ids, reference.greedy_ids);
  assert.equal(answer.choices[0].finish_reason, "length");
});

test("a stream has one chunk a token, and usage in the last", limit, async () => {
  const chunks = await stream({ messages: QUESTION, temperature: 0, max_tokens: 4 });
  assert.equal(chunks.length, 5);
  assert.deepEqual(chunks.flatMap(({ choices }) => choices[0].token_ids), reference.greedy_ids.slice(0, 4));
  assert.equal(chunks[0].choices[0].delta.role, "assistant");
  assert.equal(chunks.map(({ choices }) => choices[0].delta.content ?? "").join(""), "The capital of France");
  assert.deepEqual(chunks.map(({ choices }) => choices[0].finish_reason), [null, null, null, null, "length"]);
  assert.deepEqual(chunks.map(({ usage }) => usage?.completion_tokens), [undefined, undefined, undefined, undefined, 4]);
});

test("raw text: prompt in, continuation out, tokens and back", limit, async () => {
  const ids = await outcome(page, async (text) => [...(await model.tokenizer.encode(text))], reference.text);
  assert.deepEqual(ids, reference.input_ids);
  assert.equal(await outcome(page, (ids) => model.tokenizer.decode(ids), ids), reference.text);
  const answer = await outcome(page, (prompt) => model.completions.create({ prompt, temperature: 0, max_tokens: 4 }), reference.text);
  assert.equal(answer.object, "text_completion");
  assert.equal(answer.choices[0].text, "The capital of France");
});

test("a stop string ends the answer and is not part of it", limit, async () => {
  const answer = await chat({ messages: QUESTION, temperature: 0, stop: " of Fra" });
  assert.equal(answer.choices[0].message.content, "The capital");
  assert.equal(answer.choices[0].finish_reason, "stop");
});

test("a seed makes sampling repeatable", limit, async () => {
  const sample = (seed) => chat({ messages: QUESTION, temperature: 1.5, top_k: 50, seed, max_tokens: 8, ignore_eos: true });
  const [first, again, other] = [await sample(1), await sample(1), await sample(2)];
  assert.deepEqual(first.choices[0].token_ids, again.choices[0].token_ids);
  assert.notDeepEqual(first.choices[0].token_ids, other.choices[0].token_ids);
});

test("an abort ends prefill and decode, and the model goes on", limit, async () => {
  const aborted = await outcome(page, async (question) => {
    const results = [];
    const long = { role: "user", content: "lighthouse ".repeat(300) };
    const prefill = new AbortController();
    setTimeout(() => prefill.abort(), 100);
    const started = performance.now();
    await model.chat.completions.create({ messages: [long], max_tokens: 1, signal: prefill.signal }).catch((e) => results.push(e.code));
    results.push(performance.now() - started < 30_000);

    const decode = new AbortController();
    let chunks = 0;
    try {
      const stream = await model.chat.completions.create({ messages: question, stream: true, ignore_eos: true, signal: decode.signal });
      for await (const _ of stream) if (++chunks === 3) decode.abort();
    } catch (e) {
      results.push(e.code);
    }
    results.push(chunks < 10);
    return results;
  }, QUESTION);
  assert.deepEqual(aborted, ["aborted", true, "aborted", true]);
  const answer = await chat({ messages: QUESTION, temperature: 0, max_tokens: 8 });
  assert.equal(answer.choices[0].message.content, "The capital of France is Paris.");
});

test("an abort of a request that waits for another rejects at once", limit, async () => {
  const [code, ended] = await outcome(page, async (messages) => {
    let ended = false;
    const first = model.chat.completions.create({ messages, max_tokens: 24, ignore_eos: true }).then(() => (ended = true));
    const abort = new AbortController();
    const second = model.chat.completions.create({ messages, signal: abort.signal }).catch((e) => e.code);
    setTimeout(() => abort.abort(), 50);
    const result = [await second, ended];
    await first;
    return result;
  }, QUESTION);
  assert.deepEqual([code, ended], ["aborted", false]);
});

test("a stream that nobody reads is stopped by its return", limit, async () => {
  const waited = await outcome(page, async (messages) => {
    const stream = await model.chat.completions.create({ messages, stream: true, ignore_eos: true, max_tokens: 400 });
    await stream.return();
    const started = performance.now();
    await model.chat.completions.create({ messages, max_tokens: 1 });
    return performance.now() - started;
  }, QUESTION);
  assert(waited < 30_000, `the request after it waited ${waited} ms`);
});

test("a request that is not plain data is refused, and the model goes on", limit, async () => {
  const refused = await outcome(page, (messages) => model.chat.completions.create({ messages, onToken() {} }), QUESTION);
  assert.equal(refused.code, "invalid_input");
  assert.equal((await chat({ messages: QUESTION, max_tokens: 1 })).object, "chat.completion");
});

test("leaving the loop stops the generation", limit, async () => {
  const answer = await outcome(page, async (messages) => {
    for await (const _ of await model.chat.completions.create({ messages, stream: true, ignore_eos: true })) break;
    return model.chat.completions.create({ messages, temperature: 0, max_tokens: 2 });
  }, QUESTION);
  assert.equal(answer.choices[0].message.content, "The capital");
});

test("bad requests are refused with a code, before the loop", limit, async () => {
  assert.equal((await chat({ messages: [] })).code, "invalid_input");
  assert.equal((await stream({ messages: [] })).code, "invalid_input");
  assert.equal((await chat({})).code, "invalid_input");
  assert.equal((await chat({ messages: QUESTION, temperature: -1 })).code, "invalid_input");
  assert.match((await chat({ messages: QUESTION, tools: [] })).message, /tools/);
  const overflow = await chat({ messages: [{ role: "user", content: "lighthouse ".repeat(600) }] });
  assert.equal(overflow.code, "context_overflow");
  assert.match(overflow.message, /512/);
});

test("the store lists, measures and removes", limit, async () => {
  const [stored] = await outcome(page, () => ow.store.list());
  assert.equal(stored.source, `${env.server.url}${SMOLLM2}`);
  const usage = await outcome(page, () => ow.store.usage());
  assert(usage.used >= stored.bytes && usage.quota > usage.used, JSON.stringify({ usage, stored }));
  await outcome(page, (id) => ow.store.remove(id), stored.id);
  assert.deepEqual(await outcome(page, () => ow.store.list()), []);
});

test("an unloaded model says so", limit, async () => {
  await outcome(page, () => model.unload());
  assert.equal((await chat({ messages: QUESTION })).code, "aborted");
});
