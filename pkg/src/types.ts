/** What the package takes and gives. Chat and completion shapes are OpenAI's; what we add to them says so. */
import type { ErrorCode } from "./errors.js";
import type { Session } from "./session.js";

/**
 * Where a model lies: the address of a package, of a GGUF file (`*.gguf`; of a split one, any part) or of a checkpoint's
 * directory; a hub's `org/name[@revision][/file.gguf]`; a GGUF or `.owpkg` `File`; the `File`s of a split GGUF, a checkpoint or a
 * package, or their directory (folders of Sentence Transformers' modules, as `1_Pooling`, are read, too); `store:` and an id of `store.list()`.
 */
export type ModelSource = string | URL | File | readonly File[] | FileSystemDirectoryHandle;

/** What is said besides a source. */
export interface SourceOptions {
  /** What matrices of a GGUF or checkpoint become in browser storage; `keep` (the default) leaves them as published. */
  quantize?: "q4" | "q8" | "f16" | "keep";
  /** The hub's address; Hugging Face's unless said. */
  hub?: string;
  /** Branch, tag or commit at the hub; `main` unless said. */
  revision?: string;
  /** Your token at the hub. It is sent to that host alone, in a header, and kept nowhere. */
  token?: string;
}

/** How to load a model. */
export interface LoadOptions extends SourceOptions {
  /** `auto` (the default) takes a real GPU where WebGPU offers one, else the CPU. */
  backend?: "auto" | "webgpu" | "cpu";
  /** Tokens of prompt and answer together; at most what the model was made for. */
  contextLength?: number;
  /** Adapters to add at once, in this order. See `Model.adapters`. */
  adapters?: readonly (AdapterSource | (AdapterOptions & { source: AdapterSource }))[];
  /** Threads of the CPU backend, where the page is cross-origin isolated. By default half of the processors, 2 to 8. */
  threads?: number;
  /**
   * Runs the model in a worker that may connect to nothing: its policy has no `connect-src`, and it gets the model's bytes and no
   * address. Download and import happen before, in another worker. A page with a policy of its own must allow `worker-src blob:`.
   */
  private?: boolean;
  /**
   * How the CPU backend rounds activations for quantised weights: to 8 bits (`fast`), and again what that left in the quarter of a
   * row's groups where it is most (`balanced`, the default) or everywhere (`exact`, the slowest).
   */
  precision?: "fast" | "balanced" | "exact";
  /** SHA-256 of the package's `openweights.json`, as `sha256-` and base64: another manifest, and so other weights, is an `integrity` error. */
  integrity?: string;
  /** A public key (PEM or its base64; ECDSA, P-256) that must have signed the package: OpenSSF model signing, `model.sig`. */
  signedBy?: string;
  /** Asks the network for nothing: what is not stored is an `offline` error. */
  offline?: boolean;
  /** Whether to ask the browser to keep what is stored, once a model was stored anew. True unless said otherwise; Firefox asks the person. */
  persist?: boolean;
  /** Cancels loading. What was stored of a download or import so far is kept, never used unfinished. */
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
}

/** Where loading is. Counts are bytes. */
export interface Progress<Phase extends string = "manifest" | "download" | "import" | "load"> {
  /**
   * `manifest` reads headers, `download` and `import` bring files into browser storage, `load` brings weights from there to the device;
   * `verify`, of `store.verify`, hashes what is stored. While another tab downloads the same model, its progress is told.
   */
  phase: Phase;
  loaded: number;
  total: number;
  file?: string; bytesPerSecond?: number; etaSeconds?: number;
  /** Why an import that was under way begins again, such as a source that has changed since; said once. */
  restarted?: string;
}

/** A fact as declared, and the place that declares it: `general.license` of the GGUF, ... */
export interface Declared { value: string; source: string }

/** What the publisher says of a model. Nothing is inferred: what is not declared is `null`. */
export interface Card {
  name: Declared | null;
  publisher: Declared | null;
  license: Declared | null; license_name: Declared | null; license_link: Declared | null;
  base_models: Declared[]; datasets: Declared[]; languages: Declared[];
  origin: Declared | null;
  parameters: number;
  quantisation: string;
  /** Bytes of all weight files. */
  bytes: number;
}

