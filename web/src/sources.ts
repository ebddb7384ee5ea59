/**
 * Whom models may be fetched from. The worker's policy names the hub; the service worker, which sets it, adds the hosts that the
 * person allowed here.
 */
import { box, button } from "./dom.js";
import { CHOSEN, HUB } from "./policy.js";

/** What was to be opened when the page was reloaded. */
const PENDING = "open-after-reload";

/** The origin that `text` would be fetched from, if the policy does not allow it yet. */
export async function forbidden(text: string): Promise<string | undefined> {
  // Without the service worker nobody would set another policy: the engine says what became of it.
  if (!navigator.serviceWorker?.controller || !/^https?:/i.test(text) || !URL.canParse(text)) return undefined;
  const { origin, host } = new URL(text);
  const hub = HUB.some((pattern) => pattern === origin || (pattern.includes("*.") && host.endsWith(pattern.split("*").pop() as string)));
  return hub || origin === location.origin || (await chosen()).includes(origin) ? undefined : origin;
}

async function chosen(): Promise<string[]> {
  const answer = await caches.match(CHOSEN.key, { cacheName: CHOSEN.cache });
  return answer ? answer.json() : [];
}

async function choose(origins: readonly string[]): Promise<void> {
  const cache = await caches.open(CHOSEN.cache);
  await cache.put(CHOSEN.key, new Response(JSON.stringify(origins)));
}

/** Asks whether `origin` may be connected to from now on; a yes reloads the page, which then opens `text`. */
export function ask(origin: string, text: string): void {
  box("allow-origin").textContent = origin;
  box("allow").hidden = false;
  button("allow-yes").onclick = async () => {
    await choose([...(await chosen()), origin]);
    sessionStorage.setItem(PENDING, text);
    location.reload();
  };
  button("allow-no").onclick = () => {
    box("allow").hidden = true;
  };
  button("allow-yes").focus();
}

/** What the person wanted to open before the reload, once. */
export function takePending(): string | null {
  const text = sessionStorage.getItem(PENDING);
  sessionStorage.removeItem(PENDING);
  return text;
}

/** Shows the hosts that were allowed, each with a way to take it back. */
export async function showChosen(): Promise<void> {
  const origins = await chosen();
  box("chosen").hidden = !origins.length;
  box("chosen-list").textContent = origins.join(", ");
  button("chosen-clear").onclick = async () => {
    await caches.delete(CHOSEN.cache);
    location.reload();
  };
}
