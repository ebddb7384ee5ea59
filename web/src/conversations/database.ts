/** IndexedDB, with promises, as far as conversations need it. */

export const DATABASE = "openweights-conversations";
const STORES = ["conversations", "vault"] as const;
export type StoreName = (typeof STORES)[number];

const result = <T>(request: IDBRequest<T>) =>
  new Promise<T>((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

export function openDatabase(): Promise<IDBDatabase> {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => STORES.forEach((name) => request.result.createObjectStore(name));
  return result(request).then((database) => {
    database.onversionchange = () => database.close(); // another tab deletes everything
    return database;
  });
}

/** The value of `key`, if there is one. */
export const read = <T>(database: IDBDatabase, store: StoreName, key: string): Promise<T | undefined> =>
  result(database.transaction(store).objectStore(store).get(key));

/** All keys and their values. */
export async function readAll<T>(database: IDBDatabase, name: StoreName): Promise<[string, T][]> {
  const store = database.transaction(name).objectStore(name);
  const [keys, values] = await Promise.all([result(store.getAllKeys()), result(store.getAll() as IDBRequest<T[]>)]);
  return keys.map((key, index) => [String(key), values[index] as T]);
}

/** All that `change` does, or nothing of it; on disk when it resolves. */
export function write(database: IDBDatabase, change: (store: (name: StoreName) => IDBObjectStore) => void): Promise<void> {
  const transaction = database.transaction(STORES, "readwrite", { durability: "strict" });
  change((name) => transaction.objectStore(name));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });
}
