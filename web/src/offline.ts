/** The service worker: the page without a network, its isolation where the server does not set headers, and its next version. */
import { showNotice } from "./notice.js";

/** Set in a tab that was reloaded to become isolated: where that does not help, once is enough. */
const RELOADED = "reloaded-for-isolation";

const reload = () => location.reload();

/** `isIdle` says whether a reload would disturb nobody. */
export async function startOffline(isIdle: () => boolean): Promise<void> {
  if (!navigator.serviceWorker) return; // a private window, or no https
  const registration = await navigator.serviceWorker.register("sw.js", { updateViaCache: "none" });
  announce(registration);
  await navigator.serviceWorker.ready;
  isolate(isIdle);
}

/** Says so when a new version is there. It takes over when the person wants it, never in the middle of a chat. */
function announce(registration: ServiceWorkerRegistration): void {
  const offer = () => {
    const { waiting } = registration;
    if (waiting && registration.active) showNotice("A new version is ready.", "Reload", () => update(waiting));
  };
  offer();
  registration.onupdatefound = () => registration.installing?.addEventListener("statechange", offer);
}

function update(waiting: ServiceWorker): void {
  navigator.serviceWorker.oncontrollerchange = reload;
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = ({ data: others }: MessageEvent<number>) => {
    const tabs = others === 1 ? "the other tab" : `the ${others} other tabs`;
    if (others) showNotice(`A new version is ready. Close ${tabs} of this page first.`, "Reload", () => update(waiting));
  };
  waiting.postMessage("update", [port2]);
}

/** The service worker's answers have the headers that isolate a page, so the next load is isolated. */
function isolate(isIdle: () => boolean): void {
  if (crossOriginIsolated) return sessionStorage.removeItem(RELOADED);
  if (sessionStorage.getItem(RELOADED)) return;
  sessionStorage.setItem(RELOADED, "yes");
  if (isIdle()) reload();
  else showNotice("After a reload this page can use more of the processor.", "Reload", reload);
}
