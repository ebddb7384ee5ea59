//! Reading stored files while a model loads. Files stay open from read to read; where the browser lets several tabs hold a file open
//! for reading (Chromium), a read is one copy into the engine's memory, otherwise it is a blob's.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use js_sys::{Object, Promise, Reflect};
use wasm_bindgen::prelude::wasm_bindgen;
use web_sys::{File, FileSystemDirectoryHandle, FileSystemFileHandle, FileSystemReadWriteOptions, FileSystemSyncAccessHandle};

use super::{failed, file, slice, wait};
use crate::error::{Error, Result};

#[wasm_bindgen]
extern "C" {
    /// `FileSystemFileHandle` with the options of `createSyncAccessHandle`, which web-sys does not know.
    #[wasm_bindgen(extends = FileSystemFileHandle)]
    type SharedHandle;

    #[wasm_bindgen(method, js_name = "createSyncAccessHandle")]
    fn open_with(this: &SharedHandle, options: &Object) -> Promise;
}

/// Open files by name.
#[derive(Default)]
pub struct Reader {
    open: RefCell<HashMap<String, Rc<Open>>>,
}

/// A file that is open for reading.
enum Open {
    Handle(FileSystemSyncAccessHandle),
    File(File),
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Open::Handle(handle) = self {
            handle.close();
        }
    }
}

impl Reader {
    /// Bytes `offset .. offset + len` of the file `name` in `folder`; fewer is an `integrity` error.
    pub async fn read(&self, folder: &FileSystemDirectoryHandle, name: &str, offset: u64, len: usize) -> Result<Vec<u8>> {
        let open = self.open.borrow().get(name).cloned();
        let open = match open {
            Some(open) => open,
            None => {
                let open = Rc::new(open_file(folder, name).await?);
                self.open.borrow_mut().insert(name.to_string(), open.clone());
                open
            }
        };
        let size = match &*open {
            Open::Handle(handle) => handle.get_size().map_err(|e| failed(name, &e))?,
            Open::File(file) => file.size(),
        };
        let end = offset as f64 + len as f64;
        if end > size {
            return Err(Error::Integrity(format!("stored file {name} is cut short: it has {size} bytes, {end} are needed")));
        }
        match &*open {
            Open::Handle(handle) => read_at(handle, name, offset, len),
            Open::File(file) => slice(file, offset, offset + len as u64, name).await,
        }
    }

    /// Closes the file `name`: an open one cannot be removed.
    pub fn close(&self, name: &str) {
        self.open.borrow_mut().remove(name);
    }

    /// Closes all files.
    pub fn close_all(&self) {
        self.open.borrow_mut().clear();
    }
}

async fn open_file(folder: &FileSystemDirectoryHandle, name: &str) -> Result<Open> {
    let handle: SharedHandle = wait(folder.get_file_handle(name), name).await?;
    let options = Object::new();
    // Setting a field of a fresh object cannot fail.
    let _ = Reflect::set(&options, &"mode".into(), &"read-only".into());
    if let Ok(open) = wait::<FileSystemSyncAccessHandle>(handle.open_with(&options), name).await {
        let open = Open::Handle(open);
        let Open::Handle(handle) = &open else { unreachable!("made just now") };
        // A browser that does not know the mode has opened it for itself alone, which would lock other tabs out.
        if Reflect::get(handle, &"mode".into()).is_ok_and(|mode| mode == "read-only") {
            return Ok(open);
        }
    }
    Ok(Open::File(file(folder, name).await?.ok_or_else(|| Error::NotFound(format!("stored file {name}")))?))
}

fn read_at(handle: &FileSystemSyncAccessHandle, name: &str, offset: u64, len: usize) -> Result<Vec<u8>> {
    let (mut bytes, mut done) = (vec![0; len], 0);
    let options = FileSystemReadWriteOptions::new();
    while done < len {
        options.set_at((offset + done as u64) as f64);
        let read = handle.read_with_u8_array_and_options(&mut bytes[done..], &options).map_err(|e| failed(name, &e))?;
        if read < 1.0 {
            return Err(Error::Integrity(format!("stored file {name} ended at byte {}", offset + done as u64)));
        }
        done += read as usize;
    }
    Ok(bytes)
}
