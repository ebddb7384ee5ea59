//! What a person names as a model: an address, a hub id, or files of their own; and where its files are asked for then.
//!
//! The identity of a source is what is known of it without asking the network: for addresses the address (and revision), as
//! for everything on the web; for a person's own files their contents, since names and sizes of two models may agree.

use super::{
    files::Listing,
    import::Quantize,
    manifest::{MANIFEST, check_file_name},
    network::origin,
};
use crate::error::{Error, Result};

/// The hub that ids are looked up at.
pub const HUB: &str = "https://huggingface.co";
/// The address of one of a person's own files begins so, its name follows.
pub const LOCAL: &str = "file:";
/// What is stored is named so, its id follows.
pub const STORED: &str = "store:";

/// Most files of a split GGUF.
const MOST_PARTS: u32 = 1000;

/// What is said besides a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// The hub's address, where it is not [`HUB`].
    pub hub: Option<String>,
    /// Branch, tag or commit at a hub; `main` unless said.
    pub revision: Option<String>,
    /// The person's token at the hub.
    pub token: Option<String>,
}

/// Where a model's files lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its address, for people and as its identity; the names, for a person's own files.
    pub origin: String,
    /// What a GGUF's files are called, in order; none where the source is a directory.
    pub gguf: Option<Vec<String>>,
    /// The host that the token is for.
    pub hub: String,
    /// A person's own files.
    pub local: Option<Listing>,
    /// The id of a stored model.
    pub stored: Option<String>,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Files are at `{base}{file}{query}`.
    Web { base: String, query: String },
    /// Files are at `{hub}/{id}/resolve/{revision}/{folder}{file}`.
    Hub { id: String, revision: String, folder: String },
}

impl Source {
    /// The model at `text`: an address; a hub's `org/name[@revision]`, which a GGUF's file name may follow; or `store:` and the
    /// id of a stored one.
    pub fn parse(text: &str, access: &Access) -> Result<Source> {
        if let Some(id) = text.strip_prefix(STORED) {
            let place = Place::Web { base: STORED.into(), query: String::new() };
            let stored = Some(id.to_owned());
            return Ok(Source { origin: text.into(), gguf: None, hub: String::new(), local: None, stored, place });
        }
        let hub = access.hub.as_deref().unwrap_or(HUB).trim_end_matches('/');
        if origin(hub).is_none() {
            return Err(Error::InvalidInput(format!("hub {hub:?} is not an address such as {HUB}")));
        }
        match origin(text) {
            Some(host) => Self::web(text, host, hub, access),
            None => Self::hub(text, hub, access),
        }
    }

    fn web(text: &str, host: &str, hub: &str, access: &Access) -> Result<Source> {
        let wrong = |what: &str| Err(Error::InvalidInput(format!("{what} is for models at a hub, named by id; {text:?} is an address")));
        if access.revision.is_some() {
            return wrong("revision");
        }
        if access.token.is_some() && Some(host) != origin(hub) {
            return wrong("token");
        }
        let text = text.split('#').next().unwrap_or_default();
        let (path, query) = text.find('?').map_or((text, ""), |at| text.split_at(at));
        let (folder, name) = path.rsplit_once('/').unwrap_or((path, ""));
        let gguf = folder.len() > host.len() - 1 && is_gguf(name);
        let (base, gguf) = match gguf {
            true => (format!("{folder}/"), Some(split_names(name))),
            false if !query.is_empty() => {
                return Err(Error::InvalidInput(format!("{text:?} is the address of a directory, which has no query")));
            }
            false => (super::download::base_url(path), None),
        };
        // The first part of a split file stands for all of them.
        let origin = gguf.as_ref().map_or_else(|| format!("{base}{query}"), |names| format!("{base}{}{query}", names[0]));
        Ok(Source { origin, gguf, hub: hub.into(), local: None, stored: None, place: Place::Web { base, query: query.into() } })
    }

