/** A conversation, as it is kept and exported. */
import type { Message } from "openweights";

export interface Conversation {
  id: string;
  title: string;
  /** The name of the model that answered last. */
  model: string;
  /** Milliseconds since 1970. */
  created: number;
  updated: number;
  messages: Message[];
}

export function newConversation(): Conversation {
  const now = Date.now();
  return { id: crypto.randomUUID(), title: "", model: "", created: now, updated: now, messages: [] };
}

/** What to call a conversation that nobody has named: how it begins. */
export function titleOf({ title, messages }: Conversation): string {
  const first = (title || messages[0]?.content || "").trim().replace(/\s+/g, " ");
  return first.length > 60 ? `${first.slice(0, 59)}…` : first || "Untitled";
}
