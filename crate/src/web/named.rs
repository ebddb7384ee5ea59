//! What a page names as a model: text, a person's own files, or a directory's handle.

use js_sys::{Array, Reflect};
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{File, FileSystemDirectoryHandle};

use super::{fetch::BrowserFetch, files::LocalFiles, opfs};
use crate::{
    error::{Error, Result},
    weights::{
        network::{Authorized, Fetch, NoNetwork, origin},
        owpkg::{is_archive, list},
        sentence::is_module,
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
    /// Where `offline` is asked for, no network is.
    pub async fn new(value: JsValue, access: &Access, offline: bool) -> Result<Named> {
        if let Some(text) = value.as_string() {
            let source = Source::parse(&text, access)?;
            let fetch: Box<dyn Fetch> = if offline { Box::new(NoNetwork) } else { Box::new(BrowserFetch) };
            return Ok(Named { source, fetch, token: access.token.clone() });
        }
        if *access != Access::default() {
            return Err(Error::InvalidInput("hub, revision and token are for models at a hub, not for files".into()));
        }
        let files = unpacked(own_files(&value).await?).await?;
        Ok(Named { source: Source::files(files.listing())?, fetch: Box::new(files), token: None })
    }

    /// What asks for its files, and gives a hub its token.
    pub fn fetch(&self) -> Authorized<'_> {
        Authorized { fetch: &*self.fetch, origin: origin(&self.source.hub).unwrap_or_default().to_owned(), token: self.token.clone() }
    }
}

/// The files that lie in an archive, if that is what was chosen.
async fn unpacked(files: Vec<(String, File)>) -> Result<LocalFiles> {
    let (name, archive) = match &files[..] {
        [(name, file)] if is_archive(name) => (name.clone(), file.clone()),
        _ => return LocalFiles::new(files),
    };
    let places = list(&LocalFiles::new(files)?, &name, archive.size() as u64).await?;
    let file = |(name, (start, len)): (String, (u64, u64))| {
        let slice = archive.slice_with_f64_and_f64(start as f64, (start + len) as f64);
        // A slice of a file is read where that lies.
        slice.and_then(|slice| File::new_with_blob_sequence(&Array::of1(&slice), &name)).map(|file| (name, file))
    };
    let files: Result<Vec<(String, File)>, JsValue> = places.into_iter().map(file).collect();
    LocalFiles::new(files.map_err(|_| Error::Storage(format!("{name:?} could not be read: choose it again")))?)
}

/// A person's own files and their names: of a `FileSystemDirectoryHandle`, an array, or one. Those in a module's folder are called
/// `1_Pooling/config.json`; what else lies deeper is no part of a model.
pub async fn own_files(value: &JsValue) -> Result<Vec<(String, File)>> {
    let Some(folder) = value.dyn_ref::<FileSystemDirectoryHandle>() else { return given(value) };
    let mut files = in_folder(folder, "").await?;
    for name in opfs::names(folder).await?.into_iter().filter(|name| is_module(name)) {
        if let Ok(module) = opfs::existing(folder, &name).await {
            files.extend(in_folder(&module, &format!("{name}/")).await?);
        }
    }
    Ok(files)
}

async fn in_folder(folder: &FileSystemDirectoryHandle, path: &str) -> Result<Vec<(String, File)>> {
    let mut files = Vec::new();
    for name in opfs::names(folder).await? {
        // A folder of this name is no file.
        if let Ok(Some(file)) = opfs::file(folder, &name).await {
            files.push((format!("{path}{name}"), file));
        }
    }
    Ok(files)
}

fn given(value: &JsValue) -> Result<Vec<(String, File)>> {
    let wrong = || Error::InvalidInput("a source is an address, a hub id, a File, an array of Files, or a directory's handle".into());
    let values = if Array::is_array(value) { Array::from(value) } else { Array::of1(value) };
    let files: Vec<File> = values.iter().map(|one| one.dyn_into().map_err(|_| wrong())).collect::<Result<_>>()?;
    Ok(files.into_iter().filter_map(|file| Some((name(&file)?, file))).collect())
}

/// A file's name within a chosen directory, which its path begins with; `None` where it lies too deep.
fn name(file: &File) -> Option<String> {
    let path = Reflect::get(file, &"webkitRelativePath".into()).ok().and_then(|path| path.as_string()).unwrap_or_default();
    let name = path.split_once('/').map_or_else(|| file.name(), |(_, name)| name.to_owned());
    let near = name.split_once('/').is_none_or(|(folder, name)| is_module(folder) && !name.contains('/'));
    near.then_some(name)
}
