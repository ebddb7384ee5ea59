//! Adapters on every backend: PEFT's goldens, sums of adapters against merged weights, and a base that is the same afterwards.

use std::collections::BTreeMap;

use openweights::{
    Error, Result,
    backend::Backend,
    engine::Model,
    generate::Params,
    quant::Plane,
    weights::{
        self, Checkpoint,
        adapter::{self, Adapter},
        files::Memory,
        import::{self, Options, Quantize},
        package,
        safetensors::open,
    },
};
use openweights_tests::{
    answer, cpu, fixture,
    gguf_writer::{Gguf, GgufTensor},
    gpu, greedy, ids, json, largest_difference, load, logits, reference,
    rng::Rng,
};
use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};
use serde_json::{Value, json};

/// Largest difference of a logit in f32 from PEFT's f32.
const TOLERANCE: f32 = 1e-3;

/// Name, shape, values.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn tensors(bytes: &[u8]) -> Tensors {
    let floats = |bytes: &[u8]| bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let file = SafeTensors::deserialize(bytes).expect("safetensors");
    file.iter().map(|(name, view)| (name.to_owned(), (view.shape().to_vec(), floats(view.data())))).collect()
}

fn file(tensors: &Tensors) -> Vec<u8> {
    let bytes: Vec<_> = tensors.values().map(|(_, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()).collect();
    let view = |shape: &[usize], bytes| TensorView::new(Dtype::F32, shape.to_vec(), bytes).expect("a view");
    serialize(tensors.iter().zip(&bytes).map(|((name, (shape, _)), bytes)| (name, view(shape, bytes))), None).expect("safetensors")
}

/// The files of a fixture.
fn fixture_files(path: &str) -> Memory {
    let mut memory = Memory::default();
    for entry in std::fs::read_dir(fixture(path)).expect("a fixture") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            memory.files.insert(path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).expect("readable"));
        }
    }
    memory
}

fn base(name: &str) -> Checkpoint {
    checkpoint(&fixture_files(&format!("tiny/{name}")))
}

fn checkpoint(memory: &Memory) -> Checkpoint {
    pollster::block_on(open(Box::new(memory.clone()), &memory.listing())).expect("a checkpoint")
}

fn peft(name: &str) -> Memory {
    fixture_files(&format!("tiny/llama_plain/{name}"))
}

fn opened(memory: &Memory) -> Result<Adapter> {
    pollster::block_on(adapter::open(Box::new(memory.clone()), &memory.listing()))
}

fn add(model: &mut Model, adapter: &Adapter, name: &str, scale: f32, base: &Checkpoint) -> Result<()> {
    pollster::block_on(model.add_adapter(adapter, name, scale, base))
}

fn rows(golden: &Value) -> Vec<Vec<f32>> {
    let row = |row: &Value| row.as_array().expect("a row").iter().map(|v| v.as_f64().expect("a logit") as f32).collect();
    golden["logits"].as_array().expect("logits").iter().map(row).collect()
}

#[track_caller]
fn close(actual: &[Vec<f32>], expected: &[Vec<f32>], what: &str) {
    assert_eq!(actual.len(), expected.len());
    for (position, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        let difference = largest_difference(actual, expected);
        assert!(difference < TOLERANCE, "{what}: position {position} is off by {difference}");
    }
}

/// Logits and greedy ids of PEFT; afterwards the base is what it was, bit for bit.
fn golden(name: &str, backend: fn() -> Box<dyn Backend>) {
    let golden = json(&format!("tiny/llama_plain/{name}/golden.json"));
    let (prompt, expected) = (ids(&golden["input_ids"]), ids(&golden["greedy_ids"]));
    let all: Vec<u32> = prompt.iter().chain(&expected).copied().collect();
    let base = base("llama_plain");
    let mut model = load(&base, backend()).expect("the model loads");
    let before = logits(&mut model, &all);
    let adapter = weights::open_adapter(&fixture(&format!("tiny/llama_plain/{name}"))).expect("the adapter opens");
    add(&mut model, &adapter, name, 1.0, &base).expect("the adapter loads");
    close(&logits(&mut model, &all), &rows(&golden), name);
    assert_eq!(greedy(&mut model, &prompt, expected.len()), expected, "{name}: greedy ids");
    model.remove_adapter(name).expect("it is there");
    assert_eq!(logits(&mut model, &all), before, "{name}: the base changed");
    assert_eq!(greedy(&mut model, &prompt, 16), ids(&json("tiny/llama_plain/golden.json")["greedy_ids"]));
}

