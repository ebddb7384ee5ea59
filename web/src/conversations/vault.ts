/**
 * Encryption at rest: a key from the passphrase (PBKDF2 with SHA-256), each record sealed with AES-256-GCM under an IV of its own.
 * The key cannot be read out, even by this page, and is nowhere but in memory.
 */

/** What OWASP asks of PBKDF2 with SHA-256. */
const ITERATIONS = 600_000;
const CHECK = "check";

export interface Sealed {
  iv: Uint8Array<ArrayBuffer>;
  bytes: ArrayBuffer;
}

/** What is stored of a passphrase: how to make the key from it, and something to try the key on. */
export interface Lock {
  /** Another one with each change, so that a tab notices a change by another. */
  generation: string;
  salt: Uint8Array<ArrayBuffer>;
  iterations: number;
  check: Sealed;
}

const utf8 = (text: string) => new TextEncoder().encode(text);
const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));

async function derive(passphrase: string, { salt, iterations }: Pick<Lock, "salt" | "iterations">): Promise<CryptoKey> {
  // NFKC: the same characters, typed on another keyboard, are the same passphrase.
  const material = await crypto.subtle.importKey("raw", utf8(passphrase.normalize("NFKC")), "PBKDF2", false, ["deriveKey"]);
  const method = { name: "PBKDF2", hash: "SHA-256", salt, iterations };
  return crypto.subtle.deriveKey(method, material, { name: "AES-GCM", length: 256 }, false, ["encrypt", "decrypt"]);
}

/** A new lock and its key. */
export async function makeLock(passphrase: string): Promise<{ lock: Lock; key: CryptoKey }> {
  const how = { salt: random(16), iterations: ITERATIONS };
  const key = await derive(passphrase, how);
  return { lock: { ...how, generation: crypto.randomUUID(), check: await seal(key, CHECK, null) }, key };
}

/** The key of `lock`; nothing if the passphrase is another. */
export async function openLock(lock: Lock, passphrase: string): Promise<CryptoKey | undefined> {
  const key = await derive(passphrase, lock);
  return (await unseal(key, CHECK, lock.check).then(() => true, () => false)) ? key : undefined;
}

/** Seals `value` under `name`: a record that is put in another's place does not open. */
export async function seal(key: CryptoKey, name: string, value: unknown): Promise<Sealed> {
  const iv = random(12);
  return { iv, bytes: await crypto.subtle.encrypt({ name: "AES-GCM", iv, additionalData: utf8(name) }, key, utf8(JSON.stringify(value))) };
}

/** Rejects if key, name or bytes are others. */
export async function unseal<T>(key: CryptoKey, name: string, { iv, bytes }: Sealed): Promise<T> {
  const plain = await crypto.subtle.decrypt({ name: "AES-GCM", iv, additionalData: utf8(name) }, key, bytes);
  return JSON.parse(new TextDecoder().decode(plain)) as T;
}
