//! Hugging Face checkpoints: read in place, converted, and refused by name.

use std::collections::BTreeMap;

use half::{bf16, f16};
use openweights::{
    Error, Result,
    quant::{Format, Plane},
    weights::{
        Checkpoint,
        files::Memory,
        import::{self, Options, Quantize},
        manifest::{MANIFEST, Manifest},
        package,
        safetensors::open,
    },
};
use openweights_tests::rng::Rng;
use safetensors::{Dtype, serialize, tensor::TensorView};
use serde_json::{Value, json};

const INDEX: &str = "model.safetensors.index.json";

/// Name, type, shape, bytes.
type Stored = (&'static str, Dtype, Vec<usize>, Vec<u8>);

/// Three tensors, one of each type, and their values.
fn tensors() -> (Vec<Stored>, BTreeMap<&'static str, Vec<f32>>) {
    let mut rng = Rng::new(9);
    let mut values = BTreeMap::new();
    let mut stored = Vec::new();
    for (name, dtype, shape) in [
        ("model.embed_tokens.weight", Dtype::BF16, vec![48, 64]),
        ("model.layers.0.mlp.up_proj.weight", Dtype::F16, vec![96, 64]),
        ("model.norm.weight", Dtype::F32, vec![64]),
    ] {
        let floats: Vec<f32> = (0..shape.iter().product()).map(|_| bf16::from_f32(rng.float()).to_f32()).collect();
        let bytes = floats.iter().flat_map(|&v| match dtype {
            Dtype::BF16 => bf16::from_f32(v).to_le_bytes().to_vec(),
            Dtype::F16 => f16::from_f32(v).to_le_bytes().to_vec(),
            _ => v.to_le_bytes().to_vec(),
        });
        stored.push((name, dtype, shape, bytes.collect()));
        // A bf16 of a random number may be between two f16: what counts is what is stored.
        let exact = floats.iter().map(|&v| if dtype == Dtype::F16 { f16::from_f32(v).to_f32() } else { v });
        values.insert(name, exact.collect());
    }
    (stored, values)
}

fn file(stored: &[Stored]) -> Vec<u8> {
    let views = stored.iter().map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    serialize(views, None).unwrap()
}

/// A checkpoint of one weight file.
fn single() -> Memory {
    let mut memory = Memory::default();
    let mut put = |name: &str, bytes: Vec<u8>| memory.files.insert(name.into(), bytes);
    put("config.json", json!({ "model_type": "llama" }).to_string().into());
    put("generation_config.json", json!({ "eos_token_id": 2 }).to_string().into());
    put("tokenizer_config.json", json!({ "bos_token": "<s>" }).to_string().into());
    put("chat_template.jinja", b"{{ messages }}".to_vec());
    put("README.md", b"---\nlicense: llama3.2\nlanguage: [en]\n---\n".to_vec());
    put("model.safetensors", file(&tensors().0));
    memory
}

/// The same in two shards with an index.
fn sharded() -> Memory {
    let mut memory = single();
    memory.files.remove("model.safetensors");
    let stored = tensors().0;
    memory.files.insert("model-1.safetensors".into(), file(&stored[..2]));
    memory.files.insert("model-2.safetensors".into(), file(&stored[2..]));
    let map: BTreeMap<_, _> = stored.iter().enumerate().map(|(i, t)| (t.0, format!("model-{}.safetensors", i / 2 + 1))).collect();
    memory.files.insert(INDEX.into(), json!({ "metadata": {}, "weight_map": map }).to_string().into());
    memory
}

fn opened(memory: &Memory) -> Result<Checkpoint> {
    pollster::block_on(open(Box::new(memory.clone()), &memory.listing()))
}

fn refused(mut memory: Memory, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> Error {
    change(&mut memory.files);
    opened(&memory).err().unwrap()
}

/// `change` bends a JSON file.
fn bent(memory: Memory, name: &str, change: impl FnOnce(&mut Value)) -> Error {
    refused(memory, |files| {
        let mut json = serde_json::from_slice(&files[name]).unwrap();
        change(&mut json);
        files.insert(name.into(), json.to_string().into());
    })
}

#[track_caller]
fn expect(error: &Error, code: &str, says: &str) {
    assert_eq!(error.code(), code, "{error}");
    assert!(error.to_string().contains(says), "{error:?} does not say {says:?}");
}

fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let info = checkpoint.tensor(name).unwrap();
    let plane = |plane| pollster::block_on(checkpoint.read_rows(info, plane, 0, info.rows())).unwrap();
    let (values, scales) = (plane(Plane::Values), plane(Plane::Scales));
    let bytes = |plane| info.format.row_bytes(plane, info.cols());
    let mut out = vec![0.0; info.rows() * info.cols()];
    for (i, out) in out.chunks_mut(info.cols()).enumerate() {
        let row = |all: &[u8], len: usize| all[i * len..][..len].to_vec();
        info.format.unpack_row(&row(&values, bytes(Plane::Values)), &row(&scales, bytes(Plane::Scales)), out);
    }
    out
}

#[test]
fn one_file_and_shards_give_the_same_tensors() {
    let expected = tensors().1;
    for memory in [single(), sharded()] {
        let checkpoint = opened(&memory).unwrap();
        assert_eq!(checkpoint.tensors.len(), 3);
        for (name, expected) in &expected {
            assert_eq!(values(&checkpoint, name), *expected, "{name}");
        }
        assert_eq!(checkpoint.generation_config["eos_token_id"], 2);
        assert_eq!(checkpoint.tokenizer_config, json!({ "bos_token": "<s>", "chat_template": "{{ messages }}" }));
        assert_eq!(checkpoint.tokenizer, None);
        assert_eq!(checkpoint.card.license.as_ref().unwrap().value, "llama3.2");
        assert_eq!(checkpoint.card.license_name, None);
        assert_eq!((checkpoint.card.parameters, checkpoint.card.quantisation.as_str()), (9280, "f16"));
        assert_eq!(checkpoint.card.bytes, 48 * 64 * 2 + 96 * 64 * 2 + 64 * 4);
    }
}

#[test]
fn a_checkpoint_becomes_a_package() {
    let (checkpoint, expected) = (opened(&single()).unwrap(), tensors().1);
    // Largest error, and root of the mean square, relative to the largest magnitude of all, which is at most 1. Rounding to steps gives
    // half a step, and a step by the root of 12; q4 lowers the second and lets an element at the end of its group lose a whole step.
    for (quantize, formats, largest, mean) in [
        (Quantize::Keep, [Format::Bf16, Format::F16], 0.0, 0.0),
        (Quantize::F16, [Format::F16, Format::F16], 0.001, 0.0006),
        (Quantize::Q8, [Format::Q8_0, Format::Q8_0], 0.005, 0.003),
        (Quantize::Q4, [Format::Q8_0, Format::Q4_1], 2.0 / 15.0, 0.0385),
    ] {
        let mut memory = Memory::default();
        let mut last = (0, 0);
        let options = Options { quantize, ..Options::default() };
        let mut progress = |done, total| last = (done, total);
        let import = import::checkpoint(&checkpoint, options, &mut memory, &mut progress);
        let manifest = pollster::block_on(import).unwrap();
        assert_eq!(last, (checkpoint.card.bytes, checkpoint.card.bytes));
        assert_eq!(Manifest::parse(&memory.files[MANIFEST]).unwrap(), manifest);
        let package = pollster::block_on(package::open(&manifest, Box::new(memory))).unwrap();
        for (name, expected) in &expected {
            let errors: Vec<f32> = values(&package, name).iter().zip(expected).map(|(a, b)| (a - b).abs()).collect();
            let squares: f32 = errors.iter().map(|e| e * e).sum();
            assert!(errors.iter().all(|e| *e <= largest), "{name} as {quantize:?}");
            assert!((squares / errors.len() as f32).sqrt() <= mean, "{name} as {quantize:?}");
        }
        let format = |name: &str| package.tensor(name).unwrap().format;
        assert_eq!([format("model.embed_tokens.weight"), format("model.layers.0.mlp.up_proj.weight")], formats);
        assert_eq!(format("model.norm.weight"), Format::F32);
        assert_eq!(package.config, checkpoint.config);
        assert_eq!(package.tokenizer_config, checkpoint.tokenizer_config);
        assert_eq!(package.card.license, checkpoint.card.license);
    }
}

#[test]
fn what_is_missing_is_named() {
    let without = |memory: Memory, name: &'static str| refused(memory, move |files| drop(files.remove(name)));
    expect(&without(single(), "config.json"), "not_found", "config.json");
    expect(&without(single(), "model.safetensors"), "not_found", "model.safetensors");
    expect(&without(sharded(), "model-2.safetensors"), "not_found", "model-2.safetensors");
    let moved = bent(sharded(), INDEX, |i| i["weight_map"]["model.norm.weight"] = "model-1.safetensors".into());
    expect(&moved, "invalid_file", "\"model.norm.weight\" is missing in \"model-1.safetensors\"");
    let unlisted = bent(sharded(), INDEX, |i| drop(i["weight_map"].as_object_mut().unwrap().remove("model.embed_tokens.weight")));
    expect(&unlisted, "invalid_file", "model.embed_tokens.weight");
    expect(&opened(&single()).unwrap().tensor("lm_head.weight").unwrap_err(), "invalid_file", "lm_head.weight");
}

#[test]
fn an_index_names_only_files_beside_it() {
    for path in ["../model-1.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "a\\b"] {
        let error = bent(sharded(), INDEX, |i| i["weight_map"]["model.norm.weight"] = path.into());
        expect(&error, "invalid_file", "no file name");
    }
    expect(&bent(sharded(), INDEX, |i| i["weight_map"]["model.norm.weight"] = 3.into()), "invalid_file", "model.norm.weight");
    expect(&bent(sharded(), INDEX, |i| i["weight_map"] = Value::Null), "invalid_file", "weight_map");
}

#[test]
fn quantised_checkpoints_and_other_types_are_refused_by_name() {
    let error = bent(single(), "config.json", |c| c["quantization_config"] = json!({ "quant_method": "gptq" }));
    expect(&error, "unsupported_format", "gptq");
    let i64s: Stored = ("position_ids", Dtype::I64, vec![2], vec![0; 16]);
    let error = refused(single(), |files| drop(files.insert("model.safetensors".into(), file(&[i64s]))));
    expect(&error, "unsupported_format", "\"position_ids\"");
}

#[test]
fn a_safetensors_file_cut_short_is_an_integrity_error() {
    let whole = &single().files["model.safetensors"];
    for cut in [0, 4, 7, 8, 9, 100, 300, 1000, whole.len() - 1] {
        let error = refused(single(), |files| files.get_mut("model.safetensors").unwrap().truncate(cut));
        expect(&error, "integrity", "model.safetensors");
    }
    let error = refused(single(), |files| files.get_mut("model.safetensors").unwrap().push(0));
    expect(&error, "integrity", "model.safetensors");
}

#[test]
fn headers_that_lie_about_shapes_are_refused() {
    let lie = |header: &str| {
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 16]].concat();
        refused(single(), |files| drop(files.insert("model.safetensors".into(), bytes)))
    };
    expect(&lie(r#"{"a":{"dtype":"F32","shape":[5],"data_offsets":[0,16]}}"#), "invalid_file", "header");
    expect(&lie(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,16]}}"#), "invalid_file", "header");
    expect(&lie(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}"#), "invalid_file", "header");
    expect(&lie(r#"{"a":{"dtype":"F99","shape":[4],"data_offsets":[0,16]}}"#), "invalid_file", "header");
    expect(&lie(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#), "integrity", "end at byte");
    let huge = refused(single(), |files| files.get_mut("model.safetensors").unwrap()[..8].copy_from_slice(&[0xff; 8]));
    expect(&huge, "invalid_file", "not a safetensors file");
}

#[test]
fn mutated_headers_never_panic() {
    let memory = single();
    let mut rng = Rng::new(11);
    let (mut refused, rounds) = (0, 3000);
    for _ in 0..rounds {
        let mut memory = memory.clone();
        let file = memory.files.get_mut("model.safetensors").unwrap();
        for _ in 0..=rng.below(2) {
            let at = rng.below(320);
            file[at] = [b'"', b'9', b'{', b']', 0xff, 0, rng.next() as u8][rng.below(7)];
        }
        refused += usize::from(opened(&memory).is_err());
    }
    assert!(refused > rounds / 4, "only {refused} of {rounds} were refused: the mutations do not bite");
}
