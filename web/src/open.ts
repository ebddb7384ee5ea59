/** A model of one's own: an address or hub id, files, a folder, or something dropped on the page. */
import type { ModelSource, SourceOptions } from "openweights";
import { box, button, element } from "./dom.js";

/** What was chosen, and what to call it. */
export interface Opened {
  label: string;
  source: ModelSource;
  options: SourceOptions;
}

const text = element("open-text", HTMLInputElement);
const token = element("open-token", HTMLInputElement);
const files = element("open-files", HTMLInputElement);
const folder = element("open-folder", HTMLInputElement);

/** Files in words: the GGUF's name, or the folder's. */
function label(chosen: readonly File[]): string {
  const gguf = chosen.find(({ name }) => /\.gguf$/i.test(name));
  const inFolder = chosen[0]?.webkitRelativePath.split("/")[0];
  return (gguf?.name ?? inFolder) || `${chosen.length} files`;
}

/**
 * The files of a dropped folder and of its folders `1_Pooling`, `2_Dense`, ..., which are named with their path; dropped files are themselves.
 * `within` is the folder's path from the dropped one, none for what was dropped.
 */
async function contents(entry: FileSystemEntry | File, within?: string): Promise<File[]> {
  if (entry instanceof File) return [entry];
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    return [within ? new File([file], `${within}/${file.name}`) : file];
  }
  if (within || (within === "" && !/^\d+_/.test(entry.name))) return [];
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const found: File[] = [];
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject)); // 100 at a time
    if (!some.length) return found;
    found.push(...(await Promise.all(some.map((inner) => contents(inner, within === undefined ? "" : entry.name)))).flat());
  }
}

/** Tells `onOpen` of everything that is chosen, and `onError` of what could not be read. */
export function startOpen(onOpen: (opened: Opened) => void, onError: (error: unknown) => void): void {
  const openFiles = (chosen: readonly File[], name = label(chosen)) => {
    if (chosen.length) onOpen({ label: name, source: chosen.length === 1 ? (chosen[0] as File) : chosen, options: {} });
  };
  const picked = (input: HTMLInputElement) => {
    openFiles([...(input.files ?? [])]);
    input.value = ""; // the same choice again is one, too
  };
  element("open-form", HTMLFormElement).onsubmit = (event) => {
    event.preventDefault();
    const source = text.value.trim();
    if (source) onOpen({ label: source, source, options: token.value ? { token: token.value.trim() } : {} });
  };
  button("open-files-button").onclick = () => files.click();
  files.onchange = () => picked(files);
  folder.onchange = () => picked(folder);
  button("open-folder-button").onclick = async () => {
    if (!window.showDirectoryPicker) return folder.click();
    try {
      const source = await window.showDirectoryPicker();
      onOpen({ label: source.name, source, options: {} });
    } catch (error) {
      if (!(error instanceof DOMException && error.name === "AbortError")) onError(error);
    }
  };

  let depth = 0; // of the elements that are dragged over, one within the other
  const over = (change: number, event: DragEvent) => {
    if (!event.dataTransfer?.types.includes("Files") || box("setup").hidden) return;
    event.preventDefault();
    depth += change;
    box("setup").classList.toggle("drop", depth > 0);
  };
  document.addEventListener("dragenter", (event) => over(1, event));
  document.addEventListener("dragover", (event) => over(0, event));
  document.addEventListener("dragleave", (event) => over(-1, event));
  document.addEventListener("drop", async (event) => {
    over(-depth, event);
    if (!event.defaultPrevented) return;
    const items = [...(event.dataTransfer?.items ?? [])];
    // What was not dragged from a disk has no entry.
    const entries = items.map((item) => item.webkitGetAsEntry() ?? item.getAsFile()).filter((entry) => entry !== null);
    try {
      const chosen = (await Promise.all(entries.map((entry) => contents(entry)))).flat();
      openFiles(chosen, entries.length === 1 ? entries[0]?.name : undefined);
    } catch (error) {
      onError(error);
    }
  });
}

declare global {
  interface Window {
    /** Not in every browser. */
    showDirectoryPicker?: () => Promise<FileSystemDirectoryHandle>;
  }
}
