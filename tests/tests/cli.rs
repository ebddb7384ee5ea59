//! The command line as it is built: its JSON, its exit status, and its server over real sockets.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use openweights::ops::score;
use openweights_tests::{fixture, ids, json, smollm2_gguf};
use serde_json::Value;

/// The binary beside this test's, built once with the test's own profile.
fn binary() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = std::env::current_exe().expect("this test's path");
        let folder = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
        let profile = folder.file_name().expect("a profile").to_string_lossy().replace("debug", "dev");
        let build = ["build", "--quiet", "-p", "openweights", "--bin", "openweights", "--profile", &profile, "--target-dir"];
        let status = Command::new(env!("CARGO")).args(build).arg(folder.parent().expect("target")).status();
        assert!(status.expect("cargo runs").success(), "the command line builds");
        folder.join("openweights").with_extension(std::env::consts::EXE_EXTENSION)
    })
}

fn run(args: &[&str]) -> Output {
    Command::new(binary()).args(args).stdin(Stdio::null()).output().expect("the command runs")
}

/// The JSON object that a command prints, and nothing besides it.
fn succeed(args: &[&str]) -> Value {
    let output = run(&[&["--json"], args].concat());
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {}", String::from_utf8_lossy(&output.stdout)))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn checkpoint() -> PathBuf {
    fixture("tiny/llama_plain")
}

/// An empty directory for one test.
fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a scratch directory");
    path
}

/// A package of the checkpoint.
fn package(name: &str) -> PathBuf {
    let out = scratch(name).join("package");
    succeed(&["convert", text(&checkpoint()), text(&out)]);
    out
}

fn golden() -> Value {
    json("tiny/llama_plain/golden.json")
}

fn list(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

fn floats(row: &Value) -> Vec<f64> {
    row.as_array().expect("a row").iter().map(|v| v.as_f64().expect("a number")).collect()
}

#[test]
fn convert_writes_a_package_and_says_what_is_in_it() {
    let out = scratch("cli-convert").join("package");
    let said = succeed(&["convert", text(&checkpoint()), text(&out), "--quantize", "q8"]);
    assert!(said["seconds"].as_f64().expect("seconds") >= 0.0);
    let mut bytes = 0;
    for file in said["files"].as_array().expect("files") {
        let size = std::fs::metadata(out.join(file["path"].as_str().expect("a path"))).expect("the file is there").len();
        assert_eq!(file["size"], size, "{file}");
        assert_eq!(file["sha256"].as_str().expect("a digest").len(), 64);
        bytes += size;
    }
    assert_eq!(said["bytes"], bytes);
    assert!(bytes > 10_000 && out.join("openweights.json").is_file());
}

#[test]
fn inspect_says_what_a_source_is() {
    let golden = golden();
    for source in [checkpoint(), package("cli-inspect")] {
        let said = succeed(&["inspect", text(&source)]);
        assert_eq!(said["architecture"], golden["model_type"]);
        assert!(said["card"].is_object());
        let tensors = said["tensors"].as_object().expect("tensors");
        assert_eq!(tensors["model.embed_tokens.weight"]["shape"][0], golden["logits_shape"][1]);
        let shape = |t: &Value| t["shape"].as_array().expect("a shape").iter().map(|n| n.as_u64().expect("a length")).product::<u64>();
        assert_eq!(said["parameters"], tensors.values().map(shape).sum::<u64>());
        let files = said["files"].as_array().expect("files");
        assert!(files.iter().any(|f| f["path"] == "config.json" && f["sha256"].is_string()), "{files:?}");

        let shown = String::from_utf8(run(&["inspect", text(&source)]).stdout).expect("text");
        let licence = shown.lines().find(|line| line.starts_with("licence ")).expect("a line on the licence");
        assert!(licence.ends_with("not declared"), "{licence}");
    }
}

#[test]
fn logits_are_the_reference_s() {
    let golden = golden();
    let all = [ids(&golden["input_ids"]), ids(&golden["greedy_ids"])].concat();
    let package = package("cli-logits");
    for (source, backend) in [(checkpoint(), "reference"), (checkpoint(), "gpu"), (package, "cpu")] {
        let said = succeed(&["logits", text(&source), "--tokens", &list(&all), "--backend", backend]);
        let rows = said["logits"].as_array().expect("logits");
        let expected = golden["logits"].as_array().expect("logits");
        assert_eq!(rows.len(), expected.len());
        for (position, (row, expected)) in rows.iter().zip(expected).enumerate() {
            let (row, expected) = (floats(row), floats(expected));
            assert_eq!(row.len(), expected.len());
            let worst = row.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-3, "{backend}: position {position} is off by {worst}");
        }
    }
}

