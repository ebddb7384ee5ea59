//! A GGUF in several files: the first has the metadata, each has tensors of its own. Source: llama.cpp's `gguf-split`.

use std::collections::HashSet;

use super::{Header, Metadata};
use crate::error::{Error, Result};

/// The headers of all files of a model, as one.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// Metadata of the first, tensors of all; a tensor's offset is within its own file.
    pub header: Header,
    /// How many of the tensors are in each file.
    pub counts: Vec<usize>,
}

/// Joins the headers of a model's files, in their order: one, unless it is split.
pub fn join(headers: Vec<Header>) -> Result<Parts> {
    let files = headers.len();
    for (number, header) in headers.iter().enumerate() {
        check(&header.metadata, number, files)?;
    }
    let counts: Vec<usize> = headers.iter().map(|header| header.tensors.len()).collect();
    let mut headers = headers.into_iter();
    let mut header = headers.next().ok_or_else(|| Error::InvalidInput("a GGUF has at least one file".into()))?;
    header.tensors.extend(headers.flat_map(|header| header.tensors));
    let (found, stated) = (header.tensors.len(), header.metadata.u32("split.tensors.count")?);
    if stated.is_some_and(|stated| stated as usize != found) {
        return Err(Error::InvalidFile(format!("GGUF metadata \"split.tensors.count\" is {stated:?}, the files have {found} tensors")));
    }
    let mut names = HashSet::new();
    match header.tensors.iter().find(|tensor| !names.insert(tensor.name.as_str())) {
        Some(twice) => Err(Error::InvalidFile(format!("GGUF tensor {:?} occurs in two files", twice.name))),
        None => Ok(Parts { header, counts }),
    }
}

/// Whether this is file `number` of `files`.
fn check(metadata: &Metadata, number: usize, files: usize) -> Result<()> {
    let count = metadata.u32("split.count")?.unwrap_or(1).max(1) as usize;
    if count != files {
        let message = format!("one of {count} parts of a split GGUF, of which {files} are given: give all of them");
        return Err(Error::UnsupportedFormat(message));
    }
    match metadata.u32("split.no")?.unwrap_or(0) as usize {
        found if found != number => {
            Err(Error::InvalidFile(format!("GGUF metadata \"split.no\" is {found} in part {}; parts count from 0", number + 1)))
        }
        _ => Ok(()),
    }
}