/** What is known of a model before any of its weights is fetched. */
export interface Inspection {
  /** Names the model in the store; your own files have an id once they are stored. */
  id: string | null;
  /** What a stored model was imported as: a package. */
  kind: "package" | "gguf" | "checkpoint";
  card: Card;
  architecture: string;
  /** Bytes to read. */
  bytes: number;
  /** Bytes that it takes in browser storage, with this `quantize`. */
  storage: number;
  /** Whether every file is in browser storage already. */
  stored: boolean;
}

/** What a loaded model runs on. */
export interface ModelInfo {
  backend: "webgpu" | "cpu";
  /** Why this backend. */
  reason: string;
  /** The adapter, in the browser's words, or the kernels that the processor runs. */
  device: string;
  threads: number;
  /** Why there are not more threads. */
  threadsReason: string | null;
  /** Whether the GPU is emulated in software. */
  software: boolean;
  /** Whether the worker may connect to nothing, as `LoadOptions.private` asks. */
  private: boolean;
  architecture: string;
  contextLength: number;
  vocabSize: number;
  /** Where the model is kept: in `memory` it ends with the worker. */
  storage: "files" | "memory";
  /** Why it is memory. */
  storageReason: string | null;
  /** What was verified of its bytes, and what not: "digests match the manifest; signer not verified". */
  verification: string;
  /** Bytes that were fetched again, since the browser, or somebody, had removed them from storage. */
  restored: number;
  /** What an encoder gives; `null` where a model generates text. */
  embedding: EmbeddingInfo | null;
}

/** A request that the engine's worker has made, as the browser's resource timing lists it. */
export interface NetworkRequest {
  url: string;
  /** When it began, in milliseconds since 1970. */
  time: number;
}

/** What an encoder gives. */
export interface EmbeddingInfo {
  /** Elements of an embedding. */
  length: number;
  /** Which tokens an embedding is made of. */
  pooling: "mean" | "cls" | "lasttoken";
}

export interface Message { role: "system" | "user" | "assistant"; content: string }

/** How to sample and when to stop. */
export interface GenerateParams {
  max_tokens?: number;
  /** 0 is greedy: always the most likely token. 1 unless said otherwise. */
  temperature?: number;
  top_p?: number;
  seed?: number;
  stop?: string | string[];
  frequency_penalty?: number;
  presence_penalty?: number;
  /** Beyond OpenAI: sample among the k most likely tokens. */
  top_k?: number;
  /** Beyond OpenAI: ignore tokens less likely than this share of the most likely one. */
  min_p?: number;
  /** Beyond OpenAI: above 1, tokens already seen become less likely. */
  repetition_penalty?: number;
  /** Beyond OpenAI: go on past end tokens, for measuring. */
  ignore_eos?: boolean;
  /** Beyond OpenAI: keep what the last request has computed of the same beginning. True unless said otherwise. */
  reuse_prefix?: boolean;
  /**
   * Beyond OpenAI: on the processor, check several guesses at what follows in one step, copied from prompt and answer, while that is
   * faster; the tokens are the same. True unless said otherwise.
   */
  speculative?: boolean;
  /** Beyond OpenAI: the conversation that this belongs to, from `model.sessions`. */
  session?: Session;
  /** Ends generation; the call, or the loop over the stream, throws `aborted`. */
  signal?: AbortSignal;
}

export interface ChatParams extends GenerateParams { messages: Message[] }

export interface CompletionParams extends GenerateParams {
  /** Raw text: no chat template is applied. */
  prompt: string;
}

export type FinishReason = "stop" | "length";

/** Counts and times of a request. */
export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  /** Beyond OpenAI: prompt tokens that the request before had processed already. */
  reused_tokens: number;
  /** Beyond OpenAI: guesses that were checked, and right ones among them. See `speculative`. */
  drafted_tokens: number;
  accepted_tokens: number;
  /** Beyond OpenAI: from the start to the first token. */
  prefill_ms: number;
  /** Beyond OpenAI: from the first token to the last. */
  decode_ms: number;
}

interface Answer<Kind extends string, Choice> {
  id: string;
  object: Kind;
  /** Seconds since 1970. */
  created: number;
  model: string;
  /** Always one. */
  choices: [Choice & { index: 0; /** Beyond OpenAI: the tokens, the end token too. */ token_ids: number[] }];
}

/** The whole answer to a conversation. */
export interface ChatCompletion
  extends Answer<"chat.completion", { message: { role: "assistant"; content: string }; finish_reason: FinishReason }> {
  usage: Usage;
}