#[test]
fn generate_gives_the_reference_s_tokens() {
    let golden = golden();
    let (prompt, expected) = (ids(&golden["input_ids"]), ids(&golden["greedy_ids"]));
    let most = expected.len().to_string();
    for source in [checkpoint(), package("cli-generate")] {
        let said = succeed(&["generate", text(&source), "--tokens", &list(&prompt), "--ignore-eos", "--max-tokens", &most]);
        assert_eq!(ids(&said["tokens"]), expected);
        assert_eq!(said["prompt_tokens"], prompt.len());
        assert_eq!(said["finish_reason"], "length");
        assert!(said["text"].is_string());
        assert!(said["timings"]["prefill_ms"].as_f64().expect("a time") > 0.0, "{}", said["timings"]);
        assert_eq!(said["timings"]["completion_tokens"], expected.len());
    }
}

#[test]
fn perplexity_has_a_likelihood_for_every_token_but_the_first() {
    let golden = golden();
    let tokens = ids(&golden["input_ids"]);
    let said = succeed(&["perplexity", text(&checkpoint()), "--tokens", &list(&tokens)]);
    assert_eq!(ids(&said["tokens"]), tokens);
    let nll = floats(&said["nll"]);
    assert_eq!(nll.len(), tokens.len() - 1);
    for (position, nll) in nll.iter().enumerate() {
        let row: Vec<f32> = floats(&golden["logits"][position]).into_iter().map(|v| v as f32).collect();
        let expected = -score::log_probability(&row, tokens[position + 1]);
        assert!((nll - expected).abs() < 2e-3, "position {position}: {nll}, expected {expected}");
    }
    let mean = nll.iter().sum::<f64>() / nll.len() as f64;
    assert!((said["mean_nll"].as_f64().expect("a mean") - mean).abs() < 1e-9);
}

#[test]
fn adapters_act() {
    let (source, adapter) = (checkpoint(), fixture("tiny/llama_plain/lora_r4"));
    let golden = json("tiny/llama_plain/lora_r4/golden.json");
    let tokens = list(&ids(&golden["input_ids"]));
    let said = succeed(&["logits", text(&source), "--tokens", &tokens, "--adapter", text(&adapter)]);
    for (row, expected) in said["logits"].as_array().expect("logits").iter().zip(golden["logits"].as_array().expect("logits")) {
        let worst = floats(row).iter().zip(floats(expected)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-3, "off by {worst}");
    }
    let file = format!("{}=1.0", text(&adapter.join("adapter_model.safetensors")));
    let said = succeed(&["generate", text(&source), "--tokens", &tokens, "--ignore-eos", "--max-tokens", "16", "--adapter", &file]);
    assert_eq!(ids(&said["tokens"]), ids(&golden["greedy_ids"]));
    let mean = |adapters: &[&str]| {
        let said = succeed(&[&["perplexity", text(&source), "--tokens", &tokens], adapters].concat());
        said["mean_nll"].as_f64().expect("a mean")
    };
    let scaled = |scale: &str| format!("{}={scale}", text(&adapter));
    let (none, off, half) = (mean(&[]), mean(&["--adapter", &scaled("0")]), mean(&["--adapter", &scaled("0.5")]));
    let two_halves = mean(&["--adapter", &scaled("0.25"), "--adapter", &scaled("0.25")]);
    assert!((none - off).abs() < 1e-6, "{none} {off}");
    assert!((half - none).abs() > 0.01 && (half - two_halves).abs() < 1e-4, "{none} {half} {two_halves}");
}

#[test]
fn bench_measures() {
    let said = succeed(&["bench", text(&checkpoint()), "--prompt", "8", "--generate", "4", "--depth", "4"]);
    assert_eq!(said["backend"], "cpu");
    for key in ["prefill_tok_s", "decode_tok_s", "load_ms", "ttft_ms"] {
        assert!(said[key].as_f64().is_some_and(|v| v > 0.0 && v.is_finite()), "{key}: {said}");
    }
    for key in ["peak_bytes", "dispatches_per_token"] {
        assert!(said.get(key).is_some(), "{key}: {said}");
    }
    assert_eq!((&said["prompt_tokens"], &said["generated_tokens"]), (&8.into(), &4.into()));
}

#[test]
fn tokenize_gives_ids_and_pieces() {
    let said = succeed(&["tokenize", text(&smollm2_gguf()), "--text", "Hello world<|im_end|>"]);
    let token = |id: u32, piece: &str| serde_json::json!({ "id": id, "piece": piece });
    let expected = [token(19556, "Hello"), token(905, "Ġworld"), token(2, "<|im_end|>")];
    assert_eq!(said["tokens"], Value::from(expected.to_vec()));
}

