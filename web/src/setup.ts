/** Choosing and loading a model: card first, then the download, with progress and a way out. */
import { inspect, load, store, type Inspection, type Model, type Progress } from "openweights";
import { renderCard } from "./card.js";
import { box, button, element, make } from "./dom.js";
import { clearError, isAbort, showError } from "./errors.js";
import * as format from "./format.js";

interface Listed {
  label: string;
  url: string;
}

const select = element("model", HTMLSelectElement);
const loadButton = button("load");
const removeButton = button("remove");
let shown: Inspection | undefined;

/** Fills the list of models and shows the first one's card. */
export async function startSetup(onLoaded: (model: Model) => void): Promise<void> {
  select.onchange = () => showCard();
  loadButton.onclick = () => loadModel(onLoaded);
  removeButton.onclick = removeModel;
  try {
    const answer = await fetch("./models.json");
    if (!answer.ok) throw new Error(`models.json: the server answered ${answer.status}`);
    for (const { label, url } of (await answer.json()) as Listed[]) select.append(new Option(label, url));
  } catch (error) {
    showError(error);
    return;
  }
  await showCard();
}

/** Reads the chosen model's manifest; no weight is fetched. */
export async function showCard(): Promise<void> {
  const source = select.value;
  shown = undefined;
  loadButton.disabled = true;
  removeButton.hidden = true;
  try {
    const inspection = await inspect(source);
    if (source !== select.value) return;
    shown = inspection;
    box("card").replaceChildren(renderCard(inspection.card, inspection.bytes));
    loadButton.textContent = inspection.stored ? "Load from this device" : `Load (${format.bytes(inspection.bytes)})`;
    loadButton.disabled = false;
    removeButton.hidden = !inspection.stored;
    clearError();
  } catch (error) {
    if (source !== select.value) return;
    box("card").replaceChildren(make("p", "The model's card could not be read.", "muted"));
    showError(error);
  }
}

async function loadModel(onLoaded: (model: Model) => void): Promise<void> {
  clearError();
  const cancel = new AbortController();
  button("cancel").onclick = () => cancel.abort();
  busy(true);
  try {
    onLoaded(await load(select.value, { signal: cancel.signal, onProgress: showProgress }));
    busy(false);
  } catch (error) {
    await showCard();
    busy(false);
    focusSetup();
    if (!isAbort(error)) showError(error);
  }
}

async function removeModel(): Promise<void> {
  if (!shown?.id) return;
  const failed = await store.remove(shown.id).catch((error: unknown) => ({ error }));
  await showCard();
  focusSetup();
  if (failed) showError(failed.error);
}

/** To what is likely wanted next: the button that had the focus may be gone. */
export function focusSetup(): void {
  (loadButton.disabled ? select : loadButton).focus();
}

function busy(on: boolean): void {
  box("progress").hidden = !on;
  box("actions").hidden = on;
  select.disabled = on;
  if (on) {
    box("progress-phase").textContent = "Starting…";
    box("progress-numbers").textContent = "";
    element("progress-bar", HTMLProgressElement).removeAttribute("value");
    button("cancel").focus();
  }
}

function showProgress({ phase, loaded, total, bytesPerSecond, etaSeconds }: Progress): void {
  box("progress-phase").textContent = phase === "download" ? "Downloading" : "Preparing";
  const numbers = [`${format.bytes(loaded)} of ${format.bytes(total)}`];
  if (phase === "download" && bytesPerSecond) numbers.push(`${format.bytes(bytesPerSecond)}/s`);
  if (phase === "download" && etaSeconds !== undefined) numbers.push(`${format.duration(etaSeconds)} left`);
  box("progress-numbers").textContent = numbers.join(" · ");
  element("progress-bar", HTMLProgressElement).value = total ? loaded / total : 0;
}
