/** Public keys, in the browser's own cryptography. */
import { OpenWeightsError } from "./errors.js";

/** Whether `signature` (r, then s) is the key's own of `message`. */
export type Check = (message: Uint8Array<ArrayBuffer>, signature: Uint8Array<ArrayBuffer>) => Promise<boolean>;

/** A check with a public key, PEM or the base64 inside it: ECDSA on P-256 with SHA-256. */
export async function checkWith(key: string): Promise<Check> {
  try {
    const base64 = key.replace(/-----(BEGIN|END) PUBLIC KEY-----|\s/g, "");
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const known = await crypto.subtle.importKey("spki", bytes, { name: "ECDSA", namedCurve: "P-256" }, false, ["verify"]);
    return (message, signature) => crypto.subtle.verify({ name: "ECDSA", hash: "SHA-256" }, known, signature, message);
  } catch {
    throw new OpenWeightsError("invalid_input", "signedBy is no public key that can be used here: PEM or base64 of an ECDSA key on P-256, on a page with https");
  }
}
