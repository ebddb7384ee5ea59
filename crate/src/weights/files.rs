//! Places that files lie in: memory everywhere, a directory natively.

use std::collections::BTreeMap;

use futures_util::{FutureExt, future::LocalBoxFuture};

use super::{Files, Sink};
use crate::error::{Error, Result};

/// Names and sizes of the files in a place.
pub type Listing = BTreeMap<String, u64>;

/// Files in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// Contents by name.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Memory {
    /// Names and sizes.
    pub fn listing(&self) -> Listing {
        self.files.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect()
    }
}

impl Files for Memory {
    fn read<'a>(&'a self, file: &'a str, offset: u64, len: usize) -> LocalBoxFuture<'a, Result<Vec<u8>>> {
        async move {
            let bytes = self.files.get(file).ok_or_else(|| Error::NotFound(format!("file {file:?}")))?;
            let range = usize::try_from(offset).ok().and_then(|start| Some(start..start.checked_add(len)?));
            range.and_then(|r| bytes.get(r)).map(<[u8]>::to_vec).ok_or_else(|| cut_short(file, offset, len, bytes.len() as u64))
        }
        .boxed_local()
    }
}

impl Sink for Memory {
    fn append<'a>(&'a mut self, path: &'a str, bytes: &'a [u8]) -> LocalBoxFuture<'a, Result<()>> {
        self.files.entry(path.to_owned()).or_default().extend_from_slice(bytes);
        async { Ok(()) }.boxed_local()
    }

    fn close<'a>(&'a mut self, path: &'a str, _sha256: &'a str) -> LocalBoxFuture<'a, Result<()>> {
        // A file without bytes is one too.
        self.files.entry(path.to_owned()).or_default();
        async { Ok(()) }.boxed_local()
    }
}

/// The error of a read beyond a file's end.
pub(crate) fn cut_short(file: &str, offset: u64, len: usize, size: u64) -> Error {
    Error::Integrity(format!("{file:?} is cut short: bytes {offset} to {} are needed, it has {size}", offset.saturating_add(len as u64)))
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::failed;
#[cfg(not(target_arch = "wasm32"))]
pub use native::{Directory, DirectorySink};

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use std::{
        fs::{self, File},
        io::{self, Read, Seek, SeekFrom, Write},
        path::{Path, PathBuf},
    };

    use super::*;
    use crate::weights::{manifest::MANIFEST, sentence::is_module};

    /// The files of a directory.
    #[derive(Debug, Clone)]
    pub struct Directory {
        root: PathBuf,
    }

    impl Directory {
        /// The directory at `root`.
        pub fn new(root: impl Into<PathBuf>) -> Directory {
            Directory { root: root.into() }
        }

        /// Its plain files (links are followed), and those in folders of Sentence Transformers' modules: `1_Pooling/config.json`.
        pub fn listing(&self) -> Result<Listing> {
            let mut listing = Listing::new();
            list(&self.root, "", &mut listing)?;
            Ok(listing)
        }

        fn read_now(&self, file: &str, offset: u64, len: usize) -> Result<Vec<u8>> {
            let path = self.root.join(file);
            let mut handle = File::open(&path).map_err(|e| failed(&path, e))?;
            let size = handle.metadata().map_err(|e| failed(&path, e))?.len();
            if offset.checked_add(len as u64).is_none_or(|end| end > size) {
                return Err(cut_short(&path.display().to_string(), offset, len, size));
            }
            let mut bytes = vec![0; len];
            handle.seek(SeekFrom::Start(offset)).and_then(|_| handle.read_exact(&mut bytes)).map_err(|e| failed(&path, e))?;
            Ok(bytes)
        }
    }

    fn list(folder: &Path, prefix: &str, listing: &mut Listing) -> Result<()> {
        for entry in fs::read_dir(folder).map_err(|e| failed(folder, e))? {
            let path = entry.map_err(|e| failed(folder, e))?.path();
            let metadata = fs::metadata(&path).map_err(|e| failed(&path, e))?;
            let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
            if metadata.is_file() {
                listing.insert(format!("{prefix}{name}"), metadata.len());
            } else if prefix.is_empty() && metadata.is_dir() && is_module(name) {
                list(&path, &format!("{name}/"), listing)?;
            }
        }
        Ok(())
    }

    impl Files for Directory {
        fn read<'a>(&'a self, file: &'a str, offset: u64, len: usize) -> LocalBoxFuture<'a, Result<Vec<u8>>> {
            async move { self.read_now(file, offset, len) }.boxed_local()
        }
    }

    /// Writes a package into a directory. Each file appears whole, under its name, or not at all; the manifest comes last.
    #[derive(Debug)]
    pub struct DirectorySink {
        root: PathBuf,
        /// Files that are being written, under `<name>.partial`.
        open: BTreeMap<String, File>,
    }

    impl DirectorySink {
        /// Makes the directory at `root`. One that holds a package already is not overwritten.
        pub fn create(root: impl Into<PathBuf>) -> Result<DirectorySink> {
            let root = root.into();
            if root.join(MANIFEST).exists() {
                return Err(Error::InvalidInput(format!(
                    "{} holds a package already: remove it or choose another directory",
                    root.display()
                )));
            }
            fs::create_dir_all(&root).map_err(|e| failed(&root, e))?;
            Ok(DirectorySink { root, open: BTreeMap::new() })
        }
    }

    impl DirectorySink {
        fn partial(&self, path: &str) -> PathBuf {
            self.root.join(format!("{path}.partial"))
        }

        fn opened(&mut self, path: &str) -> io::Result<&mut File> {
            if !self.open.contains_key(path) {
                self.open.insert(path.to_owned(), File::create(self.partial(path))?);
            }
            Ok(self.open.get_mut(path).expect("just opened"))
        }

        fn finish(&mut self, path: &str) -> io::Result<()> {
            self.opened(path)?.sync_all()?;
            self.open.remove(path);
            fs::rename(self.partial(path), self.root.join(path))
        }
    }

    impl Sink for DirectorySink {
        fn append<'a>(&'a mut self, path: &'a str, bytes: &'a [u8]) -> LocalBoxFuture<'a, Result<()>> {
            let written = self.opened(path).and_then(|file| file.write_all(bytes));
            let result = written.map_err(|e| failed(&self.partial(path), e));
            async { result }.boxed_local()
        }

        fn close<'a>(&'a mut self, path: &'a str, _sha256: &'a str) -> LocalBoxFuture<'a, Result<()>> {
            let result = self.finish(path).map_err(|e| failed(&self.root.join(path), e));
            async { result }.boxed_local()
        }
    }

    pub(crate) fn failed(path: &Path, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::NotFound => Error::NotFound(path.display().to_string()),
            _ => Error::Storage(format!("{}: {error}", path.display())),
        }
    }
}
