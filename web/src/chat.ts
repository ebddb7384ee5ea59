/** The conversation: send, stream the answer, stop, start over. */
import type { Message, Model } from "openweights";
import { box, button, element, make } from "./dom.js";
import { clearError, isAbort, showError } from "./errors.js";
import { renderMarkdown } from "./markdown.js";

const log = box("log");
const input = element("input", HTMLTextAreaElement);
const temperature = element("temperature", HTMLInputElement);
const maxTokens = element("max-tokens", HTMLInputElement);
const system = element("system", HTMLTextAreaElement);

let model: Model | undefined;
let history: Message[] = [];
let running: AbortController | undefined;

export function openChat(loaded: Model): void {
  model = loaded;
  newChat();
}

/** Ends the conversation and frees the model. */
export async function closeChat(): Promise<void> {
  newChat();
  await model?.unload();
  model = undefined;
}

function newChat(): void {
  running?.abort();
  setRunning(undefined);
  history = [];
  log.replaceChildren();
  box("stats").textContent = "";
  clearError();
  input.focus();
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
  const conversation = history;
  conversation.push({ role: "user", content: text });
  log.append(make("div", text, "message user"));
  const answer = make("div", "", "message assistant waiting");
  log.append(answer);
  scrollToEnd();

  const abort = new AbortController();
  setRunning(abort);
  try {
    const reply = await streamAnswer(model, conversation, answer, abort.signal);
    conversation.push({ role: "assistant", content: reply });
  } catch (error) {
    takeBack(conversation, text, answer);
    if (!isAbort(error)) showError(error);
  } finally {
    answer.classList.remove("waiting");
    if (running === abort) setRunning(undefined);
  }
}

/** A message without an answer would break the turns: it returns to the input. */
function takeBack(conversation: Message[], text: string, answer: HTMLElement): void {
  conversation.pop();
  answer.previousElementSibling?.remove();
  answer.remove();
  if (conversation === history && !input.value) input.value = text;
  resize();
}

/** Streams the answer into `target` and returns its text; what was said before a stop counts as the answer. */
async function streamAnswer(model: Model, conversation: Message[], target: HTMLElement, signal: AbortSignal): Promise<string> {
  const content = system.value.trim();
  const messages = content ? [{ role: "system" as const, content }, ...conversation] : conversation;
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
