/** A line above everything else, with something to do about it. */
import { box, button } from "./dom.js";

export function showNotice(text: string, label: string, act: () => void): void {
  box("notice-text").textContent = text;
  button("notice-action").textContent = label;
  button("notice-action").onclick = act;
  button("notice-action").hidden = !label;
  box("notice").hidden = false;
}

button("notice-close").onclick = () => {
  box("notice").hidden = true;
};
