/**
 * Counts every request since the model was loaded, in two ways: the browser's resource timing, in this page and in the engine's
 * worker, lists what has ended; the service worker, through which all requests of both pass, tells when one begins.
 */
import type { Model, NetworkRequest } from "openweights";
import { box, make } from "./dom.js";

const mine: NetworkRequest[] = [];
const passed: NetworkRequest[] = [];
let model: Model | undefined;
let since = 0;

/** Starts to count anew, for `loaded`. */
export async function startMeter(loaded: Model): Promise<void> {
  model = loaded;
  since = performance.timeOrigin + performance.now();
  await showRequests();
}

/** Asks the worker, and shows what there is. */
export async function showRequests(): Promise<void> {
  const asked = model;
  const theirs = (await asked?.requests().catch(() => [])) ?? [];
  if (asked !== model) return;
  const recent = (requests: NetworkRequest[]) => requests.filter(({ time }) => time >= since).sort((a, b) => a.time - b.time);
  const [timed, seen] = [recent([...mine, ...theirs]), recent(passed)];
  const all = seen.length > timed.length ? seen : timed; // each misses some; none lists a request twice
  const text = `${all.length} ${all.length === 1 ? "request" : "requests"} since the model was loaded`;
  if (box("meter-count").textContent !== text) box("meter-count").textContent = text;
  box("meter").classList.toggle("some", all.length > 0);
  box("meter-list").replaceChildren(...all.map(({ url, time }) => make("li", `${new Date(time).toLocaleTimeString()} ${url}`)));
}

const note = (list: NetworkRequest[], ...requests: NetworkRequest[]) => {
  list.push(...requests);
  if (model) void showRequests();
};

navigator.serviceWorker?.addEventListener("message", ({ data }: MessageEvent<NetworkRequest>) => note(passed, data));
navigator.serviceWorker?.startMessages();
new PerformanceObserver((list) => {
  note(mine, ...list.getEntries().map(({ name, startTime }) => ({ url: name, time: performance.timeOrigin + startTime })));
}).observe({ type: "resource", buffered: true });

box("meter").ontoggle = () => void showRequests();
