/** The conversation: send, stream the answer, stop, start over. */
import type { Message, Model } from "openweights";
import { newConversation, type Conversation } from "./conversations/conversation.js";
import { box, button, element, make } from "./dom.js";
import { clearError, isAbort, showError } from "./errors.js";
import { renderMarkdown } from "./markdown.js";

const log = box("log");
const input = element("input", HTMLTextAreaElement);
const temperature = element("temperature", HTMLInputElement);
const maxTokens = element("max-tokens", HTMLInputElement);
const system = element("system", HTMLTextAreaElement);

let model: Model | undefined;
let conversation = newConversation();
let running: AbortController | undefined;
let onAnswer: (conversation: Conversation) => void = () => {};

/** Begins to chat, or goes on with the conversation that is shown. */
export function openChat(loaded: Model): void {
  model = loaded;
  box("composer").hidden = false;
  showConversation(conversation);
}

/** Ends the conversation and frees the model. */
export async function closeChat(): Promise<void> {
  if (model) newChat();
  const unloaded = model;
  model = undefined;
  await unloaded?.unload();
}

/** Tells `listener` of every conversation that has a new answer. */
export function startChat(listener: typeof onAnswer): void {
  onAnswer = listener;
}

/** Shows a conversation; to be gone on with if a model is loaded. */
export function showConversation(shown: Conversation): void {
  running?.abort();
  setRunning(undefined);
  conversation = shown;
  const bubbles = shown.messages.map(({ role, content }) => bubble(role, content));
  log.replaceChildren(...bubbles);
  box("composer").hidden = !model;
  box("stats").textContent = model ? "" : "Load a model to go on with this conversation.";
  clearError();
  scrollToEnd();
  if (model) input.focus();
}

export function renameConversation(id: string, title: string): void {
  if (conversation.id === id) conversation.title = title;
}

/** Starts over if the conversation `id` is the one that is shown. */
export function forgetConversation(id: string): void {
  if (conversation.id === id) newChat();
}

function newChat(): void {
  showConversation(newConversation());
}

function bubble(role: Message["role"], content: string): HTMLElement {
  const node = make("div", role === "assistant" ? "" : content, `message ${role}`);
  if (role === "assistant") {
    const body = make("div");
    body.append(renderMarkdown(content));
    node.append(body);
  }
  return node;
}

async function send(): Promise<void> {
  const text = input.value.trim();
  if (!text || running || !model) return;
  const wrong = [temperature, maxTokens].find((field) => !field.validity.valid);
  if (wrong) {
    element("settings", HTMLDetailsElement).open = true; // what is folded away cannot be pointed at
    wrong.reportValidity();
    return;
  }
  clearError();
  input.value = "";
  resize();
  const current = conversation;
  current.messages.push({ role: "user", content: text });
  log.append(bubble("user", text));
  const answer = make("div", "", "message assistant waiting");
  log.append(answer);
  scrollToEnd();

  const abort = new AbortController();
  setRunning(abort);
  try {
    const reply = await streamAnswer(model, current.messages, answer, abort.signal);
    current.messages.push({ role: "assistant", content: reply });
    current.model = model?.card.name?.value ?? current.model;
    current.updated = Date.now();
    onAnswer(current);
  } catch (error) {
    takeBack(current, text, answer);
    if (!isAbort(error)) showError(error);
  } finally {
    answer.classList.remove("waiting");
    if (running === abort) setRunning(undefined);
  }
}

/** A message without an answer would break the turns: it returns to the input. */
function takeBack(current: Conversation, text: string, answer: HTMLElement): void {
  current.messages.pop();
  answer.previousElementSibling?.remove();
  answer.remove();
  if (current === conversation && !input.value) input.value = text;
  resize();
}

/** Streams the answer into `target` and returns its text; what was said before a stop counts as the answer. */
async function streamAnswer(model: Model, said: readonly Message[], target: HTMLElement, signal: AbortSignal): Promise<string> {
  const content = system.value.trim();
  const messages = content ? [{ role: "system" as const, content }, ...said] : [...said];
  const params = { temperature: temperature.valueAsNumber, max_tokens: maxTokens.valueAsNumber };
  const show = painter(target);
  const started = performance.now();
  let first = 0;
  let tokens = 0;
  let text = "";
  try {
    for await (const chunk of await model.chat.completions.create({ messages, ...params, stream: true, signal })) {
      const now = performance.now();
      text += chunk.choices[0].delta.content ?? "";
      if (chunk.choices[0].token_ids.length) {
        tokens += 1;
        first ||= now;
        showStats(tokens, first - started, now - first);
      }
      show(text);
      if (chunk.choices[0].finish_reason === "length") note(target, "The answer was cut at its longest length.");
    }
  } catch (error) {
    if (!isAbort(error) || !text) throw error;
    note(target, "Stopped.");
  }
  return text;
}

function showStats(tokens: number, toFirst: number, since: number): void {
  const speed = tokens > 1 ? ` · ${((tokens - 1) / (since / 1000)).toFixed(1)} tokens/s` : "";
  box("stats").textContent = `${tokens} ${tokens === 1 ? "token" : "tokens"}${speed} · first after ${(toFirst / 1000).toFixed(1)} s`;
}

/** Renders at most once a frame, the newest text. */
function painter(target: HTMLElement): (text: string) => void {
  const body = make("div");
  target.append(body);
  let latest = "";
  let due = false;
  return (text) => {
    latest = text;
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      const follow = nearEnd();
      if (latest) target.classList.remove("waiting");
      body.replaceChildren(renderMarkdown(latest));
      if (follow) scrollToEnd();
    });
  };
}

function note(target: HTMLElement, text: string): void {
  target.append(make("p", text, "note"));
}

function nearEnd(): boolean {
  const page = document.documentElement;
  return page.scrollHeight - page.scrollTop - page.clientHeight < 120;
}

function scrollToEnd(): void {
  document.documentElement.scrollTop = document.documentElement.scrollHeight;
}

function setRunning(abort: AbortController | undefined): void {
  running = abort;
  // Who has moved on, to the settings say, is not called back when the answer ends.
  const follow = [button("stop"), document.body].some((place) => place === document.activeElement);
  button("send").hidden = !!abort;
  button("stop").hidden = !abort;
  // A screen reader waits for the whole answer instead of reading every token.
  log.setAttribute("aria-busy", String(!!abort));
  if (abort) button("stop").focus();
  else if (follow) input.focus();
}

function resize(): void {
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight + 2}px`;
}

input.oninput = resize;
input.onkeydown = (event) => {
  // isComposing: Enter that picks a word in an input method does not send.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  void send();
};
element("composer", HTMLFormElement).onsubmit = (event) => {
  event.preventDefault();
  void send();
};
button("stop").onclick = () => running?.abort();
button("new-chat").onclick = newChat;
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing && !event.defaultPrevented) running?.abort();
});