/// A random adapter of every linear map of `base`, ranks 1 to 5; DoRA where `dora`.
fn random_adapter(rng: &mut Rng, base: &Tensors, transposed: bool, dora: bool) -> Memory {
    let (mut adapter, mut ranks) = (Tensors::new(), serde_json::Map::new());
    for (name, (shape, _)) in base.iter().filter(|(name, tensor)| is_map(name, &tensor.0)) {
        let module = name.strip_suffix(".weight").expect("a weight");
        let [out, input] = if transposed && !name.contains("head") { [shape[1], shape[0]] } else { [shape[0], shape[1]] };
        let rank = 1 + rng.below(5);
        ranks.insert(module.to_owned(), rank.into());
        let mut put = |part: &str, shape: &[usize], rng: &mut Rng, least: f32| {
            let values = (0..shape.iter().product()).map(|_| least + 0.2 * rng.float()).collect();
            adapter.insert(format!("base_model.model.{module}.{part}"), (shape.to_vec(), values));
        };
        put("lora_A.weight", &[rank, input], rng, 0.0);
        put("lora_B.weight", &[out, rank], rng, 0.0);
        if dora {
            put("lora_magnitude_vector", &[out], rng, 1.0);
        }
    }
    let config = json!({
        "peft_type": "LORA", "r": 64, "lora_alpha": 3, "use_dora": dora, "use_rslora": true, "rank_pattern": ranks, "bias": "none"
    });
    let mut memory = Memory::default();
    memory.files.insert("adapter_config.json".into(), config.to_string().into_bytes());
    memory.files.insert("adapter_model.safetensors".into(), file(&adapter));
    memory
}

fn is_map(name: &str, shape: &[usize]) -> bool {
    shape.len() == 2 && !["embed_tokens", "embed_in", "wte", "wpe", "attn.bias"].iter().any(|table| name.contains(table))
}

/// The base with an adapter merged as PEFT's formulas say: `W + s B A`, its rows scaled to the magnitudes where there are any.
fn merge(base: &mut Tensors, adapter: &Memory, scale: f64, transposed: bool, original: &Tensors) {
    let parts = tensors(&adapter.files["adapter_model.safetensors"]);
    for (name, (shape, w)) in base.iter_mut().filter(|(name, tensor)| is_map(name, &tensor.0)) {
        let part = |part: &str| parts.get(&format!("base_model.model.{}.{part}", name.trim_end_matches(".weight")));
        let (Some(a), Some(b)) = (part("lora_A.weight"), part("lora_B.weight")) else { continue };
        let (rank, input, out) = (a.0[0], a.0[1], b.0[0]);
        let s = scale * 3.0 / (rank as f64).sqrt();
        for o in 0..out {
            let at = |i: usize| if transposed && shape[0] == input { i * out + o } else { o * input + i };
            let d = |i: usize| s * (0..rank).map(|k| f64::from(b.1[o * rank + k]) * f64::from(a.1[k * input + i])).sum::<f64>();
            let mut factor = 1.0;
            if let Some(magnitude) = part("lora_magnitude_vector") {
                let first = &original[name].1;
                let length = (0..input).map(|i| (f64::from(first[at(i)]) + d(i)).powi(2)).sum::<f64>().sqrt();
                factor = f64::from(magnitude.1[o]) / length;
            }
            (0..input).for_each(|i| w[at(i)] = (factor * (f64::from(w[at(i)]) + d(i))) as f32);
        }
    }
}

