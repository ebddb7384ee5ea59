//! Sentence Transformers' files beside a checkpoint: what makes an embedding of hidden states is read, carried by a package, and
//! refused by name where it is not known.

use ::safetensors::{Dtype, serialize, tensor::TensorView};
use openweights::{
    Error,
    engine::Model,
    weights::{
        self, Checkpoint,
        files::Memory,
        import::{self, Options},
        manifest::{MANIFEST, Manifest},
        package, safetensors,
    },
};
use openweights_tests::{
    cpu, fixture, gpu, ids, json, largest_difference, load, reference,
    rng::Rng,
    world::{HUB, World, own},
};
use serde_json::{Value, json};

const HIDDEN: usize = 64;
const WIDTH: usize = 20;

fn input_ids() -> Vec<u32> {
    ids(&json("tiny/bert_mean/golden.json")["input_ids"])
}

/// Puts `value` at `path` of a checkpoint's files.
fn put(files: &mut Memory, path: &str, value: &Value) {
    files.files.insert(path.into(), value.to_string().into_bytes());
}

const IDENTITY: &str = "torch.nn.modules.linear.Identity";
const TANH: &str = "torch.nn.modules.activation.Tanh";

/// The tiny BERT with the files of Sentence Transformers: pooling by the first token, a dense layer with this activation, a norm; and the
/// dense layer's weight and bias.
fn files(activation: &str) -> (Memory, Vec<f32>, Vec<f32>) {
    let mut files = Memory::default();
    for file in ["config.json", "model.safetensors"] {
        files.files.insert(file.into(), std::fs::read(fixture("tiny/bert_mean").join(file)).expect("the fixture"));
    }
    let module = |i: usize, path: &str, kind: &str| json!({ "idx": i, "name": i.to_string(), "path": path, "type": format!("sentence_transformers.models.{kind}") });
    let modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_Normalize", "Normalize")];
    let modules: Vec<Value> = modules.iter().enumerate().map(|(i, (path, kind))| module(i, path, kind)).collect();
    put(&mut files, "modules.json", &modules.into());
    put(
        &mut files,
        "1_Pooling/config.json",
        &json!({ "word_embedding_dimension": HIDDEN, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false }),
    );
    let dense = json!({ "in_features": HIDDEN, "out_features": WIDTH, "bias": true, "activation_function": activation });
    put(&mut files, "2_Dense/config.json", &dense);
    let mut rng = Rng::new(3);
    let (weight, bias): (Vec<f32>, Vec<f32>) =
        ((0..HIDDEN * WIDTH).map(|_| rng.float()).collect(), (0..WIDTH).map(|_| rng.float()).collect());
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let (weight_bytes, bias_bytes) = (bytes(&weight), bytes(&bias));
    let views = [
        ("linear.weight", TensorView::new(Dtype::F32, vec![WIDTH, HIDDEN], &weight_bytes).expect("a view")),
        ("linear.bias", TensorView::new(Dtype::F32, vec![WIDTH], &bias_bytes).expect("a view")),
    ];
    files.files.insert("2_Dense/model.safetensors".into(), serialize(views, None).expect("a file"));
    (files, weight, bias)
}

fn open(files: &Memory) -> Result<Checkpoint, Error> {
    pollster::block_on(safetensors::open(Box::new(files.clone()), &files.listing()))
}

fn embed(model: &mut Model) -> Vec<f32> {
    pollster::block_on(model.embed(&input_ids())).expect("an embedding")
}

/// What the files' model makes of the text, by the formulas.
fn expected(checkpoint: &Checkpoint, weight: &[f32], bias: &[f32], activation: fn(f32) -> f32) -> Vec<f32> {
    let mut model = load(checkpoint, reference()).expect("the model loads");
    let states = pollster::block_on(model.hidden_states(&input_ids())).expect("hidden states");
    let product = |row: &[f32]| row.iter().zip(&states).map(|(w, s)| w * s).sum::<f32>();
    let projected: Vec<f32> = weight.chunks_exact(HIDDEN).zip(bias).map(|(row, b)| activation(product(row) + b)).collect();
    let length = projected.iter().map(|v| v * v).sum::<f32>().sqrt();
    projected.iter().map(|v| v / length).collect()
}

#[test]
fn pooling_and_dense_layers_are_read_and_carried_by_a_package() {
    for (name, activation) in [(IDENTITY, (|x| x) as fn(f32) -> f32), (TANH, f32::tanh)] {
        let (files, weight, bias) = files(name);
        let checkpoint = open(&files).expect("the checkpoint opens");
        let expected = expected(&checkpoint, &weight, &bias, activation);
        let mut model = load(&checkpoint, reference()).expect("the model loads");
        let info = model.info().embedding.clone().expect("an encoder");
        assert_eq!((info.length, info.pooling), (WIDTH, "cls"));
        assert!(largest_difference(&embed(&mut model), &expected) < 1e-5, "{name}");
        for backend in [cpu(), gpu()] {
            assert!(largest_difference(&embed(&mut load(&checkpoint, backend).expect("the model loads")), &expected) < 1e-4, "{name}");
        }

        let mut memory = Memory::default();
        pollster::block_on(import::checkpoint(&checkpoint, Options::default(), &mut memory, &mut |_, _| {})).expect("a package");
        let manifest = Manifest::parse(&memory.files[MANIFEST]).expect("a manifest");
        let package = pollster::block_on(package::open(&manifest, Box::new(memory))).expect("the package opens");
        let mut packed = load(&package, reference()).expect("the model loads");
        assert_eq!(embed(&mut packed), embed(&mut model));
    }
}