/** One token of the answer; the last chunk has no token: text that was held back, the reason of the end, `usage`. */
export interface ChatCompletionChunk
  extends Answer<"chat.completion.chunk", { delta: { role?: "assistant"; content?: string }; finish_reason: FinishReason | null }> {
  usage?: Usage;
}

/** The whole continuation of a text. */
export interface Completion extends Answer<"text_completion", { text: string; finish_reason: FinishReason }> {
  usage: Usage;
}

/** One token of the continuation; the last chunk has no token: text that was held back, the reason of the end, `usage`. */
export interface CompletionChunk extends Answer<"text_completion", { text: string; finish_reason: FinishReason | null }> {
  usage?: Usage;
}

/** What to embed. A model's own prefixes ("query: ", ...) are the caller's to write. */
export interface EmbeddingParams {
  /** A text or several; each must fit the model's context. */
  input: string | string[];
  /** Ends the work between two texts; the call throws `aborted`. */
  signal?: AbortSignal;
}

/** Embeddings in the order of `input`. */
export interface Embeddings {
  object: "list";
  /** Vectors of length 1. */
  data: { object: "embedding"; index: number; embedding: number[] }[];
  model: string;
  usage: { prompt_tokens: number; total_tokens: number };
}

/**
 * Where a LoRA adapter lies: the address of PEFT's directory (`adapter_config.json`, `adapter_model.safetensors`), of a `.safetensors`
 * file beside its configuration, or of a GGUF file; a hub's `org/name[@revision]`; a GGUF `File`; the `File`s of a PEFT directory,
 * or the directory.
 */
export type AdapterSource = ModelSource;

export interface AdapterOptions extends Omit<SourceOptions, "quantize"> {
  /** Asks the network for nothing: what is not stored is an `offline` error. */
  offline?: boolean;
  /** What to call it; the last part of its source unless said. */
  name?: string;
  /** How much of it to add; 1, what it was trained for, unless said. May be negative. */
  scale?: number;
}

/** An adapter of a loaded model. */
export interface AdapterInfo {
  name: string;
  scale: number;
  kind: "lora" | "dora";
  /** The largest rank of its maps. */
  rank: number;
  /** The published tensors that it changes. */
  tensors: string[];
  /** The base model that it says it was made for. */
  baseModel: string | null;
  /** Whether the model declares that name as its own; `null` where either says nothing. Shapes are checked, names are only said. */
  baseMatches: boolean | null;
}

/** A saved conversation. */
export interface SavedSession {
  name: string;
  tokens: number;
  bytes: number;
  /** Milliseconds since 1970. */
  saved: number;
  /** Whether the model, with its adapters as they are, can restore it. */
  usable: boolean;
}

/** A model, an adapter or a saved session in browser storage. */
export interface StoredModel {
  id: string;
  kind: "model" | "adapter" | "session";
  name: string | null;
  source: string;
  bytes: number;
  /** How many of these are gone from storage; they are fetched again when the model is loaded. */
  missing: number;
}

/** Bytes that this site stores, and may store where the browser tells. */
export interface StorageUsage {
  /** By everything of this site, as the browser estimates it. */
  used: number;
  quota: number | null;
  /** Of stored models and adapters. */
  models: number;
  /** Of what is on its way, or was given up: a download or an import goes on from there, `store.clean()` removes it. */
  unfinished: number;
  /** `memory` where the browser grants no files, as in some private windows: it ends with the worker. */
  kind: "files" | "memory";
  /** Why it is memory. */
  reason: string | null;
  /** Whether the browser has promised not to evict it. */
  persisted: boolean;
}

/** How to verify a stored model. Hub and token are for what is fetched again. */
export interface VerifyOptions extends Pick<SourceOptions, "hub" | "token"> {
  signal?: AbortSignal;
  onProgress?: (progress: Progress<"verify" | "download" | "import">) => void;
}

/** What hashing a stored model has found. */
export interface Verified {
  /** Bytes that were hashed. */
  bytes: number;
  /** Files that were gone or wrong; these were removed. */
  bad: string[];
  /** Whether all is right now. Of an import only what is bad is made again, from as much of its source as that needs. */
  repaired: boolean;
  /** Why not, with an error's code, and what to do: your own files and an adapter have to be loaded again. */
  unrepaired: { code: ErrorCode; message: string } | null;
}