/// Two adapters of every map at once, of other strengths than they were trained for, against merged weights; stacked, fused,
/// reordered and transposed maps, with and without biases.
fn combined(name: &str, backend: fn() -> Box<dyn Backend>) {
    let (mut rng, files, transposed) = (Rng::new(5), fixture_files(&format!("tiny/{name}")), name == "gpt2");
    let original = tensors(&files.files["model.safetensors"]);
    let dora = random_adapter(&mut rng, &original, transposed, !transposed);
    let plain = random_adapter(&mut rng, &original, transposed, false);
    let merged = |adapters: &[(&Memory, f64)]| {
        let (mut files, mut tensors) = (files.clone(), original.clone());
        adapters.iter().for_each(|(adapter, scale)| merge(&mut tensors, adapter, *scale, transposed, &original));
        files.files.insert("model.safetensors".into(), file(&tensors));
        logits(&mut load(&checkpoint(&files), backend()).expect("the merged model loads"), &[5, 9, 2, 7, 1, 300, 8])
    };
    let base = checkpoint(&files);
    let mut model = load(&base, backend()).expect("the model loads");
    let mut now = |change: &dyn Fn(&mut Model) -> Result<()>| {
        change(&mut model).expect("the adapters change");
        logits(&mut model, &[5, 9, 2, 7, 1, 300, 8])
    };
    let before = now(&|_| Ok(()));
    let both = now(&|model| {
        add(model, &opened(&dora)?, "dora", 1.0, &base)?;
        add(model, &opened(&plain)?, "plain", -0.5, &base)
    });
    assert!(largest_difference(&both[6], &before[6]) > 0.05, "{name}: the adapters do nothing");
    close(&both, &merged(&[(&dora, 1.0), (&plain, -0.5)]), &format!("{name}: both"));
    let weaker = now(&|model| model.set_adapter_scale("dora", 0.25));
    close(&weaker, &merged(&[(&dora, 0.25), (&plain, -0.5)]), &format!("{name}: both, one weaker"));
    let alone = now(&|model| model.remove_adapter("dora"));
    close(&alone, &merged(&[(&plain, -0.5)]), &format!("{name}: one alone"));
    assert_eq!(now(&|model| model.remove_adapter("plain")), before, "{name}: the base changed");
    let other_order = now(&|model| {
        add(model, &opened(&plain)?, "plain", 1.0, &base)?;
        add(model, &opened(&dora)?, "dora", 2.0, &base)
    });
    close(&other_order, &merged(&[(&plain, 1.0), (&dora, 2.0)]), &format!("{name}: in the other order"));
}

/// Nothing that was computed with other adapters is used again.
fn forgets(backend: fn() -> Box<dyn Backend>) {
    let (base, adapter) = (base("llama_plain"), opened(&peft("lora_r4")).expect("opens"));
    let golden = json("tiny/llama_plain/lora_r4/golden.json");
    let prompt = ids(&golden["input_ids"]);
    let params = || Params { max_tokens: Some(16), ignore_eos: true, ..Params::default() };
    let mut model = load(&base, backend()).expect("loads");
    let ask = |model: &mut Model| answer(model, prompt.clone(), params()).expect("an answer");
    let before = ask(&mut model).ids;
    let mut keys = vec![model.session_key("base")];
    assert_eq!(ask(&mut model).usage.reused_tokens, prompt.len() - 1);
    add(&mut model, &adapter, "lora", 1.0, &base).expect("adds");
    let with = ask(&mut model);
    assert_eq!((with.usage.reused_tokens, with.ids), (0, ids(&golden["greedy_ids"])));
    keys.push(model.session_key("base"));
    model.set_adapter_scale("lora", 0.5).expect("scales");
    assert_eq!(ask(&mut model).usage.reused_tokens, 0);
    keys.push(model.session_key("base"));
    model.remove_adapter("lora").expect("removes");
    assert_eq!(model.session_key("base"), keys[0], "what was saved without it can be restored again");
    add(&mut model, &opened(&peft("lora_rslora_qv")).expect("opens"), "lora", 1.0, &base).expect("adds");
    keys.push(model.session_key("base"));
    model.remove_adapter("lora").expect("removes");
    let different = |i: usize| keys[i + 1..].iter().all(|other| *other != keys[i]);
    assert!((0..4).all(different), "saved sessions know adapters by content and scale: {keys:?}");
    let after = ask(&mut model);
    assert_eq!((after.usage.reused_tokens, after.ids), (0, before));

    // A request under way ends, and the next one is not disturbed by it.
    let mut under_way = model.start(prompt.clone(), params()).expect("starts");
    while !matches!(pollster::block_on(under_way.next(&mut model)), Ok(Some(openweights::generate::Event::Token { .. }))) {}
    add(&mut model, &adapter, "lora", 1.0, &base).expect("adds");
    let mut next = model.start(prompt.clone(), params()).expect("starts");
    pollster::block_on(next.next(&mut model)).expect("a first piece of work");
    let error = pollster::block_on(under_way.next(&mut model)).expect_err("its session is gone");
    assert!(error.to_string().contains("adapters were changed"), "{error}");
    assert_eq!(pollster::block_on(under_way.next(&mut model)), Ok(None));
    let mut tokens = Vec::new();
    while let Some(event) = pollster::block_on(next.next(&mut model)).expect("goes on") {
        if let openweights::generate::Event::Token { id, .. } = event {
            tokens.push(id);
        }
    }
    assert_eq!(tokens, ids(&golden["greedy_ids"]));
}