/// By address, by hub id, as a person's own files, and as a folder on a disk.
#[test]
fn modules_come_with_a_model_from_anywhere() {
    let (files, weight, bias) = files(TANH);
    let expected = expected(&open(&files).expect("the checkpoint opens"), &weight, &bias, f32::tanh);
    let same = |checkpoint: &Checkpoint| {
        let mut model = load(checkpoint, reference()).expect("the model loads");
        assert!(largest_difference(&embed(&mut model), &expected) < 1e-5);
    };
    let at = |base: &str| World::new(files.files.iter().map(|(name, bytes)| (format!("{base}{name}"), bytes.clone())));
    let (here, hub) = (at("https://host.example/m/"), at(&format!("{HUB}/org/m/resolve/main/")));
    same(&here.open(&here.load("https://host.example/m/").expect("it loads")));
    same(&hub.open(&hub.load("org/m").expect("it loads")));
    let (world, source) = own(&files.files);
    let record = world.load_source(&source).expect("it loads");
    same(&world.open(&record));
    assert_eq!(world.load_source(&source).expect("it loads"), record, "found again");
    let mut incomplete = files.files.clone();
    incomplete.remove("1_Pooling/config.json");
    let (world, source) = own(&incomplete);
    let error = world.load_source(&source).expect_err("refused");
    assert_eq!(error.code(), "not_found");
    assert!(error.to_string().contains("1_Pooling/config.json"), "{error}");
    world.assert_empty();

    let folder = std::env::temp_dir().join(format!("openweights-modules-{}", std::process::id()));
    for (name, bytes) in &files.files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, bytes).expect("a file");
    }
    same(&weights::open(&folder).expect("the folder opens"));
    let mut memory = Memory::default();
    let manifest = weights::convert(&folder, Options::default(), &mut memory, &mut |_, _| {}).expect("it is converted");
    same(&pollster::block_on(package::open(&manifest, Box::new(memory))).expect("the package opens"));
    std::fs::remove_dir_all(&folder).expect("it was there");
}

/// What loading gives after a change of the files.
fn refusal(change: impl FnOnce(&mut Memory)) -> String {
    let (mut files, _, _) = files(IDENTITY);
    change(&mut files);
    let error = match open(&files) {
        Ok(checkpoint) => load(&checkpoint, reference()).err().expect("a refusal"),
        Err(error) => error,
    };
    assert!(["unsupported_format", "invalid_file"].contains(&error.code()), "{error}");
    error.to_string()
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let pooling = |value: Value| refusal(|files| put(files, "1_Pooling/config.json", &value));
    assert!(pooling(json!({ "pooling_mode_max_tokens": true })).contains("max_tokens"));
    assert!(pooling(json!({ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true })).contains("mean_tokens"));
    assert!(pooling(json!({ "pooling_mode": "weightedmean" })).contains("weightedmean"));
    assert!(pooling(json!({})).contains("pooling by []"));
    let dense = |key: &str, value: Value| {
        let mut config = json!({ "in_features": HIDDEN, "out_features": WIDTH, "activation_function": "torch.nn.modules.linear.Identity" });
        config[key] = value;
        refusal(|files| put(files, "2_Dense/config.json", &config))
    };
    assert!(dense("activation_function", json!("torch.nn.modules.activation.Softplus")).contains("Softplus"));
    assert!(dense("in_features", json!(32)).contains("in_features"));
    assert!(dense("out_features", json!(WIDTH + 4)).contains("2_Dense.linear.weight"));
    let modules = |value: Value| refusal(|files| put(files, "modules.json", &value));
    let module = |path: &str, kind: &str| json!({ "path": path, "type": format!("sentence_transformers.models.{kind}") });
    assert!(modules(json!([module("", "Transformer"), module("1_Pooling", "Pooling"), module("2_LSTM", "LSTM")])).contains("LSTM"));
    assert!(modules(json!([module("", "Transformer")])).contains("no Pooling"));
    assert!(modules(json!([module("../1_Pooling", "Pooling")])).contains("../1_Pooling"));
    assert!(modules(json!({})).contains("not a list"));
    let pickled = |files: &mut Memory| {
        let weights = files.files.remove("2_Dense/model.safetensors").expect("there");
        files.files.insert("2_Dense/pytorch_model.bin".into(), weights);
    };
    assert!(refusal(pickled).contains("pytorch_model.bin"));
    assert!(pooling(json!({ "pooling_mode_lasttoken": "yes" })).contains("pooling by []"));
}
