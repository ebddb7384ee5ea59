//! What is read of a publisher's files before any weight: configuration, tokenizer, card, and the headers of the weight
//! files. Whatever is wrong with them is found here.

use futures_util::{StreamExt, TryStreamExt, future, future::LocalBoxFuture, stream};
use serde_json::{Value, json};

use super::{
    Checkpoint, TensorInfo,
    files::{Listing, Memory},
    gguf::split::{Parts, join},
    import::{self, Quantize, SourceFile},
    layout::Target,
    manifest::{FileEntry, MANIFEST, check_file_name, sha256_hex},
    network::{Network, Request, Start},
    remote::Remote,
    safetensors, schemes,
    source::Source,
};
use crate::{
    error::{Error, Result},
    json,
    text::ChatTemplate,
};

/// Configuration.
const CONFIG: &str = "config.json";
/// Which shard holds which tensor.
const INDEX: &str = "model.safetensors.index.json";
const TOKENIZER: &str = "tokenizer.json";
const README: &str = "README.md";
/// Sentence Transformers' list of what follows the model, each in a folder of its own.
const MODULES: &str = "modules.json";
/// The weights, where they are one file.
pub(super) const WEIGHTS: &str = "model.safetensors";
/// The small files of a checkpoint; all but the first may be missing.
pub(super) const SMALL: [&str; 8] =
    [CONFIG, INDEX, TOKENIZER, README, MODULES, "generation_config.json", "tokenizer_config.json", "chat_template.jinja"];

/// Most bytes of a JSON file.
const MAX_JSON: usize = 128 << 20;
/// Most bytes of a README.md: its front matter is the beginning.
const MAX_README: usize = 1 << 20;
/// Most shards: models of terabytes have a few hundred.
const MAX_SHARDS: usize = 2000;
/// Most modules that follow a model: there are one to four.
const MAX_MODULES: usize = 16;
/// Most bytes of the file that stands for a large one in a hub's repository.
const MAX_POINTER: usize = 1 << 10;
/// Files that are asked for at the same time.
const PARALLEL: usize = 4;

/// What runs here, as the models know.
#[derive(Clone, Copy)]
pub struct Checks {
    /// Refuses an unknown `model_type`.
    pub known: fn(&str) -> Result<()>,
    /// Refuses unknown settings, and missing, misshapen and unknown tensors.
    pub check: for<'c> fn(&'c Checkpoint) -> LocalBoxFuture<'c, Result<()>>,
}

/// How a publisher's weights are stored.
pub(super) enum Weights {
    Gguf(Parts),
    Safetensors,
}

/// A weight file whose header is read.
pub(super) struct Opening<'a> {
    pub name: String,
    pub remote: Remote<'a>,
    /// As its publisher states it.
    pub sha256: Option<String>,
}

impl<'a> Opening<'a> {
    /// To be read.
    pub fn into_source(self) -> SourceFile<'a> {
        let (size, ranges) = (self.remote.size, self.remote.ranges());
        SourceFile { name: self.name, size, sha256: self.sha256, open: Box::new(self.remote.into_open()), ranges }
    }
}

/// A model of which all is known but its weights. The checkpoint's own files cannot be read.
pub(super) struct Opened<'a> {
    pub weights: Weights,
    pub checkpoint: Checkpoint,
    pub files: Vec<Opening<'a>>,
    /// The small files, as they were read.
    pub small: Vec<FileEntry>,
    /// What a hub served.
    pub revision: Option<String>,
}

impl Opened<'_> {
    /// The tensors, as they will be kept.
    pub fn targets(&self, quantize: Quantize) -> Result<Vec<Target>> {
        let Checkpoint { config, tensors, .. } = &self.checkpoint;
        let target = |(name, info): (&String, &TensorInfo)| match self.weights {
            Weights::Gguf(_) => quantize.target(config, name, info),
            Weights::Safetensors => quantize.published(config, name, info),
        };
        tensors.iter().map(target).collect()
    }
}

pub(super) struct Opener<'a> {
    pub network: Network<'a>,
    pub checks: Checks,
}

