//! What a caller demands of a package before any of its weights is fetched: a manifest of a known digest, a known signer. And
//! what can be said of a model afterwards.

use futures_util::future::LocalBoxFuture;

use super::{
    manifest::{MANIFEST, hex, sha256_hex},
    signing,
    store::Record,
};
use crate::error::{Error, Result};

/// A public key, ECDSA on P-256 with SHA-256.
pub trait Signer {
    /// Whether `signature` (64 bytes, r then s) is its own of `message`.
    fn signed<'a>(&'a self, message: &'a [u8], signature: &'a [u8]) -> LocalBoxFuture<'a, Result<bool>>;
}

/// What is demanded.
#[derive(Clone, Copy, Default)]
pub struct Trust<'a> {
    /// Lower-case hexadecimal SHA-256 of the manifest.
    pub manifest: Option<&'a str>,
    /// Who must have signed the package.
    pub signer: Option<&'a dyn Signer>,
}

impl Trust<'_> {
    /// Whether nothing is demanded.
    pub fn is_none(&self) -> bool {
        self.manifest.is_none() && self.signer.is_none()
    }

    /// Fails where a package is not what is demanded.
    pub async fn check(&self, record: &Record) -> Result<()> {
        if self.is_none() {
            return Ok(());
        }
        let Some(text) = &record.text else {
            let what = &record.url;
            return Err(Error::InvalidInput(format!(
                "integrity and signedBy are for packages, whose manifest holds all digests; {what} was imported"
            )));
        };
        if let Some(expected) = self.manifest {
            let found = sha256_hex(text.as_bytes());
            if found != expected {
                return Err(Error::Integrity(format!("{MANIFEST} has sha256 {found}, this load demands {expected}")));
            }
        }
        let Some(signer) = self.signer else { return Ok(()) };
        match &record.signature {
            Some(bundle) => signing::verify(bundle, text, &record.manifest, signer).await,
            None => Err(Error::Integrity(format!("{}: there is no {}, and this load demands one", record.url, signing::SIGNATURE))),
        }
    }

    /// What was verified of a model that passed, and what was not.
    pub fn statement(&self, record: &Record) -> String {
        let source = &record.manifest.source;
        let digests = match (&record.text, self.manifest) {
            (Some(_), Some(_)) => "digests match the manifest, and the manifest its pinned digest",
            (Some(_), None) => "digests match the manifest",
            (None, _) if source.publisher_digest => "digests match the publisher's",
            (None, _) => "digests were noted while reading; no publisher digest",
        };
        let signer = if self.signer.is_some() { "signed by the given key" } else { "signer not verified" };
        format!("{digests}; {signer}")
    }
}

/// The hexadecimal digest in `sha256-` and base64, as pages write it.
pub fn parse_integrity(text: &str) -> Result<String> {
    let digest = text.strip_prefix("sha256-").and_then(|digest| base64::decode(digest).ok()).filter(|digest| digest.len() == 32);
    digest.map(|digest| hex(&digest)).ok_or_else(|| {
        Error::InvalidInput(format!(
            "integrity {text:?}: write sha256- and the base64 of {MANIFEST}'s SHA-256, as in subresource integrity"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integrity_is_written_as_for_scripts() {
        let empty = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        assert_eq!(parse_integrity(empty).unwrap(), sha256_hex(b""));
        for wrong in ["", "sha256-", "sha256-AAAA", "sha384-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "e3b0"] {
            assert_eq!(parse_integrity(wrong).unwrap_err().code(), "invalid_input", "{wrong}");
        }
    }
}
