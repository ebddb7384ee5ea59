/** Deletes all that this origin stores for the page: files, databases, caches, the service worker. */

const databases = async () => (await indexedDB.databases()).map(({ name }) => name ?? "");

const deleteDatabase = (name: string) =>
  new Promise<void>((resolve, reject) => {
    const request = indexedDB.deleteDatabase(name);
    request.onsuccess = () => resolve();
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error("Another tab still uses the conversations: close it and try again."));
  });

async function deleteFiles(): Promise<void> {
  const root = await navigator.storage?.getDirectory?.();
  if (!root) return;
  const names: string[] = [];
  for await (const name of root.keys()) names.push(name);
  for (const name of names) await patiently(() => root.removeEntry(name, { recursive: true }));
}

/** A worker that was just ended, in this tab or another, may hold a file a moment longer. */
async function patiently(remove: () => Promise<void>, tries = 20): Promise<void> {
  try {
    await remove();
  } catch (error) {
    if (!tries) throw error;
    await new Promise((resolve) => setTimeout(resolve, 100));
    await patiently(remove, tries - 1);
  }
}

/** One by one: a cache that the service worker has open would keep its contents until that ends. */
async function deleteCaches(): Promise<void> {
  for (const name of (await globalThis.caches?.keys()) ?? []) {
    const cache = await caches.open(name);
    for (const request of await cache.keys()) await cache.delete(request);
    await caches.delete(name);
  }
}

/** Rejects if something could not be deleted; what could is gone. */
export async function wipe(): Promise<void> {
  // First the service worker: without it nothing fills the caches again.
  for (const registration of (await navigator.serviceWorker?.getRegistrations()) ?? []) await registration.unregister();
  const parts = [deleteFiles(), databases().then((names) => Promise.all(names.map(deleteDatabase))), deleteCaches()];
  localStorage.clear();
  sessionStorage.clear();
  const failed = (await Promise.allSettled(parts)).find((part) => part.status === "rejected");
  if (failed) throw failed.reason;
}