macro_rules! on_every_backend {
    ($($module:ident: $backend:expr),* $(,)?) => {
        $(mod $module {
            #[test] fn lora() { super::golden("lora_r4", $backend); }
            #[test] fn rslora() { super::golden("lora_rslora_qv", $backend); }
            #[test] fn dora() { super::golden("lora_dora", $backend); }
            #[test] fn combined_llama() { super::combined("llama_plain", $backend); }
            #[test] fn combined_with_biases_and_head_dim() { super::combined("llama_bias_headdim", $backend); }
            #[test] fn combined_transposed() { super::combined("gpt2", $backend); }
            #[test] fn combined_reordered() { super::combined("gpt_neox_pythia", $backend); }
            #[test] fn combined_fused() { super::combined("phi3_partial", $backend); }
            #[test] fn combined_norms_after() { super::combined("olmo2_postnorm", $backend); }
            #[test] fn forgets() { super::forgets($backend); }
        })*
    };
}

on_every_backend!(reference_backend: super::reference, cpu_backend: super::cpu, gpu_backend: super::gpu);

/// A checkpoint of the values that the tensors of `packed` stand for.
fn unpacked(packed: &Checkpoint) -> Checkpoint {
    let mut all = Tensors::new();
    for (name, tensor) in &packed.tensors {
        let read = |plane| pollster::block_on(packed.read_rows(tensor, plane, 0, tensor.rows())).expect("readable");
        let (values, scales, mut floats) = (read(Plane::Values), read(Plane::Scales), vec![0.0; tensor.rows() * tensor.cols()]);
        let row = |bytes: &[u8], index: usize| bytes[bytes.len() / tensor.rows() * index..][..bytes.len() / tensor.rows()].to_vec();
        for (index, out) in floats.chunks_exact_mut(tensor.cols()).enumerate() {
            tensor.format.unpack_row(&row(&values, index), &row(&scales, index), out);
        }
        all.insert(name.clone(), (tensor.shape.clone(), floats));
    }
    let mut files = Memory::default();
    files.files.insert("config.json".into(), packed.config.to_string().into_bytes());
    files.files.insert("model.safetensors".into(), file(&all));
    checkpoint(&files)
}

