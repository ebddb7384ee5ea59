// Kept conversations, for tests in either browser.

/** A file of conversations with these titles, as an export writes it. */
export function asExported(...titles) {
  const one = (title, index) => ({
    id: `00000000-0000-4000-8000-00000000000${index}`, title, model: "a model", created: 1, updated: 1000 + index,
    messages: [{ role: "user", content: `${title}: question` }, { role: "assistant", content: `${title}: **answer**` }],
  });
  return JSON.stringify({ format: "openweights-conversations", version: 1, conversations: titles.map(one) });
}

/** What is in IndexedDB, as text. */
export const stored = (page) => page.evaluate(async () => {
  const wait = (request) => new Promise((resolve, reject) => { request.onsuccess = () => resolve(request.result); request.onerror = reject; });
  const database = await wait(indexedDB.open("openweights-conversations"));
  const values = await wait(database.transaction("conversations").objectStore("conversations").getAll());
  database.close();
  return values.map((value) => Object.keys(value).join() + JSON.stringify(value, (_, part) => (part instanceof ArrayBuffer ? new TextDecoder("latin1").decode(part) : part)));
});
