//! `openweights.json`: what a package holds, readable before any weight is fetched.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::store::is_sha256;
use crate::{
    card::Card,
    error::{Error, Result},
    json,
    quant::Format,
};

/// The manifest's file name within a package.
pub const MANIFEST: &str = "openweights.json";

/// The newest manifest that this engine reads, and the one it writes.
pub const FORMAT: u32 = 1;

/// Everything about a package. Fields that a newer writer adds are tolerated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this structure.
    pub format: u32,
    /// What to call the model.
    pub name: String,
    /// `model_type` of `config.json`.
    pub architecture: String,
    /// The format of most parameters: `q4_1`, `bf16`, ...
    pub quantization: String,
    /// Number of parameters.
    pub parameters: u64,
    /// The engine that wrote the package, as `openweights/0.1.0`.
    pub engine: String,
    /// What the package was made from.
    pub source: Source,
    /// What is declared of the model.
    pub card: Card,
    /// Format and shape of every tensor.
    pub tensors: BTreeMap<String, TensorEntry>,
    /// Every file but this one.
    pub files: Vec<FileEntry>,
}

/// The version alone.
#[derive(Deserialize)]
struct Version {
    format: Option<u64>,
}

/// What a package was made from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// Address, hub id or path, as given.
    pub origin: String,
    /// Revision on a hub.
    pub revision: Option<String>,
    /// File name, where the source is one file.
    pub file: Option<String>,
    /// SHA-256 of that file, as read.
    pub sha256: Option<String>,
    /// Every file that was read, with its digest as read.
    pub files: Vec<FileEntry>,
    /// Whether the weights' digests were compared with those that the publisher states; if not there is no publisher digest.
    pub publisher_digest: bool,
    /// What matrices were to become, see [`super::import::Quantize`].
    pub quantize: Option<String>,
}

/// A tensor's format and published shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorEntry {
    /// A name that [`Format::parse`] takes.
    pub format: String,
    /// Dimensions, slowest first.
    pub shape: Vec<usize>,
}

impl TensorEntry {
    /// The parsed format.
    pub fn format(&self) -> Result<Format> {
        Format::parse(&self.format)
    }
}

/// A file of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name; packages have no folders.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Lower-case hexadecimal SHA-256.
    pub sha256: String,
}

impl Manifest {
    /// Reads and checks a manifest.
    pub fn parse(bytes: &[u8]) -> Result<Manifest> {
        let bad = |what: String| Error::InvalidFile(format!("{MANIFEST}: {what}"));
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(bad("not a JSON object".into()));
        }
        // What a newer format has besides is not known here.
        match json::parse(MANIFEST, bytes, json::TYPED)? {
            Version { format: Some(version) } if version == u64::from(FORMAT) => {}
            Version { format: Some(version) } if version > u64::from(FORMAT) => {
                return Err(Error::UnsupportedFormat(format!(
                    "{MANIFEST} has format {version}, this engine reads up to {FORMAT}: update openweights, or convert the model again"
                )));
            }
            _ => return Err(bad(format!("\"format\" must be {FORMAT}"))),
        }
        let manifest: Manifest = json::parse(MANIFEST, bytes, json::TYPED)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The bytes of `openweights.json`: indented, the same for the same content.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a manifest has string keys only");
        bytes.push(b'\n');
        bytes
    }

    /// The entry of the file called `path`.
    pub fn file(&self, path: &str) -> Option<&FileEntry> {
        self.files.iter().find(|f| f.path == path)
    }

    /// Bytes of all files, and thus of the download.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }

    fn check(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        let mut total = 0_u64;
        for file in &self.files {
            check_file_name(&file.path)?;
            let bad = |what: &str| Err(Error::InvalidFile(format!("{MANIFEST}: file {:?} {what}", file.path)));
            if file.path == MANIFEST || !seen.insert(&file.path) {
                return bad("is listed twice, or is the manifest itself");
            }
            if !is_sha256(&file.sha256) {
                return bad("has a sha256 that is not 64 lower-case hexadecimal digits");
            }
            // 2^53: sizes stay exact in JavaScript.
            total = match total.checked_add(file.size) {
                Some(t) if t <= 1 << 53 => t,
                _ => return bad("has an impossible size"),
            };
        }
        for (name, tensor) in &self.tensors {
            tensor.format().map_err(|e| match e {
                Error::UnsupportedFormat(m) => Error::UnsupportedFormat(format!("tensor {name:?}: {m}")),
                other => other,
            })?;
            check_shape(name, &tensor.shape)?;
        }
        Ok(())
    }
}

/// A file's name must be one: no folder, nothing hidden.
pub fn check_file_name(name: &str) -> Result<()> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if plain && !name.is_empty() && !name.starts_with('.') && name.len() <= 255 {
        Ok(())
    } else {
        Err(Error::InvalidFile(format!("{name:?} is no file name: letters, digits, '.', '-' and '_' only, not beginning with '.'")))
    }
}

/// One to four dimensions, none 0; no row longer than 2^26 elements and fewer than 2^31 rows, so that sizes of rows and
/// numbers of rows fit 32 bits on every target.
pub(super) fn check_shape(name: &str, shape: &[usize]) -> Result<()> {
    let rows = shape.iter().rev().skip(1).try_fold(1_u64, |n, &d| n.checked_mul(d as u64));
    let possible = (1..=4).contains(&shape.len()) && matches!(rows, Some(1..=0x7fff_ffff)) && matches!(shape.last(), Some(1..=0x3ff_ffff));
    if possible { Ok(()) } else { Err(Error::InvalidFile(format!("tensor {name:?} has the impossible shape {shape:?}"))) }
}

/// Lower-case hexadecimal SHA-256 of `bytes`.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
