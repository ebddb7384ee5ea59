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

/// Identifiers, `::`, and single characters of what else there is.
fn tokens(code: &str) -> Vec<&str> {
    let (mut tokens, mut rest) = (Vec::new(), code.trim_start());
    let word = |c: char| c.is_alphanumeric() || c == '_';
    while let Some(first) = rest.chars().next() {
        let len = match first {
            c if word(c) => rest.find(|c| !word(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            c => c.len_utf8(),
        };
        tokens.push(&rest[..len]);
        rest = rest[len..].trim_start();
    }
    tokens
}

/// All paths in the code, `use` lists written out: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(code: &str) -> Vec<Vec<&str>> {
    let tokens = tokens(code);
    let (mut found, mut prefixes) = (Vec::new(), Vec::new());
    let mut path: Vec<&str> = Vec::new();
    let (mut joined, mut whole) = (false, false);
    for (at, &token) in tokens.iter().enumerate() {
        let is_word = token.chars().all(|c| c.is_alphanumeric() || c == '_');
        if token == "::" {
            joined = true;
            continue;
        }
        if joined && (is_word || token == "*") {
            path.push(token);
            whole = true;
        } else if joined && token == "{" {
            prefixes.push(path.len());
            whole = false;
        } else {
            // The path has ended: inside a list the next one begins where the list does.
            if whole {
                found.push(path.clone());
            }
            if token == "}" {
                prefixes.pop();
            }
            path.truncate(prefixes.last().copied().unwrap_or(0));
            whole = is_word && (at == 0 || tokens[at - 1] != "as");
            if whole {
                path.push(token);
            }
        }
        joined = false;
    }
    found.push(path);
    found
}

/// What models and layers may not name, in the code of `module`: everything but the contract, however it is written.
fn beyond_the_contract(module: &[&str], code: &str) -> Vec<String> {
    const ALLOWED: [&[&str]; 5] = [&["backend"], &["error"], &["layers"], &["models"], &["weights", "loader"]];
    const FORBIDDEN: [&str; 9] = ["cpu", "gpu", "reference", "ops", "quant", "text", "generate", "engine", "web"];
    let bad = |path: &[&str]| {
        // `super` and `self` lead from the module; a path from the crate's root must be an allowed one.
        let ups = path.iter().filter(|word| **word == "super").count();
        let rest: Vec<&str> = path.iter().copied().skip_while(|word| ["crate", "super", "self"].contains(word)).collect();
        let from_root = match path.first() {
            Some(&"crate") => Some(rest.clone()),
            Some(&"super") => Some([&module[..module.len().saturating_sub(ups)], &rest].concat()),
            _ => None,
        };
        let outside = from_root.is_some_and(|full| !ALLOWED.iter().any(|allowed| full.starts_with(allowed)));
        outside || (path.len() > 1 && path[0] != "std" && path.iter().any(|word| FORBIDDEN.contains(word)))
    };
    paths(code).into_iter().filter(|path| bad(path)).map(|path| path.join("::")).collect()
}

#[test]
fn models_and_layers_see_only_the_contract() {
    let mut seen = 0;
    for (path, code) in code() {
        let module: Vec<&str> = path.trim_end_matches(".rs").trim_end_matches("/mod").split('/').collect();
        if ["models", "layers"].contains(&module[0]) {
            assert_eq!(beyond_the_contract(&module, &code), Vec::<String>::new(), "in {path}");
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen} files");
}

#[test]
fn the_contract_s_wall_has_no_holes() {
    let model = ["models", "llama"];
    for hole in [
        "use crate::ops::rope;",
        "use crate::{error::Error, ops::rope};",
        "use crate::{\n    error::Error,\n    ops::rope,\n};",
        "use crate::{backend::{Backend, gpu::Gpu}};",
        "use crate::backend::{\n    Backend,\n    reference::Reference,\n};",
        "use crate::backend::gpu;",
        "use crate::backend::cpu::pool::Pool;",
        "use crate::{backend::{self as b, gpu as g}};",
        "use super::super::ops;",
        "use super::{super::{quant::Format}, config::Config};",
        "use crate::weights;",
        "use crate::weights::{loader::Loader, gguf};",
        "use crate as all;",
        "use crate::*;",
        "fn f() { let x = crate::quant::Format::F32; }",
        "fn f() { super::super::text::Tokenizer::new() }",
        "fn f(x: backend::gpu::Gpu) {}",
        "use openweights::engine::Model;",
    ] {
        assert!(!beyond_the_contract(&model, hole).is_empty(), "not seen: {hole}");
    }
    assert!(!beyond_the_contract(&["layers"], "use super::ops::rope;").is_empty());
    assert!(!beyond_the_contract(&["layers", "block"], "use super::super::ops::rope;").is_empty());
    for fine in [
        "use crate::{\n    backend::{Backend, CacheSpec, Tensor},\n    error::{Error, Result},\n    weights::loader::Loader,\n};",
        "use crate::{error::Result, layers::{AttentionSpec, block::BlockSpec}};",
        "use super::{Network, Positions, config::Config};\nuse serde_json::json;",
        "fn f(backend: &mut dyn crate::backend::Backend) { let (text, ops) = (1, 2); g(text, ops) }",
        "use super::super::layers::{Linear, RmsNorm};",
        "use std::{fmt, ops::Range};",
    ] {
        assert_eq!(beyond_the_contract(&model, fine), Vec::<String>::new(), "{fine}");
    }
}

#[test]
fn an_architecture_is_a_short_file() {
    for path in files(&source().join("models"), "rs") {
        let lines = std::fs::read_to_string(&path).expect("readable").lines().count();
        assert!(lines <= 150, "{} has {lines} lines", path.display());
    }
}
