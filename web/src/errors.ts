/** Errors, in words for the person in front of the page. */
import { OpenWeightsError, type ErrorCode } from "openweights";
import { box, button } from "./dom.js";

const titles: Partial<Record<ErrorCode, string>> = {
  not_found: "The model was not found.",
  integrity: "The download is damaged and was thrown away.",
  quota: "There is not enough room in this browser's storage.",
  unsupported_architecture: "This kind of model does not run here yet.",
  unsupported_format: "This file format does not run here yet.",
  invalid_file: "The model's files are not valid.",
  context_overflow: "The conversation is too long for this model.",
  out_of_memory: "This device has too little memory for the model.",
  no_webgpu: "This browser has no WebGPU.",
  device_lost: "The graphics card stopped answering.",
  network: "The server did not answer as it should.",
  offline: "There is no network, and the model is not stored here yet.",
};

export function showError(error: unknown): void {
  const code = error instanceof OpenWeightsError ? error.code : "internal";
  box("error-title").textContent = titles[code] ?? "Something went wrong.";
  box("error-text").textContent = error instanceof Error ? error.message : String(error);
  box("error").dataset.code = code;
  box("error").hidden = false;
  if (code === "internal") console.error(error);
}

export function clearError(): void {
  box("error").hidden = true;
}

button("error-close").onclick = clearError;

export function isAbort(error: unknown): boolean {
  return error instanceof OpenWeightsError && error.code === "aborted";
}