/// On a quantised base an adapter acts as on the values that the base stands for; a DoRA's lengths are theirs, too.
#[test]
fn quantised_bases() {
    for quantize in [Quantize::Q4, Quantize::Q8, Quantize::F16] {
        let mut sink = Memory::default();
        let options = Options { quantize, ..Options::default() };
        let manifest = pollster::block_on(import::checkpoint(&base("llama_plain"), options, &mut sink, &mut |_, _| {})).expect("converts");
        let base = pollster::block_on(package::open(&manifest, Box::new(sink))).expect("opens");
        let with = |base: &Checkpoint, backend| {
            let mut model = load(base, backend).expect("loads");
            add(&mut model, &opened(&peft("lora_dora")).expect("opens"), "dora", 1.0, base).expect("adds");
            add(&mut model, &opened(&peft("lora_r4")).expect("opens"), "lora", 0.5, base).expect("adds");
            logits(&mut model, &[5, 9, 2, 7, 1, 300, 8])
        };
        let expected = with(&unpacked(&base), reference());
        close(&with(&base, reference()), &expected, "reference");
        close(&with(&base, gpu()), &expected, "GPU");
    }
}

/// `lora_r4` as llama.cpp's converter writes it: its names, and the rows of q and k interleaved.
fn gguf_adapter() -> Gguf {
    let text = |text: &str| weights::gguf::Value::String(text.into());
    let mut gguf = Gguf { version: 3, metadata: Vec::new(), tensors: Vec::new() };
    gguf.set("general.architecture", text("llama"));
    gguf.set("general.type", text("adapter"));
    gguf.set("adapter.type", text("lora"));
    gguf.set("adapter.lora.alpha", weights::gguf::Value::Float(8.0));
    for (name, (shape, mut values)) in tensors(&peft("lora_r4").files["adapter_model.safetensors"]) {
        let part: Vec<&str> = name.split('.').collect();
        let (layer, map, which) = (part[4], part[6], part[7].to_lowercase());
        let stem = match map {
            "q_proj" => "attn_q",
            "k_proj" => "attn_k",
            "v_proj" => "attn_v",
            "o_proj" => "attn_output",
            "gate_proj" => "ffn_gate",
            "up_proj" => "ffn_up",
            _ => "ffn_down",
        };
        if which == "lora_b" && ["q_proj", "k_proj"].contains(&map) {
            // reshape(heads, 2, 8, rank), swap the middle axes: the converter's `permute`.
            let (published, rank) = (values.clone(), shape[1]);
            for row in 0..shape[0] {
                let (head, half, i) = (row / 16, row % 16 / 8, row % 8);
                values[(head * 16 + 2 * i + half) * rank..][..rank].copy_from_slice(&published[row * rank..][..rank]);
            }
        }
        let shape = shape.iter().map(|&d| d as u64).collect();
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        gguf.tensors.push(GgufTensor { name: format!("blk.{layer}.{stem}.weight.{which}"), shape, kind: 0, data });
    }
    gguf
}

fn open_gguf(gguf: &Gguf) -> Result<Adapter> {
    let mut memory = Memory::default();
    memory.files.insert("adapter.gguf".into(), gguf.to_bytes().1);
    opened(&memory)
}

#[test]
fn gguf_adapters_are_the_same() {
    let (base, golden) = (base("llama_plain"), json("tiny/llama_plain/lora_r4/golden.json"));
    let mut model = load(&base, reference()).expect("loads");
    add(&mut model, &open_gguf(&gguf_adapter()).expect("opens"), "gguf", 1.0, &base).expect("adds");
    close(&logits(&mut model, &ids(&golden["input_ids"])), &rows(&golden)[..24], "GGUF");
}

#[track_caller]
fn refused(result: Result<impl Sized>, code: &str, says: &[&str]) {
    let error = result.err().expect("refused");
    assert_eq!(error.code(), code, "{error}");
    says.iter().for_each(|text| assert!(error.to_string().contains(text), "{error} does not say {text}"));
}

