//! Mixture of experts beyond the goldens: weights that are not normalised, each layout that experts are published in, planes that hold
//! less than an expert.

use std::collections::BTreeMap;

use ::safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};
use openweights::{
    backend::{
        Backend,
        gpu::{Gpu, GpuOptions},
    },
    weights::{
        self, Checkpoint,
        files::Memory,
        import::{self, Options, Quantize},
        package, safetensors,
    },
};
use openweights_tests::{fixture, gpu, greedy, ids, json, largest_difference, load, logits, reference, rng::Rng};
use serde_json::{Value, json};

/// As for the goldens.
const TOLERANCE: f32 = 1e-3;

/// Type, shape, bytes.
type Stored = (Dtype, Vec<usize>, Vec<u8>);

fn floats(shape: &[usize], values: &[f32]) -> Stored {
    (Dtype::F32, shape.to_vec(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// The tensors of a fixture.
fn tensors(name: &str) -> BTreeMap<String, Stored> {
    let bytes = std::fs::read(fixture(&format!("tiny/{name}/model.safetensors"))).expect("the fixture");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    file.tensors().into_iter().map(|(name, t)| (name, (t.dtype(), t.shape().to_vec(), t.data().to_vec()))).collect()
}

fn checkpoint(config: &Value, tensors: &BTreeMap<String, Stored>) -> openweights::Result<Checkpoint> {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    let mut memory = Memory::default();
    memory.files.insert("config.json".into(), config.to_string().into());
    memory.files.insert("model.safetensors".into(), serialize(views, None).unwrap());
    let listing = memory.listing();
    pollster::block_on(safetensors::open(Box::new(memory), &listing))
}

fn prompt(name: &str) -> Vec<u32> {
    ids(&json(&format!("tiny/{name}/golden.json"))["input_ids"])
}

#[track_caller]
fn close(a: &[Vec<f32>], b: &[Vec<f32>], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    for (position, (a, b)) in a.iter().zip(b).enumerate() {
        let difference = largest_difference(a, b);
        assert!(difference <= tolerance, "position {position} is off by {difference}");
    }
}

fn rows(golden: &Value) -> Vec<Vec<f32>> {
    let row = |row: &Value| row.as_array().expect("a row").iter().map(|v| v.as_f64().expect("a logit") as f32).collect();
    golden["logits"].as_array().expect("logits").iter().map(row).collect()
}

/// `qwen3_moe/unnormalised.py` says how the golden was made.
#[test]
fn weights_need_not_sum_to_one() {
    let golden = json("tiny/qwen3_moe/golden_unnormalised.json");
    let (prompt, expected) = (ids(&golden["input_ids"]), ids(&golden["greedy_ids"]));
    let all = [&prompt[..], &expected].concat();
    let mut checkpoint = weights::open(&fixture("tiny/qwen3_moe")).expect("the checkpoint opens");
    checkpoint.config["norm_topk_prob"] = false.into();
    for backend in [reference(), gpu()] {
        let mut model = load(&checkpoint, backend).expect("the model loads");
        close(&logits(&mut model, &all), &rows(&golden), TOLERANCE);
        assert_eq!(greedy(&mut model, &prompt, expected.len()), expected);
    }
}

/// As GGUF files hold them: the name of an expert's tensor without the expert's number.
#[test]
fn experts_may_be_stacked_in_one_tensor() {
    for (name, module, maps) in
        [("mixtral_moe", "block_sparse_moe", ["w1", "w2", "w3"]), ("qwen3_moe", "mlp", ["gate_proj", "up_proj", "down_proj"])]
    {
        let config = json(&format!("tiny/{name}/config.json"));
        let mut stored = tensors(name);
        let expected = logits(&mut load(&checkpoint(&config, &stored).unwrap(), reference()).unwrap(), &prompt(name));
        for layer in 0..2 {
            for map in maps {
                let prefix = format!("model.layers.{layer}.{module}.experts");
                let each: Vec<Stored> = (0..4).map(|e| stored.remove(&format!("{prefix}.{e}.{map}.weight")).expect("an expert")).collect();
                let shape = [&[4], &each[0].1[..]].concat();
                let bytes = each.iter().flat_map(|e| e.2.clone()).collect();
                stored.insert(format!("{prefix}.{map}.weight"), (Dtype::F32, shape, bytes));
            }
        }
        let stacked = checkpoint(&config, &stored).unwrap();
        close(&logits(&mut load(&stacked, reference()).unwrap(), &prompt(name)), &expected, 0.0);
    }
}

/// gpt-oss's experts: of 4, with random blocks; as mxfp4 pairs, and as the floats that these are.
fn gpt_oss_pair() -> (Checkpoint, Checkpoint) {
    const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let mut rng = Rng::new(31);
    let mut config = json("tiny/gpt_oss/config.json");
    let (mut packed, mut dense) = (tensors("gpt_oss"), tensors("gpt_oss"));
    for layer in 0..2 {
        for (map, out, cols) in [("gate_up_proj", 64, 64), ("down_proj", 64, 32)] {
            let name = format!("model.layers.{layer}.mlp.experts.{map}");
            let groups = cols / 32;
            let blocks: Vec<u8> = (0..4 * out * groups * 16).map(|_| rng.below(256) as u8).collect();
            let scales: Vec<u8> = (0..4 * out * groups).map(|_| 120 + rng.below(4) as u8).collect();
            let mut values = vec![0.0; 4 * cols * out];
            for (i, byte) in blocks.iter().enumerate() {
                let (row, col) = (i / (groups * 16), i % (groups * 16) * 2);
                for (nibble, col) in [(byte & 15, col), (byte >> 4, col + 1)] {
                    let magnitude = E2M1[usize::from(nibble & 7)] * 2.0_f32.powi(i32::from(scales[i / 16]) - 127);
                    let value = if nibble < 8 { magnitude } else { -magnitude };
                    values[(row / out * cols + col) * out + row % out] = value;
                }
            }
            dense.insert(name.clone(), floats(&[4, cols, out], &values));
            packed.remove(&name);
            packed.insert(format!("{name}_blocks"), (Dtype::U8, vec![4, out, groups, 16], blocks));
            packed.insert(format!("{name}_scales"), (Dtype::U8, vec![4, out, groups], scales));
        }
    }
    let dense = checkpoint(&config, &dense).unwrap();
    config["quantization_config"] = json!({ "quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"] });
    (checkpoint(&config, &packed).unwrap(), dense)
}

#[test]
fn mxfp4_checkpoints_are_read_and_converted_without_a_loss() {
    let (packed, dense) = gpt_oss_pair();
    let prompt = prompt("gpt_oss");
    let expected = logits(&mut load(&dense, reference()).unwrap(), &prompt);
    for backend in [reference(), gpu()] {
        close(&logits(&mut load(&packed, backend).unwrap(), &prompt), &expected, TOLERANCE / 10.0);
    }
    let mut memory = Memory::default();
    let options = Options { quantize: Quantize::Keep, ..Options::default() };
    let manifest = pollster::block_on(import::checkpoint(&packed, options, &mut memory, &mut |_, _| {})).unwrap();
    assert_eq!(manifest.tensors["model.layers.0.mlp.experts.down_proj_blocks"].format, "mxfp4");
    let package = pollster::block_on(package::open(&manifest, Box::new(memory))).unwrap();
    close(&logits(&mut load(&package, reference()).unwrap(), &prompt), &logits(&mut load(&packed, reference()).unwrap(), &prompt), 0.0);
}

#[test]
fn mxfp4_pairs_that_do_not_match_are_refused() {
    let blocks = "model.layers.0.mlp.experts.down_proj_blocks".to_owned();
    let scales = "model.layers.0.mlp.experts.down_proj_scales".to_owned();
    let bytes = |shape: &[usize]| (Dtype::U8, shape.to_vec(), vec![0; shape.iter().product()]);
    for (stored, says) in [
        (vec![(blocks.clone(), bytes(&[4, 64, 1, 16]))], "has no"),
        (vec![(blocks.clone(), bytes(&[4, 64, 1, 16])), (scales.clone(), bytes(&[4, 64, 2]))], "not mxfp4"),
        (vec![(blocks.clone(), bytes(&[4, 64, 1, 8])), (scales.clone(), bytes(&[4, 64, 1]))], "not mxfp4"),
        (vec![(blocks, bytes(&[16])), (scales, floats(&[], &[0.0]))], "not mxfp4"),
    ] {
        let error = checkpoint(&json!({ "model_type": "gpt_oss" }), &stored.into_iter().collect()).err().expect("refused");
        assert!(error.to_string().contains(says), "{error}");
    }
}

/// A plane that holds a whole expert but not two, and one that ends within an expert.
#[test]
fn an_expert_may_fill_a_plane_or_several() {
    for (name, planes) in [("mixtral_moe", [32 << 10, 9 << 10]), ("gpt_oss", [20 << 10, 5 << 10])] {
        let golden = json(&format!("tiny/{name}/golden.json"));
        let all = [ids(&golden["input_ids"]), ids(&golden["greedy_ids"])].concat();
        let checkpoint = weights::open(&fixture(&format!("tiny/{name}"))).expect("the checkpoint opens");
        for max_plane_bytes in planes.map(Some) {
            let options = GpuOptions { max_plane_bytes, ..GpuOptions::default() };
            let backend: Box<dyn Backend> = Box::new(pollster::block_on(Gpu::new(options)).expect("an adapter"));
            let mut model = load(&checkpoint, backend).expect("the model loads");
            close(&logits(&mut model, &all), &rows(&golden), TOLERANCE);
        }
    }
}

#[test]
fn converting_quantises_experts_but_no_router() {
    let name = "mixtral_moe";
    let checkpoint = weights::open(&fixture(&format!("tiny/{name}"))).expect("the checkpoint opens");
    let mut memory = Memory::default();
    let options = Options { quantize: Quantize::Q8, ..Options::default() };
    let manifest = pollster::block_on(import::checkpoint(&checkpoint, options, &mut memory, &mut |_, _| {})).unwrap();
    let format = |part: &str| manifest.tensors[&format!("model.layers.0.block_sparse_moe.{part}.weight")].format.clone();
    assert_eq!([format("gate"), format("experts.3.w2")], ["f32", "q8_0"]);
    let package = pollster::block_on(package::open(&manifest, Box::new(memory))).unwrap();
    let [on_gpu, expected] = [gpu(), reference()].map(|backend| logits(&mut load(&package, backend).unwrap(), &prompt(name)));
    close(&on_gpu, &expected, TOLERANCE);
}