#[test]
fn failures_have_a_code_and_status_1() {
    let source = checkpoint();
    for (args, code) in [
        (&["inspect", "no-such-file.gguf"][..], "not_found"),
        (&["logits", "no-such-directory", "--tokens", "1"], "not_found"),
        (&["logits", text(&source), "--tokens", "999999"], "invalid_input"),
        (&["generate", text(&source), "--prompt", "text"], "invalid_input"),
        (&["perplexity", text(&source), "--tokens", "1"], "invalid_input"),
        (&["bench", text(&source), "--generate", "1"], "invalid_input"),
        (&["logits", text(&source), "--tokens", "1", "--adapter", "no-such-adapter"], "not_found"),
        (&["serve", "no-such-directory"], "not_found"),
    ] {
        let output = run(&[&["--json"], args].concat());
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(said["error"]["code"], code, "{args:?}: {said}");
        let message = said["error"]["message"].as_str().expect("a message");
        assert!(String::from_utf8_lossy(&output.stderr).contains(message), "{args:?}");
        assert!(run(args).stdout.is_empty(), "without --json, standard output stays empty: {args:?}");
    }
}

#[test]
fn wrong_usage_is_status_2() {
    for args in [
        &[][..],
        &["frobnicate"],
        &["logits", "x"],
        &["logits", "x", "--tokens", "1,two"],
        &["generate", "x"],
        &["generate", "x", "--prompt", "a", "--tokens", "1"],
        &["logits", "x", "--tokens", "1", "--backend", "tpu"],
        &["convert", "x", "y", "--quantize", "q0"],
        &["serve", ".", "--mount", "x"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
}

#[cfg(unix)]
mod serve {
    use std::{
        fs::File,
        io::{BufRead, BufReader, Read, Write},
        net::TcpStream,
        process::Child,
        time::{Duration, Instant},
    };

    use super::*;

    /// A running server; killed if a test fails.
    struct Server {
        child: Child,
        port: u16,
    }

    impl Server {
        fn start(dir: &Path, mounted: &Path) -> Server {
            let mount = format!("/x={}", text(mounted));
            let mut command = Command::new(binary());
            command.args(["serve", text(dir), "--port", "0", "--mount", &mount]).stdout(Stdio::piped());
            let mut child = command.spawn().expect("the server starts");
            let mut line = String::new();
            BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("an address");
            let port = line.trim().strip_prefix("http://localhost:").and_then(|rest| rest.strip_suffix('/'));
            Server { port: port.expect(&line).parse().expect("a port"), child }
        }

        fn connect(&self) -> TcpStream {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a connection");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
            stream
        }

        /// Status, headers in lower case and body; the path goes out as it is.
        fn get(&self, path: &str, headers: &str) -> (u16, String, Vec<u8>) {
            let mut stream = self.connect();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n").expect("a request");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).expect("an answer");
            let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("the end of the headers");
            let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
            let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
            (status, head, answer[end + 4..].to_vec())
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    /// A directory to serve, one to mount, and beside them a file that is nobody's business.
    fn directories(name: &str) -> (PathBuf, PathBuf) {
        let root = scratch(name);
        let (dir, mounted) = (root.join("dir"), root.join("mounted"));
        for dir in [&dir, &mounted] {
            std::fs::create_dir(dir).expect("a directory");
        }
        std::fs::write(dir.join("index.html"), "the page").expect("a file");
        std::fs::write(dir.join("bytes.bin"), (0..=255u8).collect::<Vec<_>>()).expect("a file");
        std::fs::write(mounted.join("there.txt"), "mounted").expect("a file");
        std::fs::write(root.join("secret.txt"), "secret").expect("a file");
        (dir, mounted)
    }

    #[test]
    fn files_ranges_and_isolation() {
        let (dir, mounted) = directories("cli-serve");
        let server = Server::start(&dir, &mounted);
        for (path, status, body) in
            [("/", 200, "the page"), ("/x/there.txt", 200, "mounted"), ("/missing", 404, ""), ("/x/missing", 404, "")]
        {
            let (found, head, bytes) = server.get(path, "");
            assert_eq!((found, bytes.as_slice()), (status, body.as_bytes()), "{path}");
            for header in [
                "cross-origin-opener-policy: same-origin",
                "cross-origin-embedder-policy: require-corp",
                "cross-origin-resource-policy: same-origin",
            ] {
                assert!(head.lines().any(|line| line == header), "{path}: {header} is missing in\n{head}");
            }
        }
        let (status, head, bytes) = server.get("/bytes.bin", "Range: bytes=16-31\r\n");
        assert_eq!((status, bytes), (206, (16..32).collect::<Vec<u8>>()));
        assert!(head.lines().any(|line| line == "content-range: bytes 16-31/256"), "{head}");
        let (status, head, _) = server.get("/bytes.bin", "Range: bytes=256-\r\n");
        assert_eq!(status, 416, "{head}");
    }

    #[test]
    fn nothing_outside_the_directories() {
        let (dir, mounted) = directories("cli-serve-outside");
        let server = Server::start(&dir, &mounted);
        for path in [
            "/../secret.txt",
            "/%2e%2e/secret.txt",
            "/..%2fsecret.txt",
            "/x/../../secret.txt",
            "/x/%2e%2e/secret.txt",
            "/a/../../secret.txt",
        ] {
            let (status, _, body) = server.get(path, "");
            assert!(matches!(status, 400 | 404), "{path}: {status}");
            assert!(!String::from_utf8_lossy(&body).contains("secret"), "{path}");
        }
    }

    #[test]
    fn an_interrupt_ends_it_though_a_reader_stalls() {
        let (dir, mounted) = directories("cli-serve-interrupt");
        // More than sockets buffer, so that the answer cannot be complete.
        File::create(dir.join("large.bin")).and_then(|file| file.set_len(64 << 20)).expect("a large file");
        let mut server = Server::start(&dir, &mounted);
        let mut stalled = server.connect();
        write!(stalled, "GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
        let mut first = [0; 12];
        stalled.read_exact(&mut first).expect("the answer begins");
        assert_eq!(&first, b"HTTP/1.1 200");

        let started = Instant::now();
        let sent = Command::new("kill").args(["-INT", &server.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
        let status = loop {
            if let Some(status) = server.child.try_wait().expect("a status") {
                break status;
            }
            assert!(started.elapsed() < Duration::from_secs(5), "the server waits for a reader that stalls");
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(0));
    }
}

/// The tiny BERT with a tokenizer whose words are `w0`, `w1`, ... and pooling by the first token.
fn encoder(name: &str) -> PathBuf {
    let out = scratch(name);
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture("tiny/bert_mean").join(file), out.join(file)).expect("a copy");
    }
    let vocab: serde_json::Map<String, Value> = (0..384).map(|id| (format!("w{id}"), id.into())).collect();
    let model = serde_json::json!({ "type": "WordLevel", "vocab": vocab, "unk_token": "w0" });
    let tokenizer =
        serde_json::json!({ "version": "1.0", "added_tokens": [], "pre_tokenizer": { "type": "WhitespaceSplit" }, "model": model });
    let modules = r#"[{ "path": "", "type": "a.Transformer" }, { "path": "1_Pooling", "type": "a.Pooling" }]"#;
    std::fs::create_dir(out.join("1_Pooling")).expect("a folder");
    for (file, content) in [
        ("tokenizer.json", tokenizer.to_string().as_str()),
        ("modules.json", modules),
        ("1_Pooling/config.json", r#"{ "pooling_mode_cls_token": true }"#),
    ] {
        std::fs::write(out.join(file), content).expect("a file");
    }
    out
}

#[test]
fn embed_gives_a_vector_of_a_text_and_says_that_an_encoder_writes_none() {
    let golden = json("tiny/bert_mean/golden.json");
    let ids = ids(&golden["input_ids"]);
    let (tokens, encoder) = (list(&ids), encoder("cli-embed"));
    let words = ids.iter().map(|id| format!("w{id}")).collect::<Vec<_>>().join(" ");
    let package = scratch("cli-embed-package").join("package");
    succeed(&["convert", text(&encoder), text(&package)]);
    let plain = fixture("tiny/bert_mean");
    for (source, input, pooled) in [
        (&plain, ["--tokens", &tokens], "mean_pooled_normalised"),
        (&encoder, ["--text", &words], "cls_normalised"),
        (&package, ["--text", &words], "cls_normalised"),
    ] {
        let said = succeed(&[&["embed", text(source)][..], &input].concat());
        assert_eq!(said["tokens"], golden["input_ids"]);
        let differences = floats(&said["embedding"]).into_iter().zip(floats(&golden[pooled])).map(|(a, b)| (a - b).abs());
        assert!(differences.fold(0.0, f64::max) < 1e-3, "{}", source.display());
    }
    for (command, source) in [("generate", plain), ("embed", checkpoint())] {
        let output = run(&["--json", command, text(&source), "--tokens", "1"]);
        let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!((output.status.code(), &said["error"]["code"]), (Some(1), &"invalid_input".into()), "{command}");
    }
}
