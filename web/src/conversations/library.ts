/** The dialog of conversations: unlock, open, rename, export, import, delete; the passphrase. */
import { box, button, element, make } from "../dom.js";
import { Archive } from "./archive.js";
import { titleOf, type Conversation } from "./conversation.js";
import { additions, download, parse, toJson, toMarkdown } from "./exchange.js";
import { wipe } from "./wipe.js";

/** What the dialog needs of the page. */
export interface Page {
  /** Shows a conversation. */
  open(conversation: Conversation): void;
  /** A conversation, perhaps the one that is shown, has another title, or was deleted. */
  rename(id: string, title: string): void;
  forget(id: string): void;
  /** Lets go of everything that is stored: it will be deleted. */
  release(): Promise<void>;
  /** Says that everything was deleted. */
  wiped(): void;
}

const dialog = element("library", HTMLDialogElement);
const list = box("conversations");
const fresh = element("passphrase-new", HTMLInputElement);
const again = element("passphrase-again", HTMLInputElement);
const unlockInput = element("unlock-passphrase", HTMLInputElement);

export class Library {
  readonly #page: Page;
  readonly #archive: Archive;
  /** Conversations that could not be saved, for the passphrase was missing. */
  readonly #unsaved = new Map<string, Conversation>();

  private constructor(page: Page, archive: Archive) {
    this.#page = page;
    this.#archive = archive;
  }

  /** Joins the dialog to what is stored. */
  static async start(page: Page): Promise<Library> {
    const library = new Library(page, await Archive.open());
    library.#wire();
    return library;
  }

  async show(): Promise<void> {
    say("");
    await this.#render();
    dialog.showModal();
    if (this.#archive.state === "locked") unlockInput.focus();
  }

  /** Keeps `conversation`; says whether it is kept: a locked archive takes it once it is unlocked. */
  async save(conversation: Conversation): Promise<boolean> {
    const copy = structuredClone(conversation);
    this.#unsaved.set(copy.id, copy);
    if (this.#archive.state === "locked") return false;
    await this.#archive.save(copy);
    this.#unsaved.delete(copy.id);
    return true;
  }

  #wire(): void {
    button("library-close").onclick = () => dialog.close();
    element("unlock", HTMLFormElement).onsubmit = this.#task(() => this.#unlock());
    button("export-all").onclick = this.#task(async () => download(toJson(await this.#archive.all()), "conversations.json", "application/json"));
    const file = element("import-file", HTMLInputElement);
    button("import-button").onclick = () => file.click();
    file.onchange = this.#task(() => this.#import(file));
    element("passphrase-form", HTMLFormElement).onsubmit = this.#task(() => this.#setPassphrase());
    again.oninput = fresh.oninput = () => again.setCustomValidity("");
    confirmed(button("passphrase-remove"), "Really remove?", this.#task(async () => {
      await this.#archive.setPassphrase(undefined);
      say("The passphrase is removed: conversations are stored as they are.");
    }));
    button("passphrase-lock").onclick = this.#task(async () => this.#archive.lock());
    confirmed(button("wipe-button"), "Really delete everything?", this.#task(() => this.#wipe()));
  }

