/**
 * Run open-weight language models in the browser.
 *
 * `load` starts a worker that downloads, verifies, stores and runs a model; everything here only asks it. Importing this
 * module touches no global, so it may be imported on a server.
 */
import { OpenWeightsError, aborted } from "./errors.js";
import { Remote, stream } from "./rpc.js";
import { Session } from "./session.js";
import type { GenerateEvent } from "./worker.js";
import type {
  AdapterInfo, AdapterOptions, AdapterSource,
  Card, ChatCompletion, ChatCompletionChunk, ChatParams, Completion, CompletionChunk, CompletionParams, EmbeddingParams,
  Embeddings, GenerateParams,
  Inspection, LoadOptions, ModelInfo, ModelSource, NetworkRequest, Progress, SavedSession, SourceOptions, StorageUsage, StoredModel, Usage,
  Verified, VerifyOptions,
} from "./types.js";

export { OpenWeightsError, type ErrorCode } from "./errors.js";
export type { Session } from "./session.js";
export type * from "./types.js";

/** Relative addresses become absolute here, where the page's own is known. They start with `/`, `./` or `../`: a bare `org/name` is a hub id. */
function absolute(source: ModelSource): ModelSource {
  if (typeof source !== "string" && !(source instanceof URL)) return source;
  const base = globalThis.document?.baseURI ?? globalThis.location?.href;
  const text = String(source);
  return /^\.{0,2}\//.test(text) && URL.canParse(text, base) ? new URL(text, base).href : text;
}

let shared: Remote | undefined;
/** A worker for questions that need no model. It becomes a model's worker if it is idle at the next `load`. */
const helper = (): Remote => (shared = !shared || shared.state === "closed" ? new Remote() : shared);

function takeRemote(): Remote {
  if (shared?.state !== "idle") return new Remote();
  const remote = shared;
  shared = undefined;
  return remote;
}

/** Loads the model at `source`: from browser storage if it is there, else it is downloaded or imported, verified and stored first. */
export async function load(source: ModelSource, options: LoadOptions = {}): Promise<Model> {
  const { signal, onProgress, adapters = [], private: isolated = false, persist = true, ...rest } = options;
  if (signal?.aborted) throw aborted();
  let remote = takeRemote();
  // The worker's end is the surest way to stop a download: it holds nothing but this.
  const cancel = () => remote.close(aborted());
  signal?.addEventListener("abort", cancel);
  let brought = false;
  const onEvent = (progress: Progress) => {
    brought ||= progress.phase === "download" || progress.phase === "import";
    onProgress?.(progress);
  };
  const call = (method: string, ...args: unknown[]) => remote.call<Loaded, Progress>(method, args, { onEvent });
  try {
    let loaded: Loaded;
    if (isolated) {
      const files = await call("files", absolute(source), rest);
      remote.close(aborted());
      const { startPrivate } = await import("./private.js");
      const { worker, end } = await startPrivate();
      remote = new Remote(worker, end);
      if (signal?.aborted) throw aborted();
      const { quantize, hub, revision, token, integrity, signedBy, offline, ...device } = rest;
      loaded = await call("loadHanded", files, device);
    } else loaded = await call("load", absolute(source), rest);
    // Once there is something to lose, and not before: some browsers ask the person.
    if (persist && brought && loaded.info.storage === "files") void store.persist();
    const model = new Model(remote, loaded.card, { ...loaded.info, private: isolated });
    for (const adapter of adapters) {
      const { source, ...options } = typeof adapter === "object" && "source" in adapter ? adapter : { source: adapter };
      await model.adapters.add(source, rest.offline ? { ...options, offline: true } : options);
    }
    return model;
  } catch (error) {
    remote.close(aborted());
    throw error;
  } finally {
    signal?.removeEventListener("abort", cancel);
  }
}

interface Loaded { card: Card; info: ModelInfo }

/** What is declared of the model at `source`, and its size, before any of its weights is fetched: only headers are read. */
export async function inspect(source: ModelSource, options: SourceOptions = {}): Promise<Inspection> {
  return helper().call("inspect", [absolute(source), options]);
}

