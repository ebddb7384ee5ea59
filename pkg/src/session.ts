/** A conversation with a model, beside others: what it has computed stays, so that each request computes only what is new. */
import type { Remote } from "./rpc.js";
import type { SavedSession } from "./types.js";

export class Session {
  /** @internal The engine's number of it. */
  readonly id: number;
  readonly #remote: Remote;

  /** @internal */
  constructor(remote: Remote, id: number) {
    this.#remote = remote;
    this.id = id;
  }

  /** The tokens that it holds: prompts and answers, but for an answer's last token. */
  tokens(): Promise<Uint32Array> {
    return this.#remote.call("sessionTokens", [this.id]);
  }

  /** A new session that holds the same; from here on they know nothing of each other. */
  async fork(): Promise<Session> {
    return new Session(this.#remote, await this.#remote.call<number>("forkSession", [this.id]));
  }

  /** Forgets all but the first `tokens` tokens; resolves to how many are left: none where a convolution's state does not go back so far. */
  truncate(tokens: number): Promise<number> {
    return this.#remote.call("truncateSession", [this.id, tokens]);
  }

  /** Saves it in browser storage, in place of what this model has saved under that name. It can be read there: it is not encrypted. */
  save(name: string = crypto.randomUUID()): Promise<SavedSession> {
    return this.#remote.call("saveSession", [this.id, name]);
  }

  /** Frees its memory; requests in it fail with `not_found` then. What is saved stays saved. */
  close(): Promise<void> {
    return this.#remote.call("closeSession", [this.id]);
  }
}
