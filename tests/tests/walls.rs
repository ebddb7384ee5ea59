//! The walls between the parts of the engine: who may name what. See ARCHITECTURE.md.

use std::path::{Path, PathBuf};

fn source() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../crate/src"))
}

/// Files below `dir` with this extension, as paths relative to `crate/src`.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found
}

/// The file's code without comments, and its path relative to `crate/src`.
fn code() -> Vec<(String, String)> {
    let relative = |path: &Path| path.strip_prefix(source()).expect("below crate/src").to_string_lossy().replace('\\', "/");
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("readable");
        let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or("")).collect();
        (relative(&path), code.join("\n"))
    };
    let all: Vec<_> = files(&source(), "rs").into_iter().map(read).collect();
    assert!(all.len() > 30, "only {} files found", all.len());
    all
}

/// Fails if a file outside `allowed` contains one of `words`.
fn only(allowed: &[&str], words: &[&str]) {
    let breaches: Vec<String> = code()
        .iter()
        .filter(|(path, _)| !allowed.iter().any(|a| path.starts_with(a)))
        .flat_map(|(path, code)| words.iter().filter(|w| code.contains(**w)).map(move |w| format!("{path} names {w}")))
        .collect();
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn only_the_gpu_backend_names_wgpu() {
    only(&["backend/gpu/"], &["wgpu::", "use wgpu"]);
}

#[test]
fn only_web_names_the_browser() {
    only(&["web/"], &["wasm_bindgen", "web_sys", "js_sys", "serde_wasm_bindgen"]);
}

#[test]
fn only_ops_formats_and_the_gpu_backend_know_wgsl() {
    only(&["ops/", "quant/", "backend/gpu/"], &[".wgsl", "@compute"]);
}

#[test]
fn models_and_layers_see_only_the_contract() {
    let allowed = ["backend", "error", "layers", "models", "weights::loader"];
    for (path, code) in code() {
        if !(path.starts_with("models/") || path == "layers.rs") {
            continue;
        }
        for used in code.split("crate::").skip(1) {
            // `crate::{` opens a list: its entries stand at the beginning of lines.
            let entries: Vec<&str> = match used.strip_prefix('{') {
                Some(list) => list.split("\n};").next().unwrap_or("").lines().map(str::trim).filter(|l| !l.is_empty()).collect(),
                None => vec![used],
            };
            for entry in entries {
                assert!(allowed.iter().any(|a| entry.starts_with(a)), "{path} uses crate::{}", entry.lines().next().unwrap_or(""));
            }
            assert!(!used.starts_with("backend::gpu") && !used.starts_with("backend::reference"), "{path} names a backend");
        }
    }
}

#[test]
fn an_architecture_is_a_short_file() {
    for path in files(&source().join("models"), "rs") {
        let lines = std::fs::read_to_string(&path).expect("readable").lines().count();
        assert!(lines <= 150, "{} has {lines} lines", path.display());
    }
}