    fn hub(text: &str, hub: &str, access: &Access) -> Result<Source> {
        let bad =
            || Error::InvalidInput(format!("{text:?} is no address and no hub id: write https://..., or org/name, or org/name@revision"));
        let mut parts = text.splitn(3, '/');
        let (Some(org), Some(name)) = (parts.next(), parts.next()) else { return Err(bad()) };
        let (name, mut said) = name.split_once('@').map_or((name, None), |(name, revision)| (name, Some(revision.to_owned())));
        let mut file = parts.next().unwrap_or_default();
        // org/name@refs/pr/1: a revision may have slashes; the last part is a file only if it is a GGUF's.
        if let (Some(revision), false) = (&mut said, file.is_empty()) {
            let (more, last) = match file.rsplit_once('/') {
                Some((folder, last)) if is_gguf(last) => (folder, last),
                None if is_gguf(file) => ("", file),
                _ => (file, ""),
            };
            if !more.is_empty() {
                *revision = format!("{revision}/{more}");
            }
            file = last;
        }
        let plain = |part: &str| check_file_name(part).is_ok();
        let (folder, name_of_file) = file.rsplit_once('/').map_or(("", file), |(folder, name)| (folder, name));
        let file_is_good = file.is_empty() || (is_gguf(name_of_file) && file.split('/').all(plain));
        if !plain(org) || !plain(name) || !file_is_good {
            return Err(bad());
        }
        let revision = match (said, &access.revision) {
            (Some(a), Some(b)) if a != *b => {
                return Err(Error::InvalidInput(format!("{text:?} names revision {a:?}, the option says {b:?}")));
            }
            (a, b) => a.or_else(|| b.clone()).unwrap_or_else(|| "main".into()),
        };
        if !revision.split('/').all(plain) {
            return Err(Error::InvalidInput(format!("revision {revision:?} is no name of a branch, tag or commit")));
        }
        let gguf = (!file.is_empty()).then(|| split_names(name_of_file));
        let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let mut origin = format!("{hub}/{org}/{name}@{revision}");
        if let Some(names) = &gguf {
            origin += &format!("/{folder}{}", names[0]);
        }
        let place = Place::Hub { id: format!("{org}/{name}"), revision, folder };
        Ok(Source { origin, gguf, hub: hub.into(), local: None, stored: None, place })
    }

    /// Where a stored model was imported from: `origin`, as its record has it, and a hub's `revision`, if it is at a hub.
    pub fn again(origin_of: &str, revision: Option<&str>, access: &Access) -> Result<Source> {
        let Some(revision) = revision else {
            return Source::parse(origin_of, &Access { hub: access.hub.clone(), ..Access::default() });
        };
        let hub = access.hub.as_deref().unwrap_or(HUB).trim_end_matches('/');
        let hub = if origin_of.starts_with(&format!("{hub}/")) { hub } else { origin(origin_of).unwrap_or_default() };
        let id = origin_of.strip_prefix(hub).unwrap_or_default().trim_start_matches('/');
        let (id, rest) = id.split_once('@').unwrap_or((id, ""));
        // What was asked for: a branch, tag or commit, or refs/pr/1; a GGUF's folder and name follow.
        let file = rest.splitn(if rest.starts_with("refs/") { 4 } else { 2 }, '/').nth(if rest.starts_with("refs/") { 3 } else { 1 });
        let text = file.map_or_else(|| id.to_owned(), |file| format!("{id}/{file}"));
        Source::parse(&text, &Access { hub: Some(hub.to_owned()), revision: Some(revision.to_owned()), token: None })
    }

    /// A person's own files: a package's, a GGUF's or a checkpoint's, told apart by their names.
    pub fn files(listing: Listing) -> Result<Source> {
        let ggufs: Vec<&String> = listing.keys().filter(|name| is_gguf(name)).collect();
        let directory = [MANIFEST, "config.json"].iter().any(|name| listing.contains_key(*name));
        let gguf = match ggufs.first() {
            Some(first) if !directory => Some(split_names(first)),
            _ => None,
        };
        let wanted = "choose one GGUF file, all parts of a split one, or a checkpoint's files (config.json, *.safetensors, tokenizer.json)";
        let origin = match &gguf {
            None if directory => listing.get_key_value(MANIFEST).map_or("config.json", |(name, _)| name).to_owned(),
            None => return Err(Error::InvalidInput(format!("{} files, none of them a GGUF or config.json: {wanted}", listing.len()))),
            Some(names) => {
                if let Some(missing) = names.iter().find(|name| !listing.contains_key(*name)) {
                    return Err(Error::InvalidInput(format!("{missing:?} is missing: {wanted}")));
                }
                if let Some(other) = ggufs.iter().find(|name| !names.contains(name)) {
                    return Err(Error::InvalidInput(format!("{:?} and {other:?} are two models: {wanted}", names[0])));
                }
                names[0].clone()
            }
        };
        let place = Place::Web { base: LOCAL.into(), query: String::new() };
        Ok(Source { origin, gguf, hub: String::new(), local: Some(listing), stored: None, place })
    }

