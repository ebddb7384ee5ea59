//! What a page names as a model: text, a person's own files, or a directory's handle.

use js_sys::{Array, Reflect};
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{File, FileSystemDirectoryHandle};

use super::{fetch::BrowserFetch, files::LocalFiles, opfs};
use crate::{
    error::{Error, Result},
    weights::{
        network::{Authorized, Fetch, origin},
        source::{Access, Source},
    },
};

/// A source, and how its files are read.
pub struct Named {
    /// The source.
    pub source: Source,
    fetch: Box<dyn Fetch>,
    token: Option<String>,
}

impl Named {
    /// Reads what JavaScript gave: a string, a `File`, an array of them, or a `FileSystemDirectoryHandle`.
    pub async fn new(value: JsValue, access: &Access) -> Result<Named> {
        if let Some(text) = value.as_string() {
            let source = Source::parse(&text, access)?;
            return Ok(Named { source, fetch: Box::new(BrowserFetch), token: access.token.clone() });
        }
        if *access != Access::default() {
            return Err(Error::InvalidInput("hub, revision and token are for models at a hub, not for files".into()));
        }
        let files = LocalFiles::new(own_files(&value).await?)?;
        Ok(Named { source: Source::files(files.listing())?, fetch: Box::new(files), token: None })
    }

    /// What asks for its files, and gives a hub its token.
    pub fn fetch(&self) -> Authorized<'_> {
        Authorized { fetch: &*self.fetch, origin: origin(&self.source.hub).unwrap_or_default().to_owned(), token: self.token.clone() }
    }
}

/// A person's own files: of a `FileSystemDirectoryHandle`, an array, or one.
pub async fn own_files(value: &JsValue) -> Result<Vec<File>> {
    match value.dyn_ref::<FileSystemDirectoryHandle>() {
        Some(folder) => in_folder(folder).await,
        None => given(value),
    }
}

async fn in_folder(folder: &FileSystemDirectoryHandle) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for name in opfs::names(folder).await? {
        // A folder of this name is no file: what lies deeper is no part of a model.
        if let Ok(file) = opfs::file(folder, &name).await {
            files.extend(file);
        }
    }
    Ok(files)
}

fn given(value: &JsValue) -> Result<Vec<File>> {
    let wrong = || Error::InvalidInput("a source is an address, a hub id, a File, an array of Files, or a directory's handle".into());
    let values = if Array::is_array(value) { Array::from(value) } else { Array::of1(value) };
    let files: Vec<File> = values.iter().map(|one| one.dyn_into().map_err(|_| wrong())).collect::<Result<_>>()?;
    Ok(files.into_iter().filter(|file| depth(file) <= 1).collect())
}

/// How deep in a chosen directory: `directory/file` has 1.
fn depth(file: &File) -> usize {
    let path = Reflect::get(file, &"webkitRelativePath".into()).ok().and_then(|path| path.as_string());
    path.map_or(0, |path| path.matches('/').count())
}