#[test]
fn gguf_files_that_are_something_else_are_refused() {
    let with = |key: &str, value: Value| {
        let mut gguf = gguf_adapter();
        gguf.set(
            key,
            match value {
                Value::String(text) => weights::gguf::Value::String(text),
                number => weights::gguf::Value::Float(number.as_f64().expect("a number")),
            },
        );
        open_gguf(&gguf)
    };
    refused(with("general.type", json!("model")), "invalid_input", &["not an adapter"]);
    refused(with("adapter.type", json!("control_vector")), "unsupported_format", &["control_vector"]);
    refused(with("adapter.lora.prompt_prefix", json!("x")), "unsupported_format", &["adapter.lora.prompt_prefix"]);
    refused(with("adapter.lora.alpha", json!(0.0)), "invalid_file", &["adapter.lora.alpha"]);
    refused(with("general.architecture", json!("mamba")), "unsupported_format", &["mamba", "blk.0."]);
    let mut gguf = gguf_adapter();
    gguf.tensors[0].name = "token_embd.weight.lora_a".into();
    gguf.tensors[1].name = "token_embd.weight.lora_b".into();
    refused(open_gguf(&gguf), "unsupported_format", &["token_embd.weight"]);
    let mut gguf = gguf_adapter();
    gguf.tensors.remove(0);
    refused(open_gguf(&gguf), "invalid_file", &["missing", "model.layers.0."]);
    gguf = gguf_adapter();
    gguf.tensors[3].name = "blk.0.attn_q.weight".into();
    refused(open_gguf(&gguf), "unsupported_format", &["blk.0.attn_q.weight"]);
}

#[test]
fn settings_are_supported_or_refused_by_name() {
    let with = |key: &str, value: Value| {
        let mut memory = peft("lora_r4");
        let mut config: Value = serde_json::from_slice(&memory.files["adapter_config.json"]).expect("JSON");
        config[key] = value;
        memory.files.insert("adapter_config.json".into(), config.to_string().into_bytes());
        opened(&memory)
    };
    for kind in ["IA3", "VERA", "ADALORA", "LOHA", "PREFIX_TUNING"] {
        refused(with("peft_type", json!(kind)), "unsupported_format", &["peft_type", kind]);
    }
    for (key, value) in [
        ("target_parameters", json!(["mlp.experts.gate_up_proj"])),
        ("modules_to_save", json!(["lm_head"])),
        ("bias", json!("lora_only")),
        ("lora_bias", json!(true)),
        ("init_lora_weights", json!("pissa")),
        ("init_lora_weights", json!("loftq")),
        ("layer_replication", json!([[0, 2]])),
        ("trainable_token_indices", json!([1])),
        ("alora_invocation_tokens", json!([1, 2])),
        ("use_qalora", json!(true)),
        ("use_bdlora", json!({ "nblocks": 2 })),
        ("megatron_config", json!({ "a": 1 })),
        ("a_setting_of_tomorrow", json!(0.5)),
    ] {
        refused(with(key, value), "unsupported_format", &[key]);
    }
    for (key, value) in [
        ("init_lora_weights", json!("gaussian")),
        ("fan_in_fan_out", json!(true)),
        ("target_modules", json!("all-linear")),
        ("layers_to_transform", json!([0, 1])),
        ("alpha_pattern", json!({ "layers.0.self_attn.q_proj": 4 })),
        ("rank_pattern", json!({ "^model.layers.0.self_attn.q_proj": 4 })),
        ("a_setting_of_tomorrow", json!(null)),
        ("use_another_setting", json!(false)),
    ] {
        with(key, value).unwrap_or_else(|e| panic!("{key}: {e}"));
    }
    refused(with("layers_to_transform", json!(0)), "invalid_file", &["layers_to_transform", "model.layers.1."]);
    refused(with("rank_pattern", json!({ "q_proj": 8 })), "invalid_file", &["q_proj", "rank 8"]);
    refused(with("rank_pattern", json!({ ".*_proj": 4 })), "unsupported_format", &["rank_pattern", ".*_proj"]);
    refused(with("r", json!(0)), "invalid_file", &["\"r\""]);
    refused(with("lora_alpha", json!("much")), "invalid_file", &["lora_alpha", "much"]);
    refused(with("use_dora", json!(true)), "invalid_file", &["DoRA", "magnitude"]);
    refused(with("use_rslora", json!(3)), "invalid_file", &["use_rslora"]);
}