impl<'a> Opener<'a> {
    /// Reads the header of a GGUF, one file or split into `names`.
    pub async fn gguf(&self, source: &mut Source, names: &[String]) -> Result<Opened<'a>> {
        let (mut files, mut headers) = (Vec::new(), Vec::new());
        for name in names {
            let mut file = self.file(source, name).await?;
            if let Some(commit) = &file.remote.headers.commit {
                source.pin(commit);
            }
            let size = file.remote.size;
            headers.push(import::gguf_header(file.remote.headers_only(), size).await?);
            if names.len() > 1 {
                file.remote.pause();
            }
            files.push(file);
        }
        let parts = join(headers)?;
        let (config, card, targets) = import::inspect_gguf(&parts)?;
        let tensor = |t: Target| (t.name, TensorInfo { format: t.format, shape: t.shape, values: Vec::new(), scales: Vec::new() });
        let checkpoint = Checkpoint {
            config,
            generation_config: json!({}),
            tokenizer: None,
            tokenizer_config: json!({}),
            card,
            tensors: targets.into_iter().map(tensor).collect(),
            files: Box::new(Memory::default()),
        };
        (self.checks.check)(&checkpoint).await?;
        Ok(Opened { weights: Weights::Gguf(parts), checkpoint, files, small: Vec::new(), revision: source.revision() })
    }

    /// Reads a checkpoint's small files, then the headers of its weight files.
    pub async fn checkpoint(&self, source: &mut Source) -> Result<Opened<'a>> {
        let config = self.small(source, CONFIG).await?.ok_or_else(|| {
            let gguf = if source.pointer("").is_some() { "; if it holds GGUF files, name one: org/name/file.gguf" } else { "" };
            Error::NotFound(format!("{}: there is neither {MANIFEST} (a package) nor {CONFIG} (a checkpoint){gguf}", source.origin))
        })?;
        if let Some(commit) = &config.commit {
            source.pin(commit);
        }
        let value: Value = json::parse(CONFIG, &config.bytes, json::ANY)?;
        schemes::refuse(&value)?;
        let model_type = value.get("model_type").and_then(Value::as_str);
        (self.checks.known)(model_type.ok_or_else(|| Error::InvalidFile(format!("{CONFIG}: \"model_type\" is missing")))?)?;

        let rest = SMALL[1..].iter().map(|name| self.small(source, name));
        let rest = future::try_join_all(rest).await?;
        let mut memory = Memory::default();
        for (name, start) in SMALL.iter().zip([Some(config)].into_iter().chain(rest)) {
            memory.files.extend(start.map(|start| ((*name).to_owned(), start.bytes)));
        }
        let modules = self.modules(source, &mut memory).await?;
        let small = memory.files.iter().map(|(name, bytes)| entry(name, bytes)).collect();
        let tokenizer = memory.files.remove(TOKENIZER);
        if let Some(tokenizer) = &tokenizer {
            // Only whether it is JSON: what the tokenizer is made of takes several times its memory.
            serde_json::from_slice::<serde::de::IgnoredAny>(tokenizer).map_err(|e| Error::InvalidFile(format!("{TOKENIZER}: {e}")))?;
        }
        let mut files = self.weight_files(source, &memory).await?;
        files.extend(modules);
        let (files, checkpoint) = self.headers(files, memory).await?;
        (self.checks.check)(&checkpoint).await?;
        ChatTemplate::from_config(&checkpoint.tokenizer_config)?;
        let checkpoint = Checkpoint { tokenizer, ..checkpoint };
        Ok(Opened { weights: Weights::Safetensors, checkpoint, files, small, revision: source.revision() })
    }

    /// `model.safetensors`, or else the shards that the index names.
    async fn weight_files(&self, source: &Source, memory: &Memory) -> Result<Vec<Opening<'a>>> {
        match self.file(source, WEIGHTS).await {
            Err(Error::NotFound(_)) => {}
            one => return Ok(vec![one?]),
        }
        let Some(index) = memory.files.get(INDEX) else {
            return Err(Error::NotFound(format!("{}: a checkpoint has {WEIGHTS} or {INDEX}", source.origin)));
        };
        let index: Value = json::parse(INDEX, index, json::ANY)?;
        let map = index.get("weight_map").and_then(Value::as_object);
        let mut names: Vec<&str> = map.into_iter().flatten().filter_map(|(_, file)| file.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() || names.len() > MAX_SHARDS {
            return Err(Error::InvalidFile(format!("{INDEX}: it names {} files", names.len())));
        }
        for name in &names {
            check_file_name(name)?;
        }
        stream::iter(names).map(|name| self.file(source, name)).buffered(PARALLEL).try_collect().await
    }

    /// The weight files of Sentence Transformers' modules; their configurations go to `memory`.
    async fn modules(&self, source: &Source, memory: &mut Memory) -> Result<Vec<Opening<'a>>> {
        let Some(modules) = memory.files.get(MODULES) else { return Ok(Vec::new()) };
        let modules: Value = json::parse(MODULES, modules, json::ANY)?;
        let mut files = Vec::new();
        for module in modules.as_array().into_iter().flatten().take(MAX_MODULES) {
            let text = |key: &str| module.get(key).and_then(Value::as_str).unwrap_or_default();
            let (kind, path) = (text("type").rsplit('.').next().unwrap_or_default(), text("path"));
            if path.is_empty() {
                continue;
            }
            check_file_name(path)?;
            let config = format!("{path}/{CONFIG}");
            match self.small(source, &config).await? {
                Some(start) => drop(memory.files.insert(config, start.bytes)),
                None if matches!(kind, "Pooling" | "Dense") => {
                    return Err(Error::NotFound(format!(
                        "{:?}, which {MODULES} needs: give the folder, address or hub id of the whole model",
                        source.address(&config)
                    )));
                }
                None => {}
            }
            match self.file(source, &format!("{path}/{WEIGHTS}")).await {
                Err(Error::NotFound(_)) => {}
                file => files.push(file?),
            }
        }
        Ok(files)
    }

    /// Reads the headers of all weight files, which with the small files make a checkpoint without weights.
    async fn headers(&self, files: Vec<Opening<'a>>, mut memory: Memory) -> Result<(Vec<Opening<'a>>, Checkpoint)> {
        let several = files.len() > 1;
        let heads = stream::iter(files).map(async |mut file| {
            let head = safetensors::header_bytes(file.remote.head(safetensors::FIRST_READ).await?);
            let head = file.remote.head(head).await?.to_vec();
            if several {
                file.remote.pause();
            }
            Ok((file, head))
        });
        let heads: Vec<(Opening<'a>, Vec<u8>)> = heads.buffered(PARALLEL).try_collect().await?;
        let (mut listing, mut files) = (memory.listing(), Vec::new());
        for (file, head) in heads {
            listing.insert(file.name.clone(), file.remote.size);
            memory.files.insert(file.name.clone(), head);
            files.push(file);
        }
        let listing: Listing = listing;
        Ok((files, safetensors::open(Box::new(memory), &listing).await?))
    }

    async fn small(&self, source: &Source, name: &str) -> Result<Option<Start>> {
        let (url, most) = (source.address(name), if name == README { MAX_README } else { MAX_JSON });
        match self.network.start(&url, most).await? {
            Some(Start { whole: false, .. }) if name != README => {
                Err(Error::InvalidFile(format!("{url} is longer than {most} bytes, which is the most that is read")))
            }
            start => Ok(start),
        }
    }

    async fn file(&self, source: &Source, name: &str) -> Result<Opening<'a>> {
        let url = source.address(name);
        let remote = Remote::open(self.network, url.clone()).await?.ok_or(Error::NotFound(url))?;
        let sha256 = remote.headers.linked_etag.as_deref().and_then(digest);
        Ok(Opening { name: name.to_owned(), remote, sha256 })
    }

    /// Asks the hub for the digests that it has not told.
    pub async fn digests(&self, source: &Source, files: &mut [Opening<'a>]) -> Result<()> {
        for file in files.iter_mut().filter(|file| file.sha256.is_none()) {
            file.sha256 = self.pointed(source, &file.name, file.remote.size).await?;
        }
        Ok(())
    }

    /// The digest in the pointer that a hub's repository holds instead of a large file: a browser may not see the headers of
    /// an answer that redirects. A hub without pointers states no digest.
    async fn pointed(&self, source: &Source, name: &str, size: u64) -> Result<Option<String>> {
        let Some(url) = source.pointer(name) else { return Ok(None) };
        let first = Request { range: Some(0..MAX_POINTER as u64), ..Request::new(&url) };
        let Ok(mut response) = self.network.answer(first).await else { return self.network.abort.check().map(|()| None) };
        let mut bytes = Vec::new();
        while let Ok(Some(Ok(chunk))) = self.network.patiently(&url, response.body.next()).await {
            bytes.extend(chunk);
            if bytes.len() > MAX_POINTER {
                break;
            }
        }
        self.network.abort.check()?;
        Ok(pointer(&bytes).filter(|(_, of)| *of == size).map(|(sha256, _)| sha256))
    }
}

fn entry(name: &str, bytes: &[u8]) -> FileEntry {
    FileEntry { path: name.to_owned(), size: bytes.len() as u64, sha256: sha256_hex(bytes) }
}

/// A SHA-256 in an entity tag: `"9f86..."`.
fn digest(etag: &str) -> Option<String> {
    let text = etag.trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
    (text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())).then_some(text)
}

/// Digest and size in a Git LFS pointer.
fn pointer(bytes: &[u8]) -> Option<(String, u64)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    text.starts_with("version https://git-lfs.github.com/spec/").then_some(())?;
    Some((digest(value("oid")?.strip_prefix("sha256:")?)?, value("size")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_where_hubs_put_them() {
        let sha256 = "ab".repeat(32);
        assert_eq!(digest(&format!("\"{sha256}\"")), Some(sha256.clone()));
        assert_eq!(digest("\"d41d8cd98f00b204e9800998ecf8427e\""), None);
        let text = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize 12\n");
        assert_eq!(pointer(text.as_bytes()), Some((sha256, 12)));
        assert_eq!(pointer(b"<html>"), None);
    }
}
