/** The card: what is declared of a model, shown before any of its weights is fetched. */
import type { Card, Declared } from "openweights";
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

/** The licence's id as declared, with its name where the id is not one of a list. */
function license(card: Card): Node {
  if (card.license && card.license_name) return fact({ ...card.license, value: `${card.license.value} (${card.license_name.value})` });
  return fact(card.license ?? card.license_name);
}

export function renderCard(card: Card, downloadBytes: number): HTMLElement {
  const rows: [string, Node][] = [
    ["Name", fact(card.name)],
    ["Publisher", fact(card.publisher)],
    ["Licence", license(card)],
    ["Licence text", card.license_link ? link(card.license_link.value, card.license_link.value) : fact(null)],
    ["Parameters", make("span", format.count(card.parameters))],
    ["Quantisation", make("span", card.quantisation)],
    ["Size", make("span", format.bytes(downloadBytes))],
    ["Origin", card.origin ? link(card.origin.value, card.origin.value) : fact(null)],
  ];
  const list = make("dl");
  for (const [name, value] of rows) {
    const description = make("dd");
    description.append(value);
    list.append(make("dt", name), description);
  }
  return list;
}
