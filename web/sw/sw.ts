/**
 * The service worker: keeps the page, its scripts and the build of the engine that this browser runs, all of one version, so that
 * the page opens without a network; and sets the headers that a static host may be unable to set.
 *
 * What is not part of the page, models above all, it leaves to the browser.
 */
import { PrecacheController, PrecacheRoute, type PrecacheEntry } from "workbox-precaching";
import { registerRoute } from "workbox-routing";
import { variant } from "../../pkg/dist/variant.js";
import { CHOSEN, ISOLATION, headerPolicy } from "../src/policy.js";

/** Every file of the page, with its digest; and whom models may be fetched from. The build puts them in. */
declare const FILES: PrecacheEntry[];
declare const SOURCES: string[];
declare const self: ServiceWorkerGlobalScope;

/** Hosts that the person allowed. */
async function chosen(): Promise<string[]> {
  if (!(await caches.has(CHOSEN.cache))) return []; // looking must not make one
  const answer = await (await caches.open(CHOSEN.cache)).match(CHOSEN.key);
  return answer ? answer.json() : [];
}

async function withHeaders(response: Response): Promise<Response> {
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(ISOLATION)) headers.set(name, value);
  headers.set("content-security-policy", headerPolicy([...SOURCES, ...(await chosen())]));
  const { body, status, statusText } = response;
  return new Response(body, { status, statusText, headers });
}

const other = variant() === "simd128" ? "relaxed-simd" : "simd128";
const precache = new PrecacheController({
  plugins: [{
    // Asks whether what the page has just fetched is current, instead of fetching it again; the digest decides in any case.
    requestWillFetch: async ({ request, event }) => (event?.type === "install" ? new Request(request, { cache: "no-cache" }) : request),
    handlerWillRespond: ({ response }) => withHeaders(response),
  }],
});
precache.precache(FILES.filter(({ url }) => !url.includes(other)));
registerRoute(new PrecacheRoute(precache));

// The first visit is served from here on, too. A newer version waits until the page asks for it.
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

/** Tells a page of the requests that it makes, and every page of those of workers, whose page nobody tells: for the meter. */
self.addEventListener("fetch", ({ request: { url }, clientId }) => {
  const told = { url, time: Date.now() };
  void self.clients.get(clientId).then(async (client) => {
    const pages = client?.type === "window" ? [client] : client ? await self.clients.matchAll({ type: "window" }) : [];
    pages.forEach((page) => page.postMessage(told));
  });
});

/** Takes over, unless other tabs run the version before: answers how many there are. */
async function update(): Promise<number> {
  const pages = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  const others = pages.filter(({ url, frameType }) => frameType !== "nested" && url.startsWith(self.registration.scope)).length - 1;
  if (others < 1) await self.skipWaiting();
  return others;
}

self.addEventListener("message", (event) => {
  if (event.data === "update") event.waitUntil(update().then((others) => event.ports[0]?.postMessage(others)));
});
