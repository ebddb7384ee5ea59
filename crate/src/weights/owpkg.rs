//! `.owpkg`: a package in one file, for machines that never see the network. An uncompressed tar (POSIX ustar) of plain files, the
//! manifest first; `tar --format=ustar` in a package's directory makes one, too.

use std::collections::BTreeMap;

use futures_util::{FutureExt, future::LocalBoxFuture};

use super::{
    Files,
    files::{Listing, cut_short},
    manifest::{FileEntry, MANIFEST, check_file_name},
    signing::SIGNATURE,
    store::Record,
};
use crate::error::{Error, Result};

/// How such a file's name ends.
pub const EXTENSION: &str = ".owpkg";

/// Headers and contents begin at multiples of this.
const BLOCK: u64 = 512;
/// Most files of a package: models of terabytes have a few tens of thousands of shards.
const MOST_FILES: usize = 1 << 16;
/// What tar programs fill a file's end up to.
const PADDING: u64 = 20 * BLOCK;

/// Where a file lies in the archive: its first byte, and how many it has.
pub type Place = (u64, u64);

/// Whether a name is that of an archive.
pub fn is_archive(name: &str) -> bool {
    name.len() > EXTENSION.len() && name.to_ascii_lowercase().ends_with(EXTENSION)
}

/// The files of the archive `name` of `size` bytes, by their names. Only headers are read.
pub async fn list(files: &dyn Files, name: &str, size: u64) -> Result<BTreeMap<String, Place>> {
    let bad = |what: String| Error::InvalidFile(format!("{name:?}: {what}"));
    let (mut found, mut at) = (BTreeMap::new(), 0);
    loop {
        if at + BLOCK > size {
            return Err(Error::Integrity(format!("{name:?} is cut short: it ends at byte {size} without an end")));
        }
        let block = files.read(name, at, BLOCK as usize).await?;
        if block.iter().all(|byte| *byte == 0) {
            break;
        }
        let (path, len) = header(&block).map_err(|what| bad(format!("byte {at}: {what}")))?;
        check_file_name(&path)?;
        if found.is_empty() && path != MANIFEST {
            return Err(bad(format!("it begins with {path:?}, and must with {MANIFEST}")));
        }
        let start = at + BLOCK;
        if len > size - start {
            return Err(cut_short(name, start, usize::try_from(len).unwrap_or(usize::MAX), size));
        }
        if found.len() == MOST_FILES || found.insert(path.clone(), (start, len)).is_some() {
            return Err(bad(format!("{path:?} is there twice, or one of more than {MOST_FILES} files")));
        }
        at = start + len.next_multiple_of(BLOCK);
    }
    match found.is_empty() || size - at > PADDING {
        true => Err(bad(format!("it ends at byte {at}, and {} follow", size - at))),
        false => Ok(found),
    }
}

/// Name and length in a header; what is wrong with it, if it is not that of a plain file.
fn header(block: &[u8]) -> Result<(String, u64), String> {
    let sum: u64 = block.iter().enumerate().map(|(i, byte)| u64::from(if (148..156).contains(&i) { b' ' } else { *byte })).sum();
    if &block[257..262] != b"ustar" || octal(&block[148..156]) != Some(sum) {
        return Err("no tar header (POSIX ustar)".into());
    }
    let text = |field: &[u8]| String::from_utf8_lossy(field.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    let (name, kind, prefix) = (text(&block[..100]), block[156], &block[345..500]);
    // `tar c .` and the like put this before names.
    let name = name.strip_prefix("./").map(str::to_owned).unwrap_or(name);
    if !matches!(kind, b'0' | 0) || prefix[0] != 0 {
        return Err(format!("{name:?} is no plain file without folder (tar --format=ustar -cf X.owpkg {MANIFEST} ...)"));
    }
    octal(&block[124..136]).map(|len| (name.clone(), len)).ok_or_else(|| format!("{name:?} has no length"))
}

/// Octal digits up to a space or a zero.
fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_end_matches(['\0', ' ']).trim_start();
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| u64::from_str_radix(text, 8).ok())?
}

/// The files of an archive, read as if they lay beside each other.
pub struct Archive<F> {
    files: F,
    name: String,
    places: BTreeMap<String, Place>,
}

impl<F: Files> Archive<F> {
    /// The archive `name` among `files`, of `size` bytes.
    pub async fn open(files: F, name: &str, size: u64) -> Result<Archive<F>> {
        let places = list(&files, name, size).await?;
        Ok(Archive { files, name: name.to_owned(), places })
    }

    /// Names and sizes.
    pub fn listing(&self) -> Listing {
        self.places.iter().map(|(name, (_, len))| (name.clone(), *len)).collect()
    }
}

impl<F: Files> Files for Archive<F> {
    fn read<'a>(&'a self, file: &'a str, offset: u64, len: usize) -> LocalBoxFuture<'a, Result<Vec<u8>>> {
        async move {
            let (start, size) = self.places.get(file).ok_or_else(|| Error::NotFound(format!("file {file:?} of {:?}", self.name)))?;
            match offset.checked_add(len as u64).is_some_and(|end| end <= *size) {
                true => self.files.read(&self.name, start + offset, len).await,
                false => Err(cut_short(file, offset, len, *size)),
            }
        }
        .boxed_local()
    }
}

/// A piece of an archive that is written.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// These bytes.
    Bytes(Vec<u8>),
    /// All of a stored file.
    Stored(FileEntry),
}

/// A stored package as an archive, piece by piece.
pub fn pieces(record: &Record) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let manifest = record.text.clone().map_or_else(|| record.manifest.to_bytes(), String::into_bytes);
    let signature = record.signature.clone().map(|signature| (SIGNATURE, signature.into_bytes()));
    for (name, bytes) in [(MANIFEST, manifest)].into_iter().chain(signature) {
        let size = bytes.len() as u64;
        pieces.push(Piece::Bytes([header_of(name, size)?, bytes, padding(size)].concat()));
    }
    for file in &record.manifest.files {
        pieces.push(Piece::Bytes(header_of(&file.path, file.size)?));
        pieces.push(Piece::Stored(file.clone()));
        pieces.push(Piece::Bytes(padding(file.size)));
    }
    pieces.push(Piece::Bytes(vec![0; 2 * BLOCK as usize]));
    Ok(pieces)
}

fn padding(size: u64) -> Vec<u8> {
    vec![0; (size.next_multiple_of(BLOCK) - size) as usize]
}

/// The header of a plain file that everyone may read, of no owner and no time: one package is one archive.
fn header_of(name: &str, size: u64) -> Result<Vec<u8>> {
    if name.len() > 100 || size >= 1 << 33 {
        return Err(Error::UnsupportedFormat(format!(
            "{name:?} of {size} bytes does not fit {EXTENSION}: 100 letters and 8 GiB are the most"
        )));
    }
    let mut block = vec![0; BLOCK as usize];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    for (at, text) in [(100, "0000644"), (108, "0000000"), (116, "0000000"), (136, "00000000000"), (148, "        "), (257, "ustar\x0000")]
    {
        put(at, text);
    }
    put(124, &format!("{size:011o}"));
    put(156, "0");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}
