/** The demo: choose a model, load it, chat. Uses the package as anyone would. */
import type { Model } from "openweights";
import { closeChat, forgetConversation, openChat, renameConversation, showConversation, startChat } from "./chat.js";
import type { Library } from "./conversations/library.js";
import { box, button, make } from "./dom.js";
import { showError } from "./errors.js";
import { showRequests, startMeter } from "./meter.js";
import { showNotice } from "./notice.js";
import { startOffline } from "./offline.js";
import { cancelSetup, focusSetup, isLoading, showCard, startSetup } from "./setup.js";

function showDevice({ info }: Model): void {
  const gpu = `WebGPU · ${info.device}${info.software ? " (software)" : ""}`;
  const cpu = `CPU · ${info.threads} ${info.threads === 1 ? "thread" : "threads"}`;
  box("device").textContent = (info.backend === "webgpu" ? gpu : cpu) + (info.private ? " · private" : "");
  box("device").title = [info.reason, info.threadsReason].filter(Boolean).join("; ");
  box("device").hidden = false;
}

/** Setup or chat. Without a model, a stored conversation can be read. */
function show(part: "setup" | "chat"): void {
  box("setup").hidden = part !== "setup";
  box("chat").hidden = part !== "chat";
}

async function onLoaded(model: Model): Promise<void> {
  await library; // nothing is fetched once the model is loaded
  showDevice(model);
  show("chat");
  box("meter").hidden = button("new-chat").hidden = false;
  button("change").textContent = "Change model";
  openChat(model);
  await startMeter(model);
}

button("change").onclick = async () => {
  await closeChat();
  box("device").hidden = true;
  show("setup");
  await showCard();
  focusSetup();
};

/** The dialog of conversations, fetched while a model is being chosen. */
const library: Promise<Library | undefined> = import("./conversations/library.js").then(({ Library }) => Library.start({
  open(conversation) {
    if (isLoading()) return;
    show("chat");
    showConversation(conversation);
    if (!box("device").hidden) return;
    box("meter").hidden = button("new-chat").hidden = true;
    button("change").textContent = "Choose a model";
    button("change").focus();
  },
  rename: renameConversation,
  forget: forgetConversation,
  release,
  wiped: showWiped,
})).catch((error: unknown) => {
  showNotice(`Conversations cannot be kept here: ${error instanceof Error ? error.message : error}`, "", () => {});
  return undefined;
});

const otherTabs = new BroadcastChannel("openweights-wiped");

/** Ends whatever reads or writes what is stored. */
async function letGo(): Promise<void> {
  cancelSetup();
  await closeChat();
}

async function release(): Promise<void> {
  otherTabs.postMessage(null);
  await letGo();
}

/** The last thing that this page shows: it would store itself again. */
function showWiped(): void {
  document.body.replaceChildren(make("main", "Everything was deleted. You may close this page; opened again, it starts from nothing.", "wiped"));
}

otherTabs.onmessage = () => letGo().then(showWiped);

button("library-open").onclick = async () => (await library)?.show();
startChat(async (conversation) => {
  const kept = await (await library)?.save(conversation).catch(showError);
  if (kept === false) showNotice("Conversations are locked: this one is kept once you unlock them.", "Unlock", () => button("library-open").click());
  await showRequests();
});
startSetup(onLoaded).catch(showError);
startOffline(() => !isLoading() && box("chat").hidden && !document.querySelector("dialog[open]")).catch(showError);
