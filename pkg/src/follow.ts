/** Two tabs that load one model: one of them downloads, and the other shows how far that is. */
import type { Progress } from "./types.js";

interface Told { key: string; progress: Progress }

/**
 * What to call with a load's own progress; until there is any but its beginning, `emit` gets that of a tab that loads `key`. Ends
 * with `done`.
 */
export function follow(key: unknown, emit: (progress: Progress) => void): { tell: (progress: Progress) => void; done: () => void } {
  if (typeof key !== "string" || !("BroadcastChannel" in globalThis)) return { tell: emit, done: () => {} };
  const tabs = new BroadcastChannel("openweights-progress");
  let waiting = true;
  tabs.onmessage = ({ data }: MessageEvent<Told>) => {
    if (waiting && data.key === key) emit(data.progress);
  };
  const tell = (progress: Progress) => {
    waiting &&= progress.phase === "manifest";
    if (progress.phase === "download" || progress.phase === "import") tabs.postMessage({ key, progress } satisfies Told);
    emit(progress);
  };
  return { tell, done: () => tabs.close() };
}
