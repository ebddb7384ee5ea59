//! The store in the browser: the origin private file system, from a worker.
//!
//! Files are written through sync access handles (fast, appending, one writer at a time) and read by a [`Reader`], which other tabs
//! may do as well.

use futures_util::{FutureExt, future::LocalBoxFuture};
use js_sys::{ArrayBuffer, IteratorNext, Promise, Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsValue, prelude::wasm_bindgen};
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    DomException, File, FileSystemDirectoryHandle, FileSystemFileHandle, FileSystemGetDirectoryOptions, FileSystemGetFileOptions,
    FileSystemReadWriteOptions, FileSystemSyncAccessHandle, FileSystemWritableFileStream, StorageEstimate, StorageManager,
};

mod reader;

use reader::Reader;

use super::js::{message, worker};
use crate::{
    error::{Error, Result},
    weights::store::{Partial, Storage, Usage},
};

#[wasm_bindgen]
extern "C" {
    /// `FileSystemFileHandle` with `move`, which web-sys does not know.
    #[wasm_bindgen(extends = FileSystemFileHandle)]
    type MovableHandle;

    #[wasm_bindgen(method, js_name = "move")]
    fn move_to(this: &MovableHandle, folder: &FileSystemDirectoryHandle, name: &str) -> Promise;
}

/// The folder `openweights` of the origin's private file system.
pub struct Opfs {
    storage: StorageManager,
    blobs: FileSystemDirectoryHandle,
    models: FileSystemDirectoryHandle,
    partial: FileSystemDirectoryHandle,
    reader: Reader,
}

impl Opfs {
    /// Opens it, and makes what is missing.
    pub async fn open() -> Result<Opfs> {
        let storage = Reflect::get(&worker().navigator(), &"storage".into()).unwrap_or_default();
        if storage.is_undefined() || !Reflect::has(&storage, &"getDirectory".into()).unwrap_or(false) {
            return Err(Error::Storage("this browser grants the page no private files: open it with https or from localhost".into()));
        }
        let storage: StorageManager = storage.unchecked_into();
        let root = wait(storage.get_directory(), "opening private files").await?;
        let root = folder(&root, "openweights").await?;
        let (blobs, models, partial) = (folder(&root, "blobs").await?, folder(&root, "models").await?, folder(&root, "partial").await?);
        Ok(Opfs { storage, blobs, models, partial, reader: Reader::default() })
    }

    /// The blob's file, for others to read.
    pub async fn blob(&self, sha256: &str) -> Result<File> {
        file(&self.blobs, sha256).await?.ok_or_else(|| Error::NotFound(format!("stored file {sha256}")))
    }

    async fn open_partial(&self, name: &str) -> Result<OpfsPartial> {
        let options = FileSystemGetFileOptions::new();
        options.set_create(true);
        let file: FileSystemFileHandle = wait(self.partial.get_file_handle_with_options(name, &options), name).await?;
        let handle: FileSystemSyncAccessHandle = wait(file.create_sync_access_handle(), name).await?;
        let partial = OpfsPartial {
            name: name.to_string(),
            file,
            written: handle.get_size().map_err(|e| failed(name, &e))? as u64,
            handle,
            partial: self.partial.clone(),
            blobs: self.blobs.clone(),
            storage: self.storage.clone(),
        };
        Ok(partial)
    }
}

impl Storage for Opfs {
    fn blob_size<'a>(&'a self, sha256: &'a str) -> LocalBoxFuture<'a, Result<Option<u64>>> {
        async move { Ok(file(&self.blobs, sha256).await?.map(|file| file.size() as u64)) }.boxed_local()
    }

    fn read<'a>(&'a self, sha256: &'a str, offset: u64, len: usize) -> LocalBoxFuture<'a, Result<Vec<u8>>> {
        self.reader.read(&self.blobs, sha256, offset, len).boxed_local()
    }

    fn release(&self) {
        self.reader.close_all();
    }

    fn resume<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Result<Box<dyn Partial>>> {
        async move { Ok(Box::new(self.open_partial(name).await?) as Box<dyn Partial>) }.boxed_local()
    }

