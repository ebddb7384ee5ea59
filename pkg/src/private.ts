/**
 * A worker that may connect to nothing: its policy has no `connect-src`.
 *
 * A worker made of a `blob:` has the policy of the document that made it. So a frame with a stricter policy than the page's makes
 * it, of a script without imports; the page fetches that script and the wasm, and hands them over.
 */
import { OpenWeightsError, missing } from "./errors.js";
import { variant } from "./variant.js";

/** No connection, no script from anywhere, no frame or image: only a worker made of a blob, and wasm in it. */
const POLICY = "default-src 'none'; script-src 'wasm-unsafe-eval'; worker-src blob:";

// Whole expressions: so bundlers find the files.
const parts = {
  "relaxed-simd": () => [new URL("./private/relaxed-simd.js", import.meta.url), new URL("../wasm/relaxed-simd/openweights_bg.wasm", import.meta.url)],
  simd128: () => [new URL("./private/simd128.js", import.meta.url), new URL("../wasm/simd128/openweights_bg.wasm", import.meta.url)],
};

async function bytes(url: URL): Promise<ArrayBuffer> {
  const answer = await fetch(url).catch((error) => ({ ok: false, status: String(error) }) as const);
  if (!answer.ok) throw missing(url.pathname.split("/").pop() ?? "", `the server answered ${answer.status}`);
  return (answer as Response).arrayBuffer();
}

/** The worker, and what ends it. */
export async function startPrivate(): Promise<{ worker: Worker; end: () => void }> {
  if (!globalThis.document) throw new OpenWeightsError("invalid_input", "private: there is no document here, whose frame could start the worker");
  const [script, wasm] = await Promise.all(parts[variant()]().map(bytes));
  const frame = document.createElement("iframe");
  frame.hidden = true;
  frame.title = "the engine, without a network";
  frame.srcdoc = `<meta http-equiv="Content-Security-Policy" content="${POLICY}">`;
  const loaded = new Promise((resolve) => (frame.onload = resolve));
  document.documentElement.append(frame);
  await loaded;
  // Everything of the frame's own: its policy counts.
  const { Worker, Blob, URL } = frame.contentWindow as unknown as typeof globalThis;
  const address = URL.createObjectURL(new Blob([script as ArrayBuffer], { type: "text/javascript" })); // stays: threads start from it, too
  const worker = new Worker(address);
  worker.postMessage({ wasm }, [wasm as ArrayBuffer]);
  const end = () => {
    worker.terminate();
    URL.revokeObjectURL(address);
    frame.remove();
  };
  return { worker, end };
}
