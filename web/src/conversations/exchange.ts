/** Conversations as files: JSON that can be read back, Markdown for people. */
import type { Message } from "openweights";
import { titleOf, type Conversation } from "./conversation.js";

const FORMAT = "openweights-conversations";
const LARGEST = 64 << 20;

export function toJson(conversations: readonly Conversation[]): string {
  return JSON.stringify({ format: FORMAT, version: 1, conversations }, null, 1);
}

const speakers = { user: "You", assistant: "Model", system: "System" };

export function toMarkdown(conversation: Conversation): string {
  const { model, updated, messages } = conversation;
  const head = `# ${titleOf(conversation)}\n\n${[model, new Date(updated).toISOString()].filter(Boolean).join(" · ")}\n`;
  return head + messages.map(({ role, content }) => `\n**${speakers[role]}:**\n\n${content}\n`).join("");
}

/** The conversations of a file that {@link toJson} wrote, or an error that says what is wrong. Nothing in it is trusted. */
export async function parse(file: File): Promise<Conversation[]> {
  if (file.size > LARGEST) throw new Error(`${file.name} is larger than 64 MiB.`);
  let json: unknown;
  try {
    json = JSON.parse(await file.text());
  } catch {
    throw new Error(`${file.name} is not JSON.`);
  }
  const { format, version, conversations } = Object(json) as Record<string, unknown>;
  if (format !== FORMAT || !Array.isArray(conversations)) throw new Error(`${file.name} holds no exported conversations.`);
  if (version !== 1) throw new Error(`${file.name} was exported by a newer version (${version}).`);
  return conversations.map((one, index) => conversation(one, `${file.name}, conversation ${index + 1}`));
}

function conversation(value: unknown, where: string): Conversation {
  const { id, title, model, created, updated, messages } = Object(value) as Record<string, unknown>;
  const wrong = (what: string) => new Error(`${where}: ${what}.`);
  if (typeof id !== "string" || !/^[0-9a-f-]{36}$/.test(id)) throw wrong("no id");
  if (typeof title !== "string" || typeof model !== "string") throw wrong("no title or model");
  if (!Number.isFinite(created) || !Number.isFinite(updated)) throw wrong("no dates");
  if (!Array.isArray(messages)) throw wrong("no messages");
  return { id, title, model, created: created as number, updated: updated as number, messages: messages.map((one) => message(one, wrong)) };
}

function message(value: unknown, wrong: (what: string) => Error): Message {
  const { role, content } = Object(value) as Record<string, unknown>;
  if (!["user", "assistant", "system"].includes(role as string) || typeof content !== "string") throw wrong("a message without role or content");
  return { role: role as Message["role"], content };
}

/** Those of `imported` that are not present yet; one whose id another conversation has gets a new id. */
export function additions(imported: readonly Conversation[], present: readonly Conversation[]): Conversation[] {
  const words = ({ messages }: Conversation) => JSON.stringify(messages);
  const known = new Set(present.map(words));
  const ids = new Set(present.map(({ id }) => id));
  const added: Conversation[] = [];
  for (const one of imported) {
    if (known.has(words(one))) continue;
    const fresh = ids.has(one.id) ? { ...one, id: crypto.randomUUID() } : one;
    known.add(words(fresh));
    ids.add(fresh.id);
    added.push(fresh);
  }
  return added;
}

/** Hands `text` to the browser's download. */
export function download(text: string, name: string, type: string): void {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const anchor = document.createElement("a");
  anchor.href = address;
  anchor.download = name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
