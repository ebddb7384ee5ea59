/** A model's text as Markdown. It is untrusted: only plain formatting survives, and nothing that would reach the network. */
import DOMPurify from "dompurify";
import { Marked } from "marked";

const ALLOWED_TAGS = "p br hr em strong del code pre blockquote ul ol li h1 h2 h3 h4 h5 h6 table thead tbody tr th td a".split(" ");

const escape = (text: string) => text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);

/** HTML in an answer is shown as the text that it is; of an image, its description. */
const markdown = new Marked({
  gfm: true,
  breaks: true,
  async: false,
  renderer: { html: ({ text }) => escape(text), image: ({ text }) => escape(text) },
});

export function renderMarkdown(text: string): DocumentFragment {
  const html = markdown.parse(text, { async: false });
  const fragment = DOMPurify.sanitize(html, { ALLOWED_TAGS, ALLOWED_ATTR: ["href", "start"], RETURN_DOM_FRAGMENT: true });
  for (const anchor of fragment.querySelectorAll("a")) {
    anchor.target = "_blank";
    anchor.rel = "noopener noreferrer";
  }
  return fragment;
}
