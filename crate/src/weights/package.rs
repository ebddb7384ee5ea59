//! Reading a package: its manifest says what there is, the shards' headers say where.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::{
    Checkpoint, Files, Part, TensorInfo,
    files::Listing,
    layout::dtype,
    manifest::{Manifest, TensorEntry, hex},
    safetensors::{self, Entry},
};
use crate::{
    error::{Error, Result},
    quant::Plane,
};

/// Opens the package that `manifest` describes. Digests are not computed here: files are hashed while they are stored, and
/// by [`verify`].
pub async fn open(manifest: &Manifest, files: Box<dyn Files>) -> Result<Checkpoint> {
    let listing: Listing = manifest.files.iter().map(|f| (f.path.clone(), f.size)).collect();
    let config = safetensors::read_json(&*files, &listing, "config.json")
        .await?
        .ok_or_else(|| Error::InvalidFile("the package has no config.json".into()))?;
    let mut stored = BTreeMap::new();
    for (file, &size) in listing.iter().filter(|(name, _)| name.ends_with(".safetensors")) {
        for (name, entry) in safetensors::read_header(&*files, file, size).await? {
            if let Some(other) = stored.insert(name.clone(), entry) {
                return Err(Error::InvalidFile(format!("{name:?} is in {:?} and in {file:?}", other.part.file)));
            }
        }
    }
    let mut tensors = BTreeMap::new();
    for (name, entry) in &manifest.tensors {
        tensors.insert(name.clone(), tensor(name, entry, &mut stored)?);
    }
    if let Some((name, entry)) = stored.first_key_value() {
        return Err(Error::InvalidFile(format!("{name:?} in {:?} belongs to no tensor of the manifest", entry.part.file)));
    }
    let small = safetensors::small_files(&*files, &listing).await?;
    Ok(Checkpoint { config, card: manifest.card.clone(), tensors, files, ..small })
}

/// Finds a tensor's planes among what is stored.
fn tensor(name: &str, entry: &TensorEntry, stored: &mut BTreeMap<String, Entry>) -> Result<TensorInfo> {
    let mut info = TensorInfo { format: entry.format()?, shape: entry.shape.clone(), values: Vec::new(), scales: Vec::new() };
    info.values = match stored.remove(name) {
        Some(whole) if !info.format.is_quantised() && whole.shape == info.shape => parts(name, &info, Plane::Values, vec![whole])?,
        Some(whole) => {
            let (format, shape) = (info.format.name(), &info.shape);
            let message = format!("tensor {name:?} is stored with shape {:?}, the manifest says {format} {shape:?}", whole.shape);
            return Err(Error::InvalidFile(message));
        }
        None => parts(name, &info, Plane::Values, pieces(&format!("{name}.values"), stored))?,
    };
    if info.format.is_quantised() {
        info.scales = parts(name, &info, Plane::Scales, pieces(&format!("{name}.scales"), stored))?;
    }
    Ok(info)
}

/// The piece called `base`, or `base.0`, `base.1`, ...
fn pieces(base: &str, stored: &mut BTreeMap<String, Entry>) -> Vec<Entry> {
    match stored.remove(base) {
        Some(whole) => vec![whole],
        None => (0..).map_while(|i| stored.remove(&format!("{base}.{i}"))).collect(),
    }
}

/// Checks that `pieces` are whole rows of the plane, and all of it.
fn parts(name: &str, info: &TensorInfo, plane: Plane, pieces: Vec<Entry>) -> Result<Vec<Part>> {
    let bad = |what: String| Error::InvalidFile(format!("tensor {name:?}, {plane:?}: {what}"));
    if pieces.is_empty() {
        return Err(Error::InvalidFile(format!("tensor {name:?} is missing: no shard holds its {}", plane_name(plane))));
    }
    let row_bytes = info.format.row_bytes(plane, info.cols()) as u64;
    let expected = row_bytes.checked_mul(info.rows() as u64);
    let mut total = 0;
    for piece in &pieces {
        if piece.dtype != dtype(info.format, plane) || piece.part.len % row_bytes != 0 {
            let shape = &piece.shape;
            return Err(bad(format!("a piece in {:?} is {:?} {shape:?}, no rows of {row_bytes} bytes", piece.part.file, piece.dtype)));
        }
        total += piece.part.len;
    }
    if Some(total) != expected {
        return Err(bad(format!("{total} bytes are stored, shape {:?} as {} needs {expected:?}", info.shape, info.format.name())));
    }
    Ok(pieces.into_iter().map(|p| p.part).collect())
}

fn plane_name(plane: Plane) -> &'static str {
    match plane {
        Plane::Values => "values",
        Plane::Scales => "scales",
    }
}

/// Reads every file of a package and compares its SHA-256; calls `progress` with bytes done and bytes in all.
pub async fn verify(manifest: &Manifest, files: &dyn Files, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    const BLOCK: u64 = 1 << 20;
    let (mut done, total) = (0, manifest.bytes());
    for file in &manifest.files {
        let mut hash = Sha256::new();
        for start in (0..file.size).step_by(BLOCK as usize) {
            let len = BLOCK.min(file.size - start);
            hash.update(files.read(&file.path, start, len as usize).await?);
            done += len;
            progress(done, total);
        }
        let found = hex(&hash.finalize());
        if found != file.sha256 {
            return Err(Error::Integrity(format!("{:?} has sha256 {found}, the manifest says {}: fetch it again", file.path, file.sha256)));
        }
    }
    Ok(())
}
