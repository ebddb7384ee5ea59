/** Calls from the page to the worker: one message out, any number of events back, then a result or an error. */
import { OpenWeightsError, aborted, asError, missing, type ErrorCode } from "./errors.js";
import { variant } from "./variant.js";

/** Page to worker. `abort` names the call to end. */
export type Request = { id: number; method: string; args: unknown[] } | { abort: number };

/** Worker to page. */
export type Response =
  | { id: number; event: unknown }
  | { id: number; result: unknown }
  | { id: number; error: { code: ErrorCode; message: string } };

interface Pending {
  onEvent: ((event: never) => void) | undefined;
  resolve: (result: never) => void;
  reject: (error: OpenWeightsError) => void;
}

// Whole expressions: so bundlers find the scripts.
const start = (): Worker => variant() === "relaxed-simd"
  ? new Worker(new URL("./relaxed-simd.js", import.meta.url), { type: "module" })
  : new Worker(new URL("./simd128.js", import.meta.url), { type: "module" });

/** A worker and the calls that it has not answered yet. */
export class Remote {
  readonly #worker: Worker;
  readonly #end: () => void;
  readonly #pending = new Map<number, Pending>();
  #next = 0;
  #closed: OpenWeightsError | undefined;

  /** `end` ends the worker and what came with it. */
  constructor(worker = start(), end = () => worker.terminate()) {
    this.#worker = worker;
    this.#end = end;
    worker.onmessage = ({ data }: MessageEvent<Response>) => this.#receive(data);
    worker.onerror = (event) => {
      event.preventDefault();
      const { message } = event; // a script that did not arrive has none
      this.close(message ? new OpenWeightsError("internal", `the worker failed: ${message}`) : missing("the worker", "no script"));
    };
  }

  /** `idle` has nothing to answer, `closed` never will. */
  get state(): "busy" | "idle" | "closed" {
    if (this.#closed) return "closed";
    return this.#pending.size ? "busy" : "idle";
  }

  /** Calls `method` in the worker. An abort rejects at once; the worker is told, and what it still says is ignored. */
  call<Result, Event = never>(
    method: string,
    args: unknown[],
    { onEvent, signal }: { onEvent?: ((event: Event) => void) | undefined; signal?: AbortSignal | undefined } = {},
  ): Promise<Result> {
    if (this.#closed) return Promise.reject(this.#closed);
    if (signal?.aborted) return Promise.reject(aborted());
    const id = this.#next++;
    try {
      this.#worker.postMessage({ id, method, args } satisfies Request);
    } catch (error) {
      return Promise.reject(new OpenWeightsError("invalid_input", asError(error).message)); // a function, say, in a request
    }
    const abort = () => {
      this.#worker.postMessage({ abort: id } satisfies Request);
      this.#receive({ id, error: aborted() });
    };
    const answer = new Promise<Result>((resolve, reject) => this.#pending.set(id, { onEvent, resolve, reject }));
    signal?.addEventListener("abort", abort);
    return answer.finally(() => signal?.removeEventListener("abort", abort));
  }

  /** Ends the worker; calls without an answer, and later ones, fail with `reason`. */
  close(reason: OpenWeightsError): void {
    if (this.#closed) return;
    this.#closed = reason;
    this.#end();
    for (const { reject } of this.#pending.values()) reject(reason);
    this.#pending.clear();
  }

  #receive(message: Response): void {
    const call = this.#pending.get(message.id);
    if (!call) return;
    if ("event" in message) return call.onEvent?.(message.event as never);
    this.#pending.delete(message.id);
    if ("error" in message) call.reject(asError(message.error));
    else call.resolve(message.result as never);
  }
}

/**
 * The events that `start` pushes, as an `AsyncIterable` that ends when its promise does; leaving the loop early calls `stop`.
 * Resolves at the first event, so that a request refused at once rejects here and not in the loop.
 */
export async function stream<Event>(
  start: (push: (event: Event) => void) => Promise<unknown>,
  stop: () => void,
): Promise<AsyncGenerator<Event, void, undefined>> {
  const queue: Event[] = [];
  let wake = () => {};
  let end: { error?: unknown } | undefined;
  const finish = (how: { error?: unknown }) => {
    end = how;
    wake();
  };
  const more = () => new Promise<void>((resolve) => (wake = resolve));
  const push = (event: Event) => {
    queue.push(event);
    wake();
  };
  start(push).then(() => finish({}), (error) => finish({ error }));
  await more();
  if (end && "error" in end && !queue.length) throw end.error;

  async function* events(): AsyncGenerator<Event, void, undefined> {
    try {
      for (;;) {
        while (queue.length) yield queue.shift() as Event;
        if (end) break;
        await more();
      }
    } finally {
      if (!end) stop();
    }
    if ("error" in end) throw end.error;
  }
  return events();
}
