/** The worker: wasm on one side, messages on the other. Everything that takes time happens here, off the page's thread. */
import type * as engine from "../wasm/simd128/openweights.js";
import { OpenWeightsError, aborted, asError, missing } from "./errors.js";
import { follow } from "./follow.js";
import { checkWith } from "./key.js";
import type { Request, Response } from "./rpc.js";
import type {
  AdapterOptions, AdapterSource, ChatParams, CompletionParams, EmbeddingParams, Embeddings, FinishReason, LoadOptions, ModelSource,
  NetworkRequest, SourceOptions, Usage, VerifyOptions,
} from "./types.js";

/** What a call may do besides returning. */
interface Call {
  emit: (event: unknown) => void;
  signal: AbortSignal;
}

/** What generation reports: `crate/src/web/api.rs` makes these. */
export type GenerateEvent =
  | { type: "start" }
  | { type: "prefill"; done: number; total: number }
  | { type: "token"; id: number; text: string }
  | { type: "done"; text: string; finish_reason: FinishReason; usage: Omit<Usage, "total_tokens"> };

type Engine = typeof engine;
let wasm: Engine;
let model: engine.Model | undefined;
let ready: Promise<unknown> | undefined;
let turn: Promise<unknown> = Promise.resolve();

/** Starts the wasm, once. A start that failed is no reason for the next one to fail. */
function start(): Promise<unknown> {
  return (ready ??= wasm.default().catch((error) => {
    ready = undefined;
    throw missing("the engine's wasm", asError(error).message);
  }));
}

function loaded(): engine.Model {
  if (!model) throw new OpenWeightsError("invalid_input", "no model is loaded");
  return model;
}

/** Runs `task` after the tasks before it: a model does one thing at a time. */
function inTurn<T>(task: () => Promise<T>): Promise<T> {
  const result = turn.then(task);
  turn = result.catch(() => {});
  return result;
}

/** Lets messages in, at once: a timer would wait 4 ms. Without it an abort would arrive after the answer. */
const { port1, port2 } = new MessageChannel();
const macrotask = () => new Promise<void>((resolve) => {
  port1.onmessage = () => resolve();
  port2.postMessage(null);
});

async function generate(call: Call, begin: (model: engine.Model) => void): Promise<void> {
  const model = loaded();
  const check = () => call.signal.throwIfAborted();
  try {
    check();
    begin(model);
    call.emit({ type: "start" } satisfies GenerateEvent);
    for (;;) {
      const event = (await model.next()) as GenerateEvent | undefined;
      if (!event) return;
      call.emit(event);
      await macrotask();
      check();
    }
  } finally {
    model.stop();
  }
}

async function embed({ signal }: Call, params: EmbeddingParams): Promise<Omit<Embeddings, "model">> {
  const model = loaded();
  const data: Embeddings["data"] = [];
  let tokens = 0;
  for (const text of model.embedding_texts(params)) {
    signal.throwIfAborted();
    const one = (await model.embed(text)) as { embedding: number[]; tokens: number };
    data.push({ object: "embedding", index: data.length, embedding: one.embedding });
    tokens += one.tokens;
    await macrotask();
  }
  return { object: "list", data, usage: { prompt_tokens: tokens, total_tokens: tokens } };
}

/** Calls `load` with a check of signatures, if one is demanded, and with the progress of another tab that loads the same. */
async function bring<T>(
  { emit }: Call,
  source: ModelSource,
  { signedBy, ...options }: LoadOptions,
  load: (...args: Parameters<typeof engine.Model.load>) => Promise<T>,
): Promise<T> {
  const key = signedBy === undefined ? undefined : await checkWith(signedBy);
  const { tell, done } = follow(source, emit);
  return load(source, options, tell, key).finally(done);
}

