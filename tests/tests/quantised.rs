//! Every architecture, quantised while it is imported: what comes of it loads, and answers nearly as before.

use openweights::{
    backend::Precision,
    weights::{
        self, Checkpoint,
        files::Memory,
        import::{self, Options, Quantize},
        package,
    },
};
use openweights_tests::{converter::floats, cpu_of, fixture, gpu, ids, json, load_for, logits, reference};

fn converted(name: &str, quantize: Quantize) -> (Checkpoint, Memory) {
    let mut memory = Memory::default();
    let options = Options { quantize, ..Options::default() };
    let manifest = weights::convert(&fixture(&format!("tiny/{name}")), options, &mut memory, &mut |_, _| {}).expect("it is converted");
    (pollster::block_on(package::open(&manifest, Box::new(memory.clone()))).expect("the package opens"), memory)
}

/// `sum (a - b)^2 / sum b^2`.
fn nmse(actual: &[f32], expected: &[f32]) -> f64 {
    let sum = |terms: &mut dyn Iterator<Item = f32>| terms.map(|v| f64::from(v).powi(2)).sum::<f64>();
    sum(&mut actual.iter().zip(expected).map(|(a, b)| a - b)) / sum(&mut expected.iter().copied())
}

fn outputs(name: &str, checkpoint: &Checkpoint, backend: Box<dyn openweights::backend::Backend>) -> Vec<f32> {
    let context = (name == "phi3_longrope_short_swa").then_some(64);
    let mut model = load_for(checkpoint, backend, context).unwrap_or_else(|e| panic!("{name}: {e}"));
    let ids = ids(&json(&format!("tiny/{name}/golden.json"))["input_ids"]);
    match model.info().embedding {
        Some(_) => pollster::block_on(model.hidden_states(&ids)).expect("hidden states"),
        None => logits(&mut model, &ids).concat(),
    }
}

fn has_experts(checkpoint: &Checkpoint) -> bool {
    checkpoint.tensors.keys().any(|name| name.contains(".experts."))
}

fn check(name: &str) {
    let published = weights::open(&fixture(&format!("tiny/{name}"))).expect("the checkpoint opens");
    let expected = outputs(name, &published, reference());
    // What so few bits cost weights that are random; a token may go to another expert. Of another model altogether it is 1 and more.
    let (q8, q4) = if has_experts(&published) { (0.05, 0.4) } else { (0.005, 0.25) };
    for (quantize, most) in [(Quantize::F16, 1e-5), (Quantize::Q8, q8), (Quantize::Q4, q4)] {
        let (checkpoint, _) = converted(name, quantize);
        let on_reference = outputs(name, &checkpoint, reference());
        let error = nmse(&on_reference, &expected);
        println!("{name}, {}: {error:.2e}", quantize.name());
        assert!(error < most, "{name}, {}: error {error:.2e}", quantize.name());
        for backend in [cpu_of(Precision::Exact), gpu()] {
            let error = nmse(&outputs(name, &checkpoint, backend), &on_reference);
            assert!(error < 1e-5, "{name}, {}, another backend: error {error:.2e}", quantize.name());
        }
        // Not a matrix of more than a few rows is left as it was.
        for (tensor, info) in checkpoint.tensors.iter().filter(|_| quantize != Quantize::F16) {
            let small = [".bias", "_bias", ".gate.weight", ".router.weight"].iter().any(|end| tensor.ends_with(end));
            let left = !info.format.is_quantised() && info.shape.len() > 1 && !small && !tensor.contains("conv.conv");
            assert!(!left, "{name}: {tensor} of shape {:?} stays {}", info.shape, info.format.name());
        }
    }
}

macro_rules! every {
    ($($name:ident),* $(,)?) => { $(#[test] fn $name() { check(stringify!($name)); })* };
}

every!(
    bert_mean,
    embeddinggemma_bidir,
    gemma,
    gemma2,
    gemma3,
    gpt2,
    gpt_neox_pythia,
    gpt_oss,
    granite,
    lfm2_conv,
    llama_bias_headdim,
    llama_f16_sharded,
    llama_plain,
    mistral_nemo_headdim,
    mistral_swa,
    mixtral_moe,
    olmo2_postnorm,
    phi,
    phi3_longrope_long,
    phi3_longrope_short_swa,
    phi3_partial,
    qwen2_swa,
    qwen2_tied,
    qwen3,
    qwen3_moe,
    smollm3_nope,
);

/// Maps that are published as `[in, out]` are quantised along `in`, whatever they are read from.
#[test]
fn transposed_maps_are_turned() {
    for (name, published, becomes, shape) in [
        ("gpt2", "transformer.h.1.mlp.c_fc.weight", "transformer.h.1.mlp.c_fc.weight", vec![256, 64]),
        ("gpt2", "transformer.h.1.attn.c_proj.weight", "transformer.h.1.attn.c_proj.weight", vec![64, 64]),
        ("gpt_oss", "model.layers.1.mlp.experts.down_proj", "model.layers.1.mlp.experts.down_proj_blocks", vec![4, 64, 32]),
    ] {
        let (kept, _) = converted(name, Quantize::Keep);
        let (quantised, files) = converted(name, Quantize::Q8);
        let info = quantised.tensor(becomes).expect("the tensor");
        assert_eq!((info.format.name(), &info.shape), ("q8_0", &shape));
        let [cols, rows] = kept.tensor(published).expect("the tensor").shape[kept.tensors[published].shape.len() - 2..] else { panic!() };
        let before = floats(&kept, &kept.tensors[published]);
        let after = floats(&quantised, info);
        for (i, packed) in after.iter().enumerate() {
            let (map, row, col) = (i / (rows * cols), i / cols % rows, i % cols);
            let value = before[map * rows * cols + col * rows + row];
            assert!((value - packed).abs() < 0.01, "{name}, {becomes}, element {i}: {value} became {packed}");
        }

        // From a package that holds floats, and once more from what was turned already.
        let mut again = Memory::default();
        let options = || Options { quantize: Quantize::Q8, ..Options::default() };
        let manifest = pollster::block_on(import::checkpoint(&kept, options(), &mut again, &mut |_, _| {})).expect("a package");
        let shards = |memory: &Memory| memory.files.iter().filter(|f| f.0.ends_with(".safetensors")).map(|f| f.1.len()).sum::<usize>();
        assert_eq!(manifest.tensors[becomes].shape, shape);
        assert_eq!(shards(&again), shards(&files));
        let package = pollster::block_on(package::open(&manifest, Box::new(again))).expect("the package opens");
        assert_eq!(outputs(name, &package, reference()), outputs(name, &quantised, reference()));
        let mut third = Memory::default();
        let manifest = pollster::block_on(import::checkpoint(&package, options(), &mut third, &mut |_, _| {})).expect("a package");
        assert_eq!(manifest.tensors[becomes].shape, shape);
    }
}

/// Before a byte is read.
#[test]
fn a_map_too_large_to_be_turned_is_refused_by_name() {
    let (mut checkpoint, _) = converted("gpt2", Quantize::Keep);
    let info = checkpoint.tensors.get_mut("transformer.h.0.mlp.c_fc.weight").expect("the tensor");
    info.shape = vec![8192, 32768];
    let options = Options { quantize: Quantize::Q4, ..Options::default() };
    let error = pollster::block_on(import::checkpoint(&checkpoint, options, &mut Memory::default(), &mut |_, _| {})).expect_err("refused");
    assert_eq!(error.code(), "unsupported_format");
    assert!(error.to_string().contains("transformer.h.0.mlp.c_fc.weight"), "{error}");
}
