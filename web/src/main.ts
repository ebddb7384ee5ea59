/** The demo: choose a model, load it, chat. Uses the package as anyone would. */
import type { Model } from "openweights";
import { closeChat, openChat } from "./chat.js";
import { box, button } from "./dom.js";
import { showError } from "./errors.js";
import { focusSetup, showCard, startSetup } from "./setup.js";

function showDevice({ info }: Model): void {
  const gpu = `WebGPU · ${info.device}${info.software ? " (software)" : ""}`;
  const cpu = `CPU · ${info.threads} ${info.threads === 1 ? "thread" : "threads"}`;
  box("device").textContent = info.backend === "webgpu" ? gpu : cpu;
  box("device").title = [info.reason, info.threadsReason].filter(Boolean).join("; ");
  box("device").hidden = false;
}

function onLoaded(model: Model): void {
  showDevice(model);
  box("setup").hidden = true;
  box("chat").hidden = false;
  openChat(model);
}

button("change").onclick = async () => {
  await closeChat();
  box("chat").hidden = true;
  box("device").hidden = true;
  box("setup").hidden = false;
  await showCard();
  focusSetup();
};

startSetup(onLoaded).catch(showError);