    fn partials(&self) -> LocalBoxFuture<'_, Result<Vec<(String, u64)>>> {
        async move {
            let mut partials = Vec::new();
            for name in names(&self.partial).await? {
                let size = file(&self.partial, &name).await?.map_or(0, |file| file.size() as u64);
                partials.push((name, size));
            }
            Ok(partials)
        }
        .boxed_local()
    }

    fn remove_partial<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Result<()>> {
        async move {
            match remove(&self.partial, name.to_string()).await {
                // A file that is being written is locked: it stays.
                Err(Error::Storage(_)) => Ok(()),
                other => other,
            }
        }
        .boxed_local()
    }

    fn remove_blob<'a>(&'a self, sha256: &'a str) -> LocalBoxFuture<'a, Result<()>> {
        self.reader.close(sha256);
        remove(&self.blobs, sha256.to_string()).boxed_local()
    }

    fn blobs(&self) -> LocalBoxFuture<'_, Result<Vec<String>>> {
        names(&self.blobs).boxed_local()
    }

    fn records(&self) -> LocalBoxFuture<'_, Result<Vec<String>>> {
        async move { Ok(names(&self.models).await?.iter().filter_map(|name| Some(name.strip_suffix(".json")?.to_string())).collect()) }
            .boxed_local()
    }

    fn read_record<'a>(&'a self, id: &'a str) -> LocalBoxFuture<'a, Result<Option<Vec<u8>>>> {
        async move {
            match file(&self.models, &format!("{id}.json")).await? {
                Some(file) => contents(file.array_buffer(), id).await.map(Some),
                None => Ok(None),
            }
        }
        .boxed_local()
    }

    fn write_record<'a>(&'a self, id: &'a str, bytes: &'a [u8]) -> LocalBoxFuture<'a, Result<()>> {
        async move {
            let name = format!("{id}.json");
            let mut partial = self.open_partial(&name).await?;
            partial.truncate(0)?;
            let written = match partial.write(bytes) {
                Ok(()) => partial.finish(&self.models, &name).await,
                failed => failed,
            };
            measured(&self.storage, bytes.len(), written).await
        }
        .boxed_local()
    }

    fn remove_record<'a>(&'a self, id: &'a str) -> LocalBoxFuture<'a, Result<()>> {
        remove(&self.models, format!("{id}.json")).boxed_local()
    }

    fn usage(&self) -> LocalBoxFuture<'_, Result<Usage>> {
        usage(&self.storage).boxed_local()
    }
}

/// A file being written. The handle locks it; closing one twice does nothing.
struct OpfsPartial {
    name: String,
    file: FileSystemFileHandle,
    handle: FileSystemSyncAccessHandle,
    written: u64,
    partial: FileSystemDirectoryHandle,
    blobs: FileSystemDirectoryHandle,
    storage: StorageManager,
}

impl OpfsPartial {
    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let at = FileSystemReadWriteOptions::new();
            at.set_at_f64(self.written as f64);
            // The browser reads straight from wasm memory.
            let count = self.handle.write_with_u8_array_and_options(bytes, &at).map_err(|e| failed(&self.name, &e))? as usize;
            if count > bytes.len() {
                // Chromium gives a negative number where there is no space, instead of an error.
                return Err(Error::Quota { needed: 0, available: 0, removable: 0 });
            }
            if count == 0 {
                return Err(Error::Storage(format!("writing {}: {count} of {} bytes were taken", self.name, bytes.len())));
            }
            self.written += count as u64;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Makes it the file `name` of `folder`, at once.
    async fn finish(&self, folder: &FileSystemDirectoryHandle, name: &str) -> Result<()> {
        self.handle.flush().map_err(|e| failed(&self.name, &e))?;
        self.handle.close();
        if Reflect::has(&self.file, &"move".into()).unwrap_or(false) {
            let file: &MovableHandle = self.file.unchecked_ref();
            return wait::<JsValue>(file.move_to(folder, name), name).await.map(drop);
        }
        // A writable stream writes beside the file and takes its place when closed.
        let bytes: File = wait(self.file.get_file(), &self.name).await?;
        let options = FileSystemGetFileOptions::new();
        options.set_create(true);
        let target: FileSystemFileHandle = wait(folder.get_file_handle_with_options(name, &options), name).await?;
        let stream: FileSystemWritableFileStream = wait(target.create_writable(), &self.name).await?;
        wait::<JsValue>(stream.write_with_blob(&bytes).map_err(|e| failed(&self.name, &e))?, &self.name).await?;
        wait::<JsValue>(stream.close(), &self.name).await?;
        remove(&self.partial, self.name.clone()).await
    }
}

impl Partial for OpfsPartial {
    fn size(&self) -> u64 {
        self.written
    }