const methods: Record<string, (call: Call, ...args: never[]) => Promise<unknown>> = {
  inspect: (_, source: ModelSource, options: SourceOptions) => wasm.inspect(source, options),
  load: (call, source: ModelSource, options: LoadOptions) => bring(call, source, options, async (...args) => {
    model = await wasm.Model.load(...args);
    return { card: model.card(), info: model.info() };
  }),
  files: (call, source: ModelSource, options: LoadOptions) => bring(call, source, options, wasm.handed_files),
  loadHanded: async ({ emit }, files: unknown[], options: LoadOptions) => {
    model = await wasm.Model.load_handed(files, options, emit);
    return { card: model.card(), info: model.info() };
  },
  requests: async () => requests,
  chat: (call, params: ChatParams) => inTurn(() => generate(call, (model) => model.start_chat(params))),
  complete: (call, params: CompletionParams) => inTurn(() => generate(call, (model) => model.start_completion(params))),
  embed: (call, params: EmbeddingParams) => inTurn(() => embed(call, params)),
  addAdapter: (_, source: AdapterSource, options: AdapterOptions) => inTurn(() => loaded().add_adapter(source, options)),
  scaleAdapter: (_, name: string, scale: number) => inTurn(async () => loaded().set_adapter_scale(name, scale)),
  removeAdapter: (_, name: string) => inTurn(async () => loaded().remove_adapter(name)),
  adapters: () => inTurn(async () => loaded().adapters()),
  openSession: () => inTurn(async () => loaded().open_session()),
  forkSession: (_, id: number) => inTurn(() => loaded().fork_session(id)),
  truncateSession: (_, id: number, tokens: number) => inTurn(async () => loaded().truncate_session(id, tokens)),
  sessionTokens: (_, id: number) => inTurn(async () => loaded().session_tokens(id)),
  closeSession: (_, id: number) => inTurn(async () => loaded().close_session(id)),
  saveSession: (_, id: number, name: string) => inTurn(() => loaded().save_session(id, name)),
  restoreSession: (_, name: string) => inTurn(() => loaded().restore_session(name)),
  savedSessions: () => inTurn(() => loaded().saved_sessions()),
  removeSession: (_, name: string) => inTurn(() => loaded().remove_session(name)),
  encode: (_, text: string) => inTurn(async () => loaded().encode(text)),
  decode: (_, ids: Uint32Array) => inTurn(async () => loaded().decode(ids)),
  list: () => wasm.store_list(),
  remove: (_, id: string) => wasm.store_remove(id),
  usage: () => wasm.store_usage(),
  clean: () => wasm.store_clean(),
  verify: ({ emit }, id: string, options: VerifyOptions) => wasm.store_verify(id, options, emit),
  export: (_, id: string) => wasm.store_export(id),
  dispatches: async () => loaded().dispatches(), // for tests/web/bench.mjs
  check: async (_, name: keyof Engine, ...args: never[]) => (wasm[name] as (...args: never[]) => unknown)(...args), // for tests/web
};

/** This worker's requests, as the browser lists them. */
const requests: NetworkRequest[] = [];
new PerformanceObserver((list) => {
  for (const { name, startTime } of list.getEntries()) requests.push({ url: name, time: performance.timeOrigin + startTime });
}).observe({ type: "resource", buffered: true });

const calls = new Map<number, AbortController>();
const post = (message: Response) => postMessage(message);

/** A thread of another worker's engine, for ever. */
function help(shared: { module: WebAssembly.Module; memory: WebAssembly.Memory }): void {
  wasm.initSync(shared);
  try {
    wasm.run_thread();
  } catch (trap) {
    wasm.thread_failed();
    throw trap;
  }
}

async function answer(data: Request): Promise<void> {
  if ("abort" in data) return calls.get(data.abort)?.abort(aborted());
  const { id, method, args } = data;
  const abort = new AbortController();
  const call = { signal: abort.signal, emit: (event: unknown) => post({ id, event }) };
  calls.set(id, abort);
  try {
    await start();
    const run = methods[method];
    if (!run) throw new OpenWeightsError("invalid_input", `no method ${method}`);
    post({ id, result: await run(call, ...(args as never[])) });
  } catch (thrown) {
    const { code, message } = asError(thrown);
    post({ id, error: { code, message } });
  } finally {
    calls.delete(id);
  }
}

/** Makes this worker one that runs `engine`. */
export function serve(engine: Engine): void {
  wasm = engine;
  self.onmessage = ({ data }) => {
    if ("memory" in data) return help(data);
    if ("wasm" in data) return void (ready = wasm.default({ module_or_path: data.wasm })); // a worker that cannot fetch it
    return answer(data);
  };
}