  /** A handler that shows what went wrong, and then what is. */
  #task(run: () => Promise<void>): (event: Event) => Promise<void> {
    return async (event) => {
      event.preventDefault();
      say("");
      await run().catch((error: unknown) => say(error instanceof Error ? error.message : String(error), true));
      if (dialog.open) await this.#render();
    };
  }

  async #unlock(): Promise<void> {
    const right = await this.#archive.unlock(unlockInput.value);
    unlockInput.value = "";
    if (!right) {
      unlockInput.focus();
      throw new Error("That is not the passphrase. Nothing was changed.");
    }
    for (const conversation of this.#unsaved.values()) await this.save(conversation);
  }

  async #setPassphrase(): Promise<void> {
    if (fresh.value !== again.value) {
      again.setCustomValidity("The two are not the same.");
      again.reportValidity();
      return;
    }
    await this.#archive.setPassphrase(fresh.value);
    fresh.value = again.value = "";
    say("The passphrase is set: every conversation is stored encrypted.");
  }

  async #import(input: HTMLInputElement): Promise<void> {
    const [file] = input.files ?? [];
    input.value = "";
    if (!file) return;
    const added = additions(await parse(file), await this.#archive.all());
    for (const conversation of added) await this.#archive.save(conversation);
    say(added.length === 1 ? "One conversation was added." : `${added.length} conversations were added.`);
  }

  async #wipe(): Promise<void> {
    await this.#page.release();
    this.#archive.close();
    await wipe();
    dialog.close();
    this.#page.wiped();
  }

  async #render(): Promise<void> {
    const { state } = this.#archive;
    const locked = state === "locked";
    box("unlock").hidden = !locked;
    for (const part of ["conversations", "library-actions", "passphrase"]) box(part).hidden = locked;
    for (const part of ["passphrase-remove", "passphrase-lock"]) button(part).hidden = state !== "unlocked";
    button("passphrase-set").textContent = state === "plain" ? "Set" : "Change";
    if (locked) return list.replaceChildren();
    const conversations = await this.#archive.all();
    button("export-all").disabled = !conversations.length;
    list.replaceChildren(...conversations.map((one) => this.#item(one)));
    if (!conversations.length) list.append(make("li", "None yet. What you chat is kept here, in this browser.", "muted"));
  }

  #item(conversation: Conversation): HTMLElement {
    const title = titleOf(conversation);
    const open = make("button", "", "open");
    const when = new Date(conversation.updated).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
    open.append(make("span", title), make("span", [conversation.model, when].filter(Boolean).join(" · "), "muted"));
    open.onclick = () => {
      dialog.close();
      this.#page.open(conversation);
    };
    const rename = action("Rename", title, () => void item.replaceChildren(this.#renaming(conversation)));
    const save = action("Export", title, () => download(toMarkdown(conversation), `${fileName(title)}.md`, "text/markdown"));
    const remove = action("Delete", title, () => {});
    confirmed(remove, "Really delete?", this.#task(async () => {
      await this.#archive.remove(conversation.id);
      this.#unsaved.delete(conversation.id);
      this.#page.forget(conversation.id);
    }));
    const actions = make("div", "", "row");
    actions.append(rename, save, remove);
    const item = make("li");
    item.append(open, actions);
    return item;
  }

  #renaming(conversation: Conversation): HTMLElement {
    const form = make("form", "", "row");
    const input = make("input", "", "grow");
    input.value = titleOf(conversation);
    input.maxLength = 200;
    input.setAttribute("aria-label", "New title");
    const submit = make("button", "Rename");
    form.append(input, submit);
    form.onsubmit = this.#task(async () => {
      conversation.title = input.value.trim();
      await this.#archive.save(conversation);
      this.#page.rename(conversation.id, conversation.title);
    });
    queueMicrotask(() => input.select());
    return form;
  }
}

const fileName = (title: string) => title.replace(/[^\p{L}\p{N} _-]/gu, "").trim().slice(0, 60) || "conversation";

function action(text: string, title: string, run: () => void): HTMLButtonElement {
  const node = make("button", text, "quiet");
  node.type = "button";
  node.setAttribute("aria-label", `${text}: ${title}`);
  node.onclick = run;
  return node;
}

/** Runs `run` at the second press: the first one asks. */
function confirmed(target: HTMLButtonElement, question: string, run: (event: Event) => Promise<void>): void {
  const { textContent: text, ariaLabel: label } = target;
  const reset = () => {
    target.textContent = text;
    target.ariaLabel = label;
    delete target.dataset.asked;
  };
  target.onblur = reset;
  target.onclick = (event) => {
    if (target.dataset.asked) {
      reset();
      return void run(event);
    }
    target.dataset.asked = "yes";
    target.textContent = question;
    target.ariaLabel = label && `${question} ${label}`;
  };
}

/** What the dialog has to say: to screen readers, too. */
function say(text: string, bad = false): void {
  box("library-message").textContent = text;
  box("library-message").hidden = !text;
  box("library-message").className = bad ? "error" : "muted";
}