#[test]
fn patterns_set_the_strength_of_single_maps() {
    let mut memory = peft("lora_r4");
    let mut config: Value = serde_json::from_slice(&memory.files["adapter_config.json"]).expect("JSON");
    config["alpha_pattern"] = json!({ "layers.1.self_attn.q_proj": 2, "q_proj": 4 });
    memory.files.insert("adapter_config.json".into(), config.to_string().into_bytes());
    let adapter = opened(&memory).expect("opens");
    let scaling = |layer: usize, map: &str| adapter.modules[&format!("model.layers.{layer}.self_attn.{map}.weight")].scaling;
    assert_eq!([scaling(0, "q_proj"), scaling(1, "q_proj"), scaling(1, "v_proj")], [1.0, 0.5, 2.0]);
}

#[test]
fn tensors_that_are_no_lora_of_a_linear_map_are_refused_by_name() {
    let with = |from: &str, to: Option<&str>| {
        let mut memory = peft("lora_r4");
        let mut all = tensors(&memory.files["adapter_model.safetensors"]);
        let tensor = all.remove(from).expect("the tensor");
        to.map(|name| all.insert(name.to_owned(), tensor));
        memory.files.insert("adapter_model.safetensors".into(), file(&all));
        opened(&memory)
    };
    let q = "base_model.model.model.layers.0.self_attn.q_proj";
    let a = format!("{q}.lora_A.weight");
    for name in ["base_model.model.model.embed_tokens.lora_embedding_A", "base_model.model.lm_head.weight", "q.lora_A.weight"] {
        refused(with(&a, Some(name)), "unsupported_format", &[name]);
    }
    refused(with(&a, None), "invalid_file", &["missing", "layers.0.self_attn.q_proj"]);
    refused(with(&a, Some(&format!("{q}.lora_magnitude_vector"))), "invalid_file", &["magnitude", "layers.0.self_attn.q_proj"]);
    let mut nothing = peft("lora_r4");
    nothing.files.remove("adapter_model.safetensors");
    refused(opened(&nothing), "not_found", &["adapter_model.safetensors"]);
    nothing.files.insert("adapter_model.bin".into(), vec![0]);
    refused(opened(&nothing), "not_found", &["adapter_model.bin", "pickle"]);
    nothing.files.remove("adapter_config.json");
    refused(opened(&nothing), "not_found", &["adapter_config.json"]);
}

#[test]
fn another_base_is_refused_by_the_tensor_s_name() {
    let adapter = opened(&peft("lora_r4")).expect("opens");
    for (name, says) in [
        ("llama_bias_headdim", vec!["another base", "layers.0.", "lora_", "has shape"]),
        ("phi3_partial", vec!["another base", "no such linear map", "lora_A"]),
        ("gpt2", vec!["another base", "no such linear map"]),
    ] {
        let base = base(name);
        let mut model = load(&base, reference()).expect("loads");
        let before = logits(&mut model, &[1, 2, 3]);
        match add(&mut model, &adapter, "lora", 1.0, &base) {
            Err(error) => says.iter().for_each(|text| assert!(error.to_string().contains(text), "{name}: {error}")),
            Ok(()) => panic!("{name} took it"),
        }
        assert!(model.adapters().is_empty());
        assert_eq!(logits(&mut model, &[1, 2, 3]), before);
    }
}