    fn read<'a>(&'a mut self, offset: u64, len: usize) -> LocalBoxFuture<'a, Result<Vec<u8>>> {
        async move {
            let at = FileSystemReadWriteOptions::new();
            at.set_at_f64(offset as f64);
            let mut bytes = vec![0; len];
            let count = self.handle.read_with_u8_array_and_options(&mut bytes, &at).map_err(|e| failed(&self.name, &e))?;
            match count as usize == len {
                true => Ok(bytes),
                false => Err(Error::Storage(format!("reading {}: {count} of {len} bytes from {offset} on were given", self.name))),
            }
        }
        .boxed_local()
    }

    fn truncate(&mut self, size: u64) -> Result<()> {
        self.written = self.written.min(size);
        self.handle.truncate_with_f64(self.written as f64).map_err(|e| failed(&self.name, &e))
    }

    fn append<'a>(&'a mut self, bytes: &'a [u8]) -> LocalBoxFuture<'a, Result<()>> {
        async move {
            let written = self.write(bytes);
            measured(&self.storage, bytes.len(), written).await
        }
        .boxed_local()
    }

    fn commit(self: Box<Self>, sha256: &str) -> LocalBoxFuture<'static, Result<()>> {
        let sha256 = sha256.to_string();
        async move { measured(&self.storage, self.written as usize, self.finish(&self.blobs, &sha256).await).await }.boxed_local()
    }
}

impl Drop for OpfsPartial {
    fn drop(&mut self) {
        self.handle.close();
    }
}

/// What the browser says is used and granted.
async fn usage(storage: &StorageManager) -> Result<Usage> {
    let promise = storage.estimate().map_err(|e| failed("storage estimate", &e))?;
    let estimate: StorageEstimate = wait(promise, "storage estimate").await?;
    Ok(Usage { used: estimate.get_usage().unwrap_or(0.0) as u64, quota: estimate.get_quota().map(|quota| quota as u64) })
}

/// The result, or the quota error with its numbers: the `needed` bytes, and what the browser still grants.
async fn measured(storage: &StorageManager, needed: usize, result: Result<()>) -> Result<()> {
    match result {
        Err(Error::Quota { .. }) => {
            let available = usage(storage).await?.available().unwrap_or(0);
            Err(Error::Quota { needed: needed as u64, available, removable: 0 })
        }
        other => other,
    }
}

/// The result of `promise`, as the type that the browser's interface says it has.
async fn wait<T: JsCast>(promise: Promise, what: &str) -> Result<T> {
    JsFuture::from(promise).await.map(JsCast::unchecked_into).map_err(|e| failed(what, &e))
}

async fn folder(parent: &FileSystemDirectoryHandle, name: &str) -> Result<FileSystemDirectoryHandle> {
    let options = FileSystemGetDirectoryOptions::new();
    options.set_create(true);
    wait(parent.get_directory_handle_with_options(name, &options), name).await
}

/// The folder `name`, which is there.
pub(super) async fn existing(parent: &FileSystemDirectoryHandle, name: &str) -> Result<FileSystemDirectoryHandle> {
    wait(parent.get_directory_handle(name), name).await
}

/// The file `name`, none if there is none.
pub(super) async fn file(folder: &FileSystemDirectoryHandle, name: &str) -> Result<Option<File>> {
    let found = async {
        let handle: FileSystemFileHandle = wait(folder.get_file_handle(name), name).await?;
        wait(handle.get_file(), name).await
    };
    match found.await {
        Ok(file) => Ok(Some(file)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Bytes `start .. end` of a file.
pub(super) async fn slice(file: &File, start: u64, end: u64, what: &str) -> Result<Vec<u8>> {
    let slice = file.slice_with_f64_and_f64(start as f64, end as f64).map_err(|e| failed(what, &e))?;
    contents(slice.array_buffer(), what).await
}

async fn contents(buffer: Promise, what: &str) -> Result<Vec<u8>> {
    let buffer: ArrayBuffer = wait(buffer, what).await?;
    Ok(Uint8Array::new(&buffer).to_vec())
}

/// Names of files and folders in `folder`.
pub(super) async fn names(folder: &FileSystemDirectoryHandle) -> Result<Vec<String>> {
    let keys = folder.keys();
    let mut names = Vec::new();
    loop {
        let next: IteratorNext = wait(keys.next().map_err(|e| failed("listing files", &e))?, "listing files").await?;
        if next.done() {
            return Ok(names);
        }
        names.extend(next.value().as_string());
    }
}

/// Removes `name`, if it is there.
async fn remove(folder: &FileSystemDirectoryHandle, name: String) -> Result<()> {
    match wait::<JsValue>(folder.remove_entry(&name), &name).await {
        Err(Error::NotFound(_)) => Ok(()),
        other => other.map(drop),
    }
}

fn failed(what: &str, error: &JsValue) -> Error {
    match error.dyn_ref::<DomException>().map(|e| e.name()).as_deref() {
        // `measured` puts in the numbers.
        Some("QuotaExceededError") => Error::Quota { needed: 0, available: 0, removable: 0 },
        Some("NotFoundError") => Error::NotFound(format!("stored file {what}")),
        Some("NoModificationAllowedError") => Error::Storage(format!("{what} is in use, perhaps by another tab that loads the same model")),
        _ => Error::Storage(format!("{what}: {}", message(error))),
    }
}
