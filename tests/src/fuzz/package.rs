//! Targets: manifests, archives and signatures of packages.

use openweights::{
    Error, Result,
    weights::{Files, manifest::Manifest, owpkg, package, signing, trust::Signer},
};
use pollster::block_on;
use serde_json::json;

use super::{OFTEN, Target, long_json, memory, with_header};

/// `openweights.json`, and the package that it describes, whose files hold something else.
pub const MANIFEST: Target = Target {
    name: "manifest",
    run: |bytes| {
        let manifest = Manifest::parse(bytes)?;
        let weights = with_header(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8);
        let mut files = memory(&[("config.json", b"{}")]);
        files.files.insert("weights-00001.safetensors".into(), weights);
        block_on(package::open(&manifest, Box::new(files))).map(drop)
    },
    seeds: || {
        let digest = "0".repeat(64);
        let size = with_header(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8).len();
        let good = json!({
            "format": 1, "name": "m", "architecture": "llama", "quantization": "f32", "parameters": 2, "engine": "openweights/0.1.0",
            "source": {"origin": "o", "files": [{"path": "f", "size": 1, "sha256": digest}]}, "card": openweights::card::Card::default(),
            "tensors": {"w": {"format": "f32", "shape": [2]}},
            "files": [{"path": "config.json", "size": 2, "sha256": digest}, {"path": "weights-00001.safetensors", "size": size, "sha256": digest}]
        });
        vec![good.to_string().into_bytes(), good.to_string().replace("f32", "q4_1").into_bytes()]
    },
    heavy: || {
        let good = String::from_utf8((MANIFEST.seeds)().remove(0)).expect("JSON");
        let tensor = |i: usize| format!(r#""{i:x}":{{"format":"f32","shape":[1]}}"#);
        let tensors =
            |n: usize| good.replace(r#""tensors":{"#, &format!(r#""tensors":{{{},"#, (0..n).map(tensor).collect::<Vec<_>>().join(",")));
        let shapes = long_json(|json| good.replace("\"shape\":[2]", &format!("\"shape\":{json}")));
        OFTEN.into_iter().map(|n| tensors(n).into_bytes()).chain(shapes).chain(long_json(|json| good.replacen("null", json, 1))).collect()
    },
    stands_for: <[u8]>::len,
    words: &["\"shape\":[", "\"size\":", "\"q4_1\"", "\"mxfp4\"", "\"bf16\"", "../", "/", "null", "[[", "{\"\":", "18446744073709551615"],
};

/// A tar block of a plain file, with its right sum.
fn tar_header(name: &[u8], len: u64) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name);
    block[124..136].copy_from_slice(format!("{len:011o}\0").as_bytes());
    block[156] = b'0';
    block[257..263].copy_from_slice(b"ustar\0");
    summed(&mut block);
    block
}

fn summed(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// `.owpkg`, as it is and with the sums of its headers made right.
pub const OWPKG: Target = Target {
    name: "owpkg",
    run: |bytes| {
        let read = |bytes: &[u8]| {
            let archive = block_on(owpkg::Archive::open(memory(&[("a.owpkg", bytes)]), "a.owpkg", bytes.len() as u64))?;
            for (file, len) in archive.listing() {
                block_on(archive.read(&file, 0, len as usize))?;
            }
            Ok(())
        };
        let mut right = bytes.to_vec();
        right.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar").for_each(summed);
        read(&right).and_then(|()| read(bytes))
    },
    seeds: || {
        let file = |name: &str, len: usize| [tar_header(name.as_bytes(), len as u64), vec![7; len.next_multiple_of(512)]].concat();
        vec![
            [file("openweights.json", 9), file("config.json", 512), file("w.safetensors", 0), vec![0; 1024]].concat(),
            [file("openweights.json", 0), vec![0; 512]].concat(),
        ]
    },
    heavy: || {
        let file = |i: usize| tar_header(format!("{i:x}").as_bytes(), 0);
        [1000, 40_000]
            .map(|n| [tar_header(b"openweights.json", 0)].into_iter().chain((0..n).map(file)).collect::<Vec<_>>().concat())
            .to_vec()
    },
    stands_for: <[u8]>::len,
    words: &["ustar", "openweights.json", "./", "../", "777777777777", "00000000000", "\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}"],
};

/// A key that has signed everything.
struct Everything;

impl Signer for Everything {
    fn signed<'a>(&'a self, _: &'a [u8], _: &'a [u8]) -> futures_util::future::LocalBoxFuture<'a, Result<bool>> {
        Box::pin(async { Ok(true) })
    }
}

/// `model.sig`: the statement inside is what is fuzzed, and the bundle around it.
pub const SIGNATURE: Target = Target {
    name: "signature",
    run: |bytes| {
        let manifest = Manifest::parse(&(MANIFEST.seeds)()[0])?;
        let check = |bundle: &str| block_on(signing::verify(bundle, "{}", &manifest, &Everything));
        let text = std::str::from_utf8(bytes).map_err(|e| Error::InvalidFile(e.to_string()))?;
        // The bundle that is made here costs memory, too.
        match text.contains("dsseEnvelope") || text.len() > 1 << 20 {
            true => check(text),
            false => check(&bundle(text)),
        }
    },
    seeds: || {
        let statement = json!({"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://model_signing/signature/v1.0",
            "subject": [{"name": "m", "digest": {"sha256": "0".repeat(64)}}],
            "predicate": {"serialization": {"method": "files"}, "resources": [{"name": "config.json", "algorithm": "sha256", "digest": "0".repeat(64)}]}});
        vec![statement.to_string().into_bytes(), bundle(&statement.to_string()).into_bytes()]
    },
    heavy: || {
        let resource = |i: usize| format!(r#"{{"name":"{i:x}","algorithm":"sha256","digest":"{}"}}"#, "0".repeat(64));
        let good = String::from_utf8((SIGNATURE.seeds)().remove(0)).expect("JSON");
        let resources = |n: usize| {
            good.replace(r#""resources":["#, &format!(r#""resources":[{},"#, (0..n).map(resource).collect::<Vec<_>>().join(",")))
        };
        let lists = long_json(|json| good.replace("\"resources\":[", &format!("\"resources\":[{json},")));
        [1000, 5000, 100_000].map(|n| resources(n).into_bytes()).into_iter().chain(lists).collect()
    },
    stands_for: <[u8]>::len,
    words: &["MAYCAQECAQE=", "MEUCIQ", "\"sig\":\"", "\"payload\":\"", "====", "sha256", "[[", "{\"\":", "null"],
};

/// An envelope around a statement, with a signature that is none.
fn bundle(statement: &str) -> String {
    json!({"dsseEnvelope": {"payload": base64(statement.as_bytes()), "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"sig": "MAYCAQECAQE="}]}})
    .to_string()
}

/// Base64, as bundles have it.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = |chunk: &[u8]| {
        let bits = chunk.iter().chain([0; 2].iter()).take(3).fold(0, |bits, b| (bits << 8) | usize::from(*b));
        (0..4).map(|i| if i <= chunk.len() { char::from(DIGITS[(bits >> (18 - 6 * i)) & 63]) } else { '=' }).collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}