/** The models in browser storage. */
export const store = {
  /** What is stored. A model of which `missing` bytes are gone is fetched again when it is loaded. */
  list: (): Promise<StoredModel[]> => helper().call("list", []),
  /** Removes a model, and all files that no other needs. Waits while a tab downloads. */
  remove: (id: string): Promise<void> => helper().call("remove", [id]),
  /** What is used and granted, and whether the browser may evict it. */
  usage: async (): Promise<StorageUsage> => {
    const persisted = (await globalThis.navigator?.storage?.persisted?.()) ?? false;
    return { ...(await helper().call<Omit<StorageUsage, "persisted">>("usage", [])), persisted };
  },
  /** Asks the browser to keep what is stored, and says whether it will. `load` does so after a model was first stored. */
  persist: async (): Promise<boolean> => (await globalThis.navigator?.storage?.persist?.()) ?? false,
  /** Removes what no model needs: files of downloads and imports that did not end. Waits while a tab downloads. Gives the bytes. */
  clean: (): Promise<number> => helper().call("clean", []),
  /** Hashes what is stored of a model, and fetches again what is wrong. */
  verify: async (id: string, { signal, onProgress, ...options }: VerifyOptions = {}): Promise<Verified> => {
    if (signal?.aborted) throw aborted();
    const remote = new Remote();
    const cancel = () => remote.close(aborted());
    signal?.addEventListener("abort", cancel);
    try {
      return await remote.call<Verified, Progress<"verify" | "download" | "import">>("verify", [id, options], { onEvent: onProgress });
    } finally {
      signal?.removeEventListener("abort", cancel);
      cancel();
    }
  },
  /** A stored model as one `.owpkg` file, which `load` takes on another machine. It is read from storage while it is written. */
  export: (id: string): Promise<Blob> => helper().call("export", [id]),
};

/** A loaded model. Requests made at the same time are answered one after the other. */
export class Model {
  /** What the publisher says of it. */
  readonly card: Card;
  /** What it runs on. */
  readonly info: ModelInfo;
  /** Conversations, through the model's chat template. */
  readonly chat: { completions: { create: Create<ChatParams, ChatCompletion, ChatCompletionChunk> } };
  /** Raw text, continued. */
  readonly completions: { create: Create<CompletionParams, Completion, CompletionChunk> };
  /** Texts to vectors, by encoders. */
  readonly embeddings: { create(params: EmbeddingParams): Promise<Embeddings> };
  readonly #remote: Remote;

  /** @internal */
  constructor(remote: Remote, card: Card, info: ModelInfo) {
    this.#remote = remote;
    this.card = card;
    this.info = info;
    const name = card.name?.value ?? "";
    this.chat = { completions: { create: creator(remote, name, CHAT) } };
    this.completions = { create: creator(remote, name, TEXT) };
    this.embeddings = {
      create: async ({ signal, ...params }) => ({ ...(await remote.call<Embeddings>("embed", [params], { signal })), model: name }),
    };
  }

  /** Text to tokens and back. Promises, since the tokenizer lives in the worker. */
  readonly tokenizer = {
    encode: (text: string): Promise<Uint32Array> => this.#remote.call("encode", [text]),
    decode: (ids: ArrayLike<number>): Promise<string> => this.#remote.call("decode", [Uint32Array.from(ids)]),
  };

  /** LoRA adapters, which come and go while the model stays; several act in the order in which they were added. */
  readonly adapters = {
    add: async (source: AdapterSource, options: AdapterOptions = {}): Promise<AdapterInfo> => {
      if (this.info.private && (typeof source === "string" || source instanceof URL)) {
        throw new OpenWeightsError("invalid_input", "a private model fetches nothing: give the adapter's files");
      }
      return this.#remote.call("addAdapter", [absolute(source), options]);
    },
    setScale: (name: string, scale: number): Promise<void> => this.#remote.call("scaleAdapter", [name, scale]),
    remove: (name: string): Promise<void> => this.#remote.call("removeAdapter", [name]),
    list: (): Promise<AdapterInfo[]> => this.#remote.call("adapters", []),
  };

