/** The conversations that are kept in this browser: as they are, or sealed if the person has set a passphrase. */
import type { Conversation } from "./conversation.js";
import { openDatabase, read, readAll, write } from "./database.js";
import { makeLock, openLock, seal, unseal, type Lock, type Sealed } from "./vault.js";

/** A stored conversation. Sealed, nothing of it shows but its random id and its length. */
type Stored = { plain: Conversation } | { sealed: Sealed };

/** The passphrase is needed, or needed again. */
export class LockedError extends Error {}

export class Archive {
  readonly #database: IDBDatabase;
  #lock: Lock | undefined;
  #key: CryptoKey | undefined;

  private constructor(database: IDBDatabase) {
    this.#database = database;
  }

  static async open(): Promise<Archive> {
    const archive = new Archive(await openDatabase());
    await archive.#refresh();
    return archive;
  }

  get state(): "plain" | "locked" | "unlocked" {
    return this.#lock ? (this.#key ? "unlocked" : "locked") : "plain";
  }

  /** Whether this was the passphrase. */
  async unlock(passphrase: string): Promise<boolean> {
    await this.#refresh();
    if (this.#lock) this.#key = await openLock(this.#lock, passphrase);
    return this.state !== "locked";
  }

  /** Forgets the key. */
  lock(): void {
    this.#key = undefined;
  }

  /** All of them, the latest first. */
  all(): Promise<Conversation[]> {
    return this.#alone(() => this.#read());
  }

  save(conversation: Conversation): Promise<void> {
    return this.#alone(async () => {
      const stored = await this.#stored(conversation, this.#key);
      await write(this.#database, (store) => store("conversations").put(stored, conversation.id));
    });
  }

  remove(id: string): Promise<void> {
    return this.#alone(() => write(this.#database, (store) => store("conversations").delete(id)));
  }

  /** Sets, changes or (with nothing) removes the passphrase: every conversation is rewritten in one transaction, or none. */
  setPassphrase(passphrase: string | undefined): Promise<void> {
    return this.#alone(async () => {
      const conversations = await this.#read();
      const { lock, key } = passphrase === undefined ? { lock: undefined, key: undefined } : await makeLock(passphrase);
      const stored = await Promise.all(conversations.map(async (one) => [one.id, await this.#stored(one, key)] as const));
      await write(this.#database, (store) => {
        store("conversations").clear();
        for (const [id, one] of stored) store("conversations").put(one, id);
        if (lock) store("vault").put(lock, "lock");
        else store("vault").delete("lock");
      });
      this.#lock = lock;
      this.#key = key;
    });
  }

  close(): void {
    this.#database.close();
  }

  /** Runs `task` while no other tab writes, and only with the key that counts now. */
  #alone<T>(task: () => Promise<T>): Promise<T> {
    return navigator.locks.request("openweights-conversations", async () => {
      await this.#refresh();
      if (this.state === "locked") throw new LockedError("The conversations are locked: enter the passphrase.");
      return task();
    }) as Promise<T>;
  }

  /** Another tab may have set, changed or removed the passphrase. */
  async #refresh(): Promise<void> {
    const lock = await read<Lock>(this.#database, "vault", "lock");
    if (lock?.generation === this.#lock?.generation) return;
    this.#lock = lock;
    this.#key = undefined;
  }

  async #read(): Promise<Conversation[]> {
    const all = await readAll<Stored>(this.#database, "conversations");
    const opened = await Promise.all(all.map(([id, stored]) => ("plain" in stored ? stored.plain : unseal<Conversation>(this.#key as CryptoKey, id, stored.sealed))));
    return opened.sort((a, b) => b.updated - a.updated);
  }

  async #stored(conversation: Conversation, key: CryptoKey | undefined): Promise<Stored> {
    return key ? { sealed: await seal(key, conversation.id, conversation) } : { plain: conversation };
  }
}
