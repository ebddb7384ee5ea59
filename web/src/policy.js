// The page's Content-Security-Policy: what it may load, and whom it may ask. Used by the page, its service worker and the build.

/** Where models are fetched from besides the page's own server: the hub, and the stores that it redirects to. */
export const HUB = ["https://huggingface.co", "https://*.hf.co"];

/** Where the service worker keeps what the person allowed besides: a cache of its own, with one answer. */
export const CHOSEN = { cache: "openweights-sources", key: "./chosen-sources" };

const BASE = [
  "default-src 'self'",
  "script-src 'self' 'wasm-unsafe-eval'",
  "style-src 'self'",
  "img-src 'self'",
  "worker-src 'self' blob:", // blob: for a private model's worker, which has a stricter policy than the page
  "object-src 'none'",
  "base-uri 'none'",
  "form-action 'none'",
];

const join = (/** @type {readonly string[]} */ directives) => directives.join("; ");

/** The page's own, in its `<meta>`: it asks its own server only. What fetches models is the worker. */
export const pagePolicy = join([...BASE, "connect-src 'self'"]);

/**
 * As a header, on every answer: a worker has the policy of its own script's answer. The page obeys both.
 * @param {readonly string[]} sources where models may be fetched from
 */
export const headerPolicy = (sources) => join([...BASE, `connect-src ${["'self'", ...sources].join(" ")}`, "frame-ancestors 'none'"]);

/** Headers that isolate the page from other origins: threads need memory that they share. */
export const ISOLATION = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
  "cross-origin-resource-policy": "same-origin",
};