  /** Conversations beside each other, to be named in requests as `session`. Requests without one share a conversation of their own. */
  readonly sessions = {
    /** A new, empty one. */
    create: async (): Promise<Session> => new Session(this.#remote, await this.#remote.call<number>("openSession", [])),
    /** What was saved under `name`, computing nothing. What another engine, model or adapter left, or what is damaged, is refused. */
    restore: async (name: string): Promise<Session> => new Session(this.#remote, await this.#remote.call<number>("restoreSession", [name])),
    /** What is saved of this model. */
    list: (): Promise<SavedSession[]> => this.#remote.call("savedSessions", []),
    remove: (name: string): Promise<void> => this.#remote.call("removeSession", [name]),
  };

  /** Every request that the model's worker has made since it started: none, once it is loaded. */
  requests(): Promise<NetworkRequest[]> {
    return this.#remote.call("requests", []);
  }

  /** Frees the device and the worker. Requests under way fail with `aborted`. What is stored stays stored. */
  async unload(): Promise<void> {
    this.#remote.close(new OpenWeightsError("aborted", "the model was unloaded"));
  }
}

/** With and without `stream`. Bad input rejects here, not in the loop over the stream. */
export interface Create<Params, Whole, Chunk> {
  (params: Params & { stream: true }): Promise<AsyncGenerator<Chunk, void, undefined>>;
  (params: Params & { stream?: false }): Promise<Whole>;
}

/** How the answers to chats and to raw text differ. */
const CHAT = {
  method: "chat",
  object: "chat.completion",
  chunk: "chat.completion.chunk",
  whole: (content: string) => ({ message: { role: "assistant", content } }),
  part: (content: string, first: boolean) => ({ delta: first ? { role: "assistant", content } : { content } }),
  end: (content: string) => ({ delta: content ? { content } : {} }),
};
const TEXT = {
  method: "complete",
  object: "text_completion",
  chunk: "text_completion",
  whole: (text: string) => ({ text }),
  part: (text: string) => ({ text }),
  end: (text: string) => ({ text }),
};

function creator<Params extends GenerateParams, Whole, Chunk>(remote: Remote, model: string, kind: typeof CHAT | typeof TEXT) {
  const head = (object: string) => ({ id: crypto.randomUUID(), object, created: Math.floor(Date.now() / 1000), model });

  function events({ signal, stream: _, session, ...params }: Params & { stream?: boolean }) {
    const left = new AbortController();
    const either = signal ? AbortSignal.any([signal, left.signal]) : left.signal;
    return stream<GenerateEvent>(
      (onEvent) => remote.call(kind.method, [{ ...params, session: session?.id }], { onEvent, signal: either }),
      () => left.abort(),
    );
  }

  async function* chunks(source: AsyncIterable<GenerateEvent>) {
    const common = head(kind.chunk);
    let first = true;
    for await (const event of source) {
      if (event.type === "start") yield;
      else if (event.type === "token") {
        const choice = { index: 0, ...kind.part(event.text, first), token_ids: [event.id], finish_reason: null };
        first = false;
        yield { ...common, choices: [choice] };
      } else if (event.type === "done") {
        const choice = { index: 0, ...kind.end(event.text), token_ids: [], finish_reason: event.finish_reason };
        yield { ...common, choices: [choice], usage: total(event.usage) };
      }
    }
  }

  async function whole(source: AsyncIterable<GenerateEvent>) {
    const token_ids: number[] = [];
    let text = "";
    for await (const event of source) {
      if (event.type === "token") {
        token_ids.push(event.id);
        text += event.text;
      } else if (event.type === "done") {
        const choice = { index: 0, ...kind.whole(text + event.text), token_ids, finish_reason: event.finish_reason };
        return { ...head(kind.object), choices: [choice], usage: total(event.usage) };
      }
    }
    throw new OpenWeightsError("internal", "the generation ended without a reason");
  }

  const create = async (params: Params & { stream?: boolean }) => {
    const source = await events(params);
    if (!params.stream) return whole(source);
    const parts = chunks(source);
    await parts.next(); // to the start: `return` ends the request only if there is a loop to leave
    return parts;
  };
  return create as unknown as Create<Params, Whole, Chunk>;
}

function total(usage: Omit<Usage, "total_tokens">): Usage {
  return { ...usage, total_tokens: usage.prompt_tokens + usage.completion_tokens };
}
