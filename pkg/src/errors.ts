/** What went wrong, for programs. The set may grow; a code's meaning does not change. */
export type ErrorCode =
  | "not_found" | "integrity" | "quota" | "network" | "offline" | "storage"
  | "unsupported_architecture" | "unsupported_format" | "invalid_file"
  | "invalid_input" | "context_overflow" | "aborted"
  | "out_of_memory" | "no_webgpu" | "device_lost" | "device"
  | "internal";

/** The only error that this package throws. `message` is for people, `code` for programs. */
export class OpenWeightsError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string) {
    super(message);
    this.name = "OpenWeightsError";
    this.code = code;
  }
}

export const aborted = () => new OpenWeightsError("aborted", "aborted");

/** What the package itself is made of did not arrive. */
export const missing = (what: string, why: string) =>
  new OpenWeightsError(navigator.onLine ? "network" : "offline", `${what} could not be loaded: ${why}`);

/** The same error with a `code`, whatever was thrown: wasm throws `{ code, message }`, a trap throws anything. */
export function asError(thrown: unknown): OpenWeightsError {
  if (thrown instanceof OpenWeightsError) return thrown;
  const { code, message } = (thrown ?? {}) as { code?: unknown; message?: unknown };
  const text = typeof message === "string" ? message : String(thrown);
  return new OpenWeightsError(typeof code === "string" ? (code as ErrorCode) : "internal", text);
}