/// Routed products have no place for an adapter: one that was trained on experts is refused by the tensor's name.
#[test]
fn adapters_of_experts_are_refused_by_name() {
    for (name, module, out) in [
        ("mixtral_moe", "model.layers.0.block_sparse_moe.experts.1.w1", 96),
        ("qwen3_moe", "model.layers.0.mlp.experts.1.up_proj", 32),
        ("gpt_oss", "model.layers.0.mlp.experts.down_proj", 64),
    ] {
        let mut memory = peft("lora_r4");
        let floats = |shape: [usize; 2]| (shape.to_vec(), vec![0.0; shape[0] * shape[1]]);
        let tensor = |part: &str| format!("base_model.model.{module}.{part}.weight");
        let all = [(tensor("lora_A"), floats([4, 64])), (tensor("lora_B"), floats([out, 4]))].into();
        memory.files.insert("adapter_model.safetensors".into(), file(&all));
        let (adapter, base) = (opened(&memory).expect("opens"), base(name));
        let mut model = load(&base, reference()).expect("loads");
        let error = add(&mut model, &adapter, "lora", 1.0, &base).expect_err("refused");
        assert_eq!(error.code(), "invalid_input");
        for text in [module, "experts"] {
            assert!(error.to_string().contains(text), "{name}: {error}");
        }
        assert!(model.adapters().is_empty());
    }
}

#[test]
fn adapters_are_listed_and_named() {
    let base = base("llama_plain");
    let mut model = load(&base, reference()).expect("loads");
    let (lora, dora) = (opened(&peft("lora_r4")).expect("opens"), opened(&peft("lora_dora")).expect("opens"));
    add(&mut model, &lora, "style", 1.0, &base).expect("adds");
    add(&mut model, &dora, "task", 0.5, &base).expect("adds");
    let list = model.adapters();
    assert_eq!(
        list.iter().map(|a| (a.name.as_str(), a.kind, a.scale, a.rank)).collect::<Vec<_>>(),
        [("style", "lora", 1.0, 4), ("task", "dora", 0.5, 4)]
    );
    assert_eq!((list[0].tensors.len(), list[0].base_model.as_deref()), (14, Some("llama_plain")));
    refused(add(&mut model, &lora, "style", 1.0, &base), "invalid_input", &["style"]);
    refused(add(&mut model, &lora, "", 1.0, &base), "invalid_input", &["names"]);
    refused(add(&mut model, &lora, "other", f32::NAN, &base), "invalid_input", &["NaN"]);
    refused(model.set_adapter_scale("style", f32::INFINITY), "invalid_input", &["inf"]);
    refused(model.set_adapter_scale("nobody", 1.0), "not_found", &["nobody", "style"]);
    refused(model.remove_adapter("nobody"), "not_found", &["nobody"]);
    // A name that the model declares as its own, in another spelling.
    let declared = |name: &str| {
        let mut base = self::base("llama_plain");
        base.card.name = Some(openweights::card::Declared { value: name.into(), source: "test".into() });
        let mut model = load(&base, reference()).expect("loads");
        add(&mut model, &lora, "lora", 1.0, &base).expect("adds");
        model.adapters()[0].base_matches
    };
    assert_eq!([declared("Llama Plain"), declared("Another")], [Some(true), Some(false)]);
}

/// Files that are bent anywhere are refused or load; nothing panics.
#[test]
fn bent_files_do_not_panic() {
    let base = base("llama_plain");
    let mut model = load(&base, reference()).expect("loads");
    let mut rng = Rng::new(11);
    let (mut taken, mut refused) = (0, 0);
    for round in 0..300 {
        let (mut memory, name) = match round % 3 {
            0 => (peft("lora_dora"), "adapter_model.safetensors"),
            1 => (peft("lora_dora"), "adapter_config.json"),
            _ => (Memory::default(), "adapter.gguf"),
        };
        let bytes = memory.files.entry(name.into()).or_insert_with(|| gguf_adapter().to_bytes().1);
        let header = bytes.len().min(3000);
        for _ in 0..1 + rng.below(3) {
            let at = rng.below(header);
            bytes[at] = rng.next() as u8;
        }
        if rng.below(4) == 0 {
            bytes.truncate(rng.below(bytes.len()));
        }
        match opened(&memory).and_then(|adapter| add(&mut model, &adapter, "bent", 1.0, &base)) {
            Ok(()) => (taken += 1, model.remove_adapter("bent").expect("it is there")).1,
            Err(Error::Aborted) => panic!("nobody aborted"),
            Err(_) => refused += 1,
        }
    }
    assert!(taken > 10 && refused > 100, "{taken} taken, {refused} refused");
}
