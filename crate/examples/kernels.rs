//! Times the variants of the matrix product at the shapes of SmolLM2-135M on this machine's adapter:
//! `cargo run --profile fast --example kernels [TOKENS] [SHAPE]`. The choice in `Variant::choose` rests on it.
//!
//! Beside the rate by the clock stands the rate per second of processor time, which says more about an emulated GPU on a
//! machine that is busy with other things.

use std::time::Instant;

use openweights::{
    backend::{
        Backend, Input,
        gpu::{Gpu, GpuOptions},
    },
    ops::{
        check::{self, Random},
        matmul::Variant,
    },
    quant::Format,
};

/// Name, rows, columns, format.
const SHAPES: [(&str, usize, usize, Format); 6] = [
    ("qkv", 960, 576, Format::Q4_1),
    ("o", 576, 576, Format::Q4_1),
    ("gate|up", 3072, 576, Format::Q4_1),
    ("down", 576, 1536, Format::Q4_1),
    ("down f16", 576, 1536, Format::F16),
    ("head", 49152, 576, Format::Q8_0),
];

fn main() {
    let only: Option<usize> = std::env::args().nth(1).and_then(|a| a.parse().ok());
    let shape = std::env::args().nth(2);
    for tokens in [1, 4, 32, 128] {
        if only.is_some_and(|t| t != tokens) {
            continue;
        }
        for (name, out, cols, format) in SHAPES {
            if (out > 10_000 && tokens > 4) || shape.as_ref().is_some_and(|s| s != name) {
                continue;
            }
            for variant in Variant::ALL {
                if (tokens > 4 && matches!(variant, Variant::Plain | Variant::Matvec)) || (tokens == 1 && variant == Variant::Tiled) {
                    continue;
                }
                let (wall, processor) = pollster::block_on(time(variant, tokens, out, cols, format));
                println!("{tokens:4} tokens  {name:9} {:9} {wall:7.2} GFLOP/s, {processor:6.2} per processor", format!("{variant:?}"));
            }
        }
    }
}

/// GFLOP by the clock and per second of processor time; a multiplication and an addition are two.
async fn time(variant: Variant, tokens: usize, out: usize, cols: usize, format: Format) -> (f64, f64) {
    let mut gpu = Gpu::new(GpuOptions { matmul: Some(variant), ..GpuOptions::default() }).await.expect("an adapter");
    let mut random = Random(1);
    let (weight, _) = check::random_weight(&mut gpu, &mut random, cols, &[(format, out)]).await.expect("a weight");
    let x = random.floats(tokens * cols);
    let flops = 2.0 * (tokens * out * cols) as f64;
    // About 0.2 GFLOP a step, so that submitting costs nothing.
    let repeats = (2e8 / flops).ceil().max(1.0) as usize;
    let session = check::session(&mut gpu, 1, 4, 1 << 14, 8).expect("a session");
    let (mut best, mut least) = (f64::INFINITY, f64::INFINITY);
    for round in 0..4 {
        gpu.begin(session, Input::Tokens(&vec![0; tokens])).expect("a step");
        let input = gpu.upload(cols, &x);
        for _ in 0..repeats {
            gpu.matmul(weight, input, None, None);
        }
        let (start, processor) = (Instant::now(), processor_seconds());
        gpu.end().expect("the step");
        gpu.flush().await.expect("the step");
        // The first round compiles.
        if round > 0 {
            best = best.min(start.elapsed().as_secs_f64());
            least = least.min(processor_seconds() - processor);
        }
    }
    let work = flops * repeats as f64 / 1e9;
    (work / best, work / least)
}

/// Seconds that all threads of this process have run, in steps of 0.01; 0 where `/proc` does not tell.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // User and system time are the 14th and 15th field, after the name in parentheses.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