    /// Where `file` is asked for.
    pub fn address(&self, file: &str) -> String {
        match &self.place {
            Place::Web { base, query } => format!("{base}{file}{query}"),
            Place::Hub { .. } => self.at_hub("resolve", file).unwrap_or_default(),
        }
    }

    /// Where a hub tells the digest of a large `file`: in the pointer that its repository holds instead.
    pub fn pointer(&self, file: &str) -> Option<String> {
        self.at_hub("raw", file)
    }

    fn at_hub(&self, what: &str, file: &str) -> Option<String> {
        let Place::Hub { id, revision, folder } = &self.place else { return None };
        Some(format!("{}/{id}/{what}/{}/{folder}{file}", self.hub, revision.replace('/', "%2F")))
    }

    /// Where a package's manifest and files would lie, if they can be named: `{base}{file}`.
    pub fn base(&self) -> String {
        match &self.place {
            Place::Web { base, .. } => base.clone(),
            Place::Hub { .. } => self.address(""),
        }
    }

    /// Asks for everything else at this commit, so that a model never is half of one revision and half of the next.
    pub fn pin(&mut self, commit: &str) {
        if let Place::Hub { revision, .. } = &mut self.place
            && commit.len() == 40
            && commit.bytes().all(|b| b.is_ascii_hexdigit())
        {
            *revision = commit.to_owned();
        }
    }

    /// The revision at the hub.
    pub fn revision(&self) -> Option<String> {
        match &self.place {
            Place::Hub { revision, .. } => Some(revision.clone()),
            Place::Web { .. } => None,
        }
    }

    /// What the store's id of an import is made from; a person's own files need `digests` of what they hold.
    pub fn key(&self, quantize: Quantize, digests: &str) -> String {
        format!("{}#{}{digests}", self.origin, quantize.name())
    }
}

fn is_gguf(name: &str) -> bool {
    name.len() > 5 && name.to_ascii_lowercase().ends_with(".gguf")
}

