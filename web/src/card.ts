/** The card: what is declared of a model, shown before any of its weights is fetched. */
import type { Card, Declared, Inspection } from "openweights";
import { make } from "./dom.js";
import * as format from "./format.js";

function fact(declared: Declared | null | undefined): Node {
  if (!declared) return make("span", "not declared", "undeclared");
  const node = make("span", declared.value);
  node.title = `declared in ${declared.source}`;
  return node;
}

/** A link where the text is a web address; anything else stays text. */
function link(text: string, address: string): Node {
  if (!/^https?:\/\//.test(address)) return make("span", text);
  const anchor = make("a", text);
  anchor.href = address;
  anchor.target = "_blank";
  anchor.rel = "noopener noreferrer";
  return anchor;
}

function list(declared: Declared[]): Node {
  return fact({ value: declared.map(({ value }) => value).join(", "), source: declared[0]?.source ?? "" });
}

/** The licence's id as declared, with its name where the id is not one of a list. */
function license(card: Card): Node {
  if (card.license && card.license_name) return fact({ ...card.license, value: `${card.license.value} (${card.license_name.value})` });
  return fact(card.license ?? card.license_name);
}

const kinds = { package: "package, verified by its digests", gguf: "GGUF file", checkpoint: "Hugging Face checkpoint" };

export function renderCard({ card, kind, bytes, storage }: Inspection): HTMLElement {
  const rows: [string, Node][] = [
    ["Name", fact(card.name)],
    ["Publisher", fact(card.publisher)],
    ["Licence", license(card)],
    ["Licence text", card.license_link ? link(card.license_link.value, card.license_link.value) : fact(null)],
    ["Made from", card.base_models.length ? list(card.base_models) : fact(null)],
    ["Parameters", make("span", format.count(card.parameters))],
    ["Quantisation", make("span", card.quantisation)],
    ["Files", make("span", kinds[kind])],
    ["Size", make("span", kind === "package" ? format.bytes(bytes) : `${format.bytes(bytes)}; ${format.bytes(storage)} in this browser`)],
    ["Origin", card.origin ? link(card.origin.value, card.origin.value) : fact(null)],
  ];
  const table = make("dl");
  for (const [name, value] of rows) {
    const description = make("dd");
    description.append(value);
    table.append(make("dt", name), description);
  }
  return table;
}
