/** Choosing and loading a model: card first, then the download or import, with progress and a way out. */
import { inspect, load, store, type Inspection, type Model, type ModelSource, type Progress, type SourceOptions } from "openweights";
import { renderCard } from "./card.js";
import { box, button, element, make } from "./dom.js";
import { clearError, isAbort, showError } from "./errors.js";
import * as format from "./format.js";
import { showNotice } from "./notice.js";
import { startOpen, type Opened } from "./open.js";
import { ask, forbidden, showChosen, takePending } from "./sources.js";

interface Listed {
  label: string;
  url: string;
}

/** What an option of the list stands for. */
interface Choice {
  source: ModelSource;
  options: SourceOptions;
  option: HTMLOptionElement;
}

const select = element("model", HTMLSelectElement);
const quantize = element("quantize", HTMLSelectElement);
const loadButton = button("load");
const removeButton = button("remove");
const choices: Choice[] = [];
let shown: Inspection | undefined;
let latest: Choice | undefined;
let loading: AbortController | undefined;
/** Counts the cards that were asked for: only the last one is shown. */
let asked = 0;

/** Fills the list of models and shows the first one's card. */
export async function startSetup(onLoaded: (model: Model) => Promise<void>): Promise<void> {
  select.onchange = () => showCard();
  quantize.onchange = () => showCard();
  loadButton.onclick = () => loadModel(onLoaded);
  removeButton.onclick = removeModel;
  startOpen(open, showError);
  void showChosen();
  try {
    const answer = await fetch("./models.json");
    if (!answer.ok) throw new Error(`models.json: the server answered ${answer.status}`);
    for (const { label, url } of (await answer.json()) as Listed[]) add({ label, source: url, options: {} });
  } catch (error) {
    showError(error);
  }
  await addStored().catch(showError);
  const pending = takePending();
  if (pending) add({ label: pending, source: pending, options: {} });
  if (pending) select.selectedIndex = choices.length - 1;
  await showCard();
}

function add({ label, source, options }: Opened): void {
  const option = new Option(label);
  select.append(option);
  choices.push({ source, options, option });
}

/** What was opened before stays in the list: it is on this device. */
async function addStored(): Promise<void> {
  const listed = choices.map(({ source }) => new URL(String(source), document.baseURI).href);
  for (const { id, kind, name, source } of await store.list()) {
    if (kind === "model" && !listed.includes(source)) add({ label: `${name ?? id} (on this device)`, source: `store:${id}`, options: {} });
  }
}

async function open(opened: Opened): Promise<void> {
  const { source } = opened;
  const origin = typeof source === "string" ? await forbidden(source) : undefined;
  box("allow").hidden = !origin;
  if (origin) return ask(origin, String(source));
  add(opened);
  select.selectedIndex = choices.length - 1;
  await showCard();
  focusSetup();
}

const chosen = () => choices[select.selectedIndex];

/** Formats that can be made smaller. */
const isFloat = ({ kind, card }: Inspection) => kind !== "package" && ["f32", "f16", "bf16"].includes(card.quantisation);

function options({ options }: Choice): SourceOptions {
  return box("precision").hidden ? options : { ...options, quantize: quantize.value as NonNullable<SourceOptions["quantize"]> };
}

/** Reads the chosen model's headers; no weight is fetched. */
export async function showCard(): Promise<void> {
  const [choice, turn] = [chosen(), ++asked];
  if (choice !== latest) box("precision").hidden = true;
  latest = choice;
  shown = undefined;
  loadButton.disabled = true;
  removeButton.hidden = true;
  if (!choice) return box("card").replaceChildren(make("p", "No model is listed here: open one of your own.", "muted"));
  try {
    let inspection = await inspect(choice.source, options(choice));
    if (turn !== asked) return;
    if (box("precision").hidden && isFloat(inspection)) {
      box("precision").hidden = false;
      inspection = await inspect(choice.source, options(choice));
      if (turn !== asked) return;
    }
    shown = inspection;
    box("card").replaceChildren(renderCard(inspection));
    loadButton.textContent = inspection.stored ? "Load from this device" : `Load (${format.bytes(inspection.bytes)})`;
    loadButton.disabled = false;
    removeButton.hidden = !inspection.stored;
    clearError();
  } catch (error) {
    if (turn !== asked) return;
    box("precision").hidden = true;
    box("card").replaceChildren(make("p", "The model's card could not be read.", "muted"));
    showError(error);
  }
}

async function loadModel(onLoaded: (model: Model) => Promise<void>): Promise<void> {
  const choice = chosen();
  if (!choice) return;
  clearError();
  const cancel = (loading = new AbortController());
  button("cancel").onclick = cancelSetup;
  busy(true);
  try {
    const { checked } = element("private", HTMLInputElement);
    await onLoaded(await load(choice.source, { ...options(choice), private: checked, signal: cancel.signal, onProgress: showProgress }));
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
  const choice = chosen();
  if (!failed && choice && String(choice.source).startsWith("store:")) {
    choices.splice(select.selectedIndex, 1);
    choice.option.remove();
  }
  await showCard();
  focusSetup();
  if (failed) showError(failed.error);
}

/** To what is likely wanted next: the button that had the focus may be gone. */
export function focusSetup(): void {
  (loadButton.disabled ? select : loadButton).focus();
}

/** Whether a model is on its way. */
export const isLoading = () => loading !== undefined;

export const cancelSetup = () => loading?.abort();

function busy(on: boolean): void {
  if (!on) loading = undefined;
  box("progress").hidden = !on;
  for (const part of ["actions", "open", "private-choice", "private-help"]) box(part).hidden = on;
  select.disabled = quantize.disabled = on;
  if (on) {
    box("progress-phase").textContent = "Starting…";
    box("progress-numbers").textContent = "";
    element("progress-bar", HTMLProgressElement).removeAttribute("value");
    button("cancel").focus();
  }
}

const phases = { manifest: "Preparing", download: "Downloading", import: "Importing", load: "Preparing" };

function showProgress({ phase, loaded, total, bytesPerSecond, etaSeconds, restarted }: Progress): void {
  if (restarted) showNotice(`The import begins again: ${restarted}.`, "", () => {});
  box("progress-phase").textContent = phases[phase];
  const numbers = total ? [`${format.bytes(loaded)} of ${format.bytes(total)}`] : [];
  if (phase !== "load" && bytesPerSecond) numbers.push(`${format.bytes(bytesPerSecond)}/s`);
  if (phase !== "load" && etaSeconds !== undefined) numbers.push(`${format.duration(etaSeconds)} left`);
  box("progress-numbers").textContent = numbers.join(" · ");
  element("progress-bar", HTMLProgressElement).value = total ? loaded / total : 0;
}