/// All parts of a split file: `model-00001-of-00003.gguf` has three; any other file is its own only part.
pub fn split_names(name: &str) -> Vec<String> {
    let parts = || {
        let stem = name.get(..name.len().checked_sub(5)?).filter(|_| is_gguf(name))?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (base, number) = rest.rsplit_once('-')?;
        let numbers = [number, count].map(|n| (n.len() == 5 && n.bytes().all(|b| b.is_ascii_digit())).then(|| n.parse::<u32>().ok())?);
        let (number, count) = (numbers[0]?, numbers[1]?);
        let extension = &name[stem.len()..];
        // More than any model has; such a file says itself that it is a part.
        (count <= MOST_PARTS && (1..=count).contains(&number))
            .then(|| (1..=count).map(|i| format!("{base}-{i:05}-of-{count:05}{extension}")).collect())
    };
    parts().unwrap_or_else(|| vec![name.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Source {
        Source::parse(text, &Access::default()).unwrap()
    }

    #[test]
    fn addresses_are_directories_or_ggufs() {
        let directory = parse("https://host/models/tiny");
        assert_eq!((directory.origin.as_str(), &directory.gguf), ("https://host/models/tiny/", &None));
        assert_eq!(directory.address("config.json"), "https://host/models/tiny/config.json");
        assert_eq!(parse("https://host/models/tiny/openweights.json").base(), "https://host/models/tiny/");
        let gguf = parse("https://host/a/m.Q4_0.gguf?download=true#top");
        assert_eq!(gguf.address("m.Q4_0.gguf"), "https://host/a/m.Q4_0.gguf?download=true");
        assert_eq!(gguf.gguf.unwrap(), ["m.Q4_0.gguf"]);
        let split = parse("https://host/a/m-00002-of-00003.gguf");
        assert_eq!(split.origin, "https://host/a/m-00001-of-00003.gguf");
        assert_eq!(split.gguf.unwrap().len(), 3);
        for one in ["", "m", "m.gguf", "m-00004-of-00003.gguf", "m-1-of-3.gguf", "m-00001-of-00003.bin", "m-00001-of-99999.gguf"] {
            assert_eq!(split_names(one), [one]);
        }
        assert_eq!(parse("https://model.gguf").gguf, None, "a host is no file");
    }

    #[test]
    fn hub_ids_have_a_revision_and_perhaps_a_file() {
        let id = parse("org/name");
        assert_eq!(id.address("config.json"), "https://huggingface.co/org/name/resolve/main/config.json");
        assert_eq!(id.pointer("a.safetensors").unwrap(), "https://huggingface.co/org/name/raw/main/a.safetensors");
        assert_eq!(parse("org/name@refs/pr/1").address("x"), "https://huggingface.co/org/name/resolve/refs%2Fpr%2F1/x");
        let gguf = parse("org/name@v1/m.gguf");
        assert_eq!(gguf.address("m.gguf"), "https://huggingface.co/org/name/resolve/v1/m.gguf");
        assert_eq!(parse("org/name/sub/m.gguf").address("m.gguf"), "https://huggingface.co/org/name/resolve/main/sub/m.gguf");
        let access = Access { hub: Some("http://localhost:1/".into()), revision: Some("r".into()), token: Some("t".into()) };
        let mut other = Source::parse("org/name", &access).unwrap();
        assert_eq!(other.address("x"), "http://localhost:1/org/name/resolve/r/x");
        other.pin("not a commit");
        assert_eq!(other.revision().unwrap(), "r");
        other.pin(&"a1".repeat(20));
        assert_eq!(other.revision().unwrap(), "a1".repeat(20));
        assert_eq!(other.origin, "http://localhost:1/org/name@r", "the identity is what was asked for");
    }

    #[test]
    fn where_a_model_came_from_is_found_again() {
        let commit = "a1".repeat(20);
        for text in ["org/name", "org/name@v1", "org/name@refs/pr/1", "org/name/m.gguf", "org/name/sub/m.gguf", "org/name@refs/pr/1/m.gguf"]
        {
            let mut once = parse(text);
            once.pin(&commit);
            let again = Source::again(&once.origin, Some(&commit), &Access::default()).unwrap();
            assert_eq!((again.address("x"), again.gguf), (once.address("x"), once.gguf), "{text}");
        }
        let mirror = Access { hub: Some("https://mirror.example/hf".into()), ..Access::default() };
        let once = Source::parse("org/name", &mirror).unwrap();
        assert_eq!(Source::again(&once.origin, Some("main"), &mirror).unwrap().address("x"), once.address("x"));
        for text in ["https://host/models/tiny/", "https://host/m.gguf?a=b"] {
            assert_eq!(Source::again(&parse(text).origin, None, &Access::default()).unwrap(), parse(text));
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        let token = Access { token: Some("t".into()), ..Access::default() };
        let revision = Access { revision: Some("r".into()), ..Access::default() };
        for text in ["", "name", "org/", "/name", "../name", "org/na me", "org/name/readme.md", "org/name@", "org/name@a b", "ftp://x/y/z"]
        {
            assert_eq!(Source::parse(text, &Access::default()).unwrap_err().code(), "invalid_input", "{text}");
        }
        assert_eq!(Source::parse("https://elsewhere/m.gguf", &token).unwrap_err().code(), "invalid_input");
        assert!(Source::parse("https://huggingface.co/o/n/resolve/main/m.gguf", &token).is_ok());
        assert_eq!(Source::parse("https://host/m.gguf", &revision).unwrap_err().code(), "invalid_input");
        assert_eq!(Source::parse("org/name@a", &revision).unwrap_err().code(), "invalid_input");
    }

    #[test]
    fn a_persons_files_are_told_apart_by_their_names() {
        let files = |names: &[&str]| Source::files(names.iter().map(|n| (n.to_string(), 1)).collect());
        assert_eq!(files(&["m.gguf"]).unwrap().gguf.unwrap(), ["m.gguf"]);
        assert_eq!(files(&["m.gguf"]).unwrap().address("m.gguf"), "file:m.gguf");
        assert_eq!(files(&["config.json", "model.safetensors", "x.gguf"]).unwrap().gguf, None);
        assert!(files(&["m-00002-of-00002.gguf", "m-00001-of-00002.gguf"]).is_ok());
        for names in [&["m-00002-of-00002.gguf"][..], &["a.gguf", "b.gguf"], &["model.safetensors"], &[]] {
            assert_eq!(files(names).unwrap_err().code(), "invalid_input", "{names:?}");
        }
    }
}
