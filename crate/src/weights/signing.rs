//! OpenSSF model signing: `model.sig` beside a package's files says who vouches for them.
//!
//! It is a Sigstore bundle: a DSSE envelope around an in-toto statement that names every file with its digest. The signature is of
//! `"DSSEv1" SP length(type) SP type SP length(payload) SP payload`. Here a key is given by the caller, ECDSA on P-256; what a
//! bundle says of its key is not believed. Format: github.com/sigstore/model-transparency, predicate v1.0.

use std::collections::BTreeMap;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{
    manifest::{MANIFEST, Manifest, hex, sha256_hex},
    trust::Signer,
};
use crate::{
    error::{Error, Result},
    json,
};

/// The signature's file name within a package.
pub const SIGNATURE: &str = "model.sig";
/// Most bytes of one.
pub(super) const MOST: usize = 16 << 20;

const PAYLOAD: &str = "application/vnd.in-toto+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://model_signing/signature/v1.0";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    dsse_envelope: Envelope,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    predicate_type: String,
    subject: Vec<Subject>,
    predicate: Predicate,
}

#[derive(Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Predicate {
    serialization: Serialization,
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Serialization {
    method: String,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    algorithm: String,
    digest: String,
}

/// Fails unless `signer` has signed the manifest `text` and every file that it names.
pub async fn verify(bundle: &str, text: &str, manifest: &Manifest, signer: &dyn Signer) -> Result<()> {
    let bad = |what: &str| Error::Integrity(format!("{SIGNATURE}: {what}"));
    let unreadable = |e: Error| match e {
        Error::InvalidFile(what) => Error::Integrity(what),
        other => other,
    };
    let Bundle { dsse_envelope: envelope } = json::parse(SIGNATURE, bundle.as_bytes(), json::TYPED).map_err(unreadable)?;
    let payload = base64::decode(&envelope.payload).map_err(|_| bad("its payload is not base64"))?;
    if envelope.payload_type != PAYLOAD {
        return Err(bad(&format!("its payload is {:?}, not {PAYLOAD}", envelope.payload_type)));
    }
    let mut message = format!("DSSEv1 {} {PAYLOAD} {} ", PAYLOAD.len(), payload.len()).into_bytes();
    message.extend_from_slice(&payload);
    let [signature] = &envelope.signatures[..] else { return Err(bad("it must have one signature")) };
    let der = base64::decode(&signature.sig).map_err(|_| bad("its signature is not base64"))?;
    let signature = pair(&der).ok_or_else(|| bad("its signature is none of ECDSA on P-256"))?;
    if !signer.signed(&message, &signature).await? {
        return Err(bad("the package is not signed with the key that this load demands"));
    }
    // Only now is it worth reading.
    let statement: Statement = json::parse(SIGNATURE, &payload, json::TYPED).map_err(unreadable)?;
    if statement.kind != STATEMENT || statement.predicate_type != PREDICATE || statement.predicate.serialization.method != "files" {
        return Err(Error::UnsupportedFormat(format!("{SIGNATURE} is no statement about files ({PREDICATE}): sign the package again")));
    }
    compare(&statement, text, manifest)
}

fn compare(statement: &Statement, text: &str, manifest: &Manifest) -> Result<()> {
    let bad = |what: String| Error::Integrity(format!("{SIGNATURE}: {what}"));
    let (mut signed, mut all) = (BTreeMap::new(), Sha256::new());
    for Resource { name, algorithm, digest } in &statement.predicate.resources {
        let bytes = unhex(digest).filter(|bytes| bytes.len() == 32 && algorithm == "sha256");
        all.update(bytes.ok_or_else(|| bad(format!("{name:?} has no sha256")))?);
        if signed.insert(name.as_str(), digest.as_str()).is_some() {
            return Err(bad(format!("{name:?} is named twice")));
        }
    }
    let root = match &statement.subject[..] {
        [subject] => subject.digest.get("sha256"),
        _ => None,
    };
    if root != Some(&hex(&all.finalize())) {
        return Err(bad("the digest of all digests is not what it says".into()));
    }
    let files = manifest.files.iter().map(|file| (file.path.as_str(), file.sha256.clone()));
    for (path, sha256) in files.chain([(MANIFEST, sha256_hex(text.as_bytes()))]) {
        match signed.get(path) {
            Some(digest) if *digest == sha256 => {}
            Some(_) => return Err(bad(format!("{path:?} is not the file that was signed"))),
            None => return Err(bad(format!("{path:?} was not signed"))),
        }
    }
    Ok(())
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

/// r and s of 32 bytes each, from DER: `30 len 02 len r 02 len s`.
fn pair(der: &[u8]) -> Option<[u8; 64]> {
    let integer = |bytes: &[u8]| -> Option<(usize, [u8; 32])> {
        let [2, len, rest @ ..] = bytes else { return None };
        let value = rest.get(..*len as usize)?;
        let digits = value.strip_prefix(&[0]).unwrap_or(value);
        let mut padded = [0; 32];
        padded.get_mut(32_usize.checked_sub(digits.len())?..)?.copy_from_slice(digits);
        Some((2 + value.len(), padded))
    };
    let [0x30, len, body @ ..] = der else { return None };
    let (used, r) = integer(body)?;
    let (rest, s) = integer(&body[used..])?;
    let mut both = [0; 64];
    both[..32].copy_from_slice(&r);
    both[32..].copy_from_slice(&s);
    (body.len() == *len as usize && body.len() == used + rest).then_some(both)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_der_signature_is_two_numbers() {
        let der = [0x30, 8, 2, 2, 0, 0x81, 2, 2, 1, 5];
        let both = pair(&der).unwrap();
        assert_eq!((both[31], &both[62..]), (0x81, &[1, 5][..]));
        for cut in 0..der.len() {
            assert_eq!(pair(&der[..cut]), None);
        }
        assert_eq!(pair(&[0x30, 4, 2, 200, 0, 0]), None);
        assert_eq!(pair(&[&der[..], &[0]].concat()), None);
    }
}
