//! Every op's random cases, on every backend, against the plain references.

use openweights::{
    backend::{
        Backend, Input, Precision, Sampling,
        cpu::{Cpu, CpuOptions, simd::Level},
        gpu::{Gpu, GpuOptions},
        reference::Reference,
    },
    ops::{check, matmul::Variant},
};

fn run(backend: &mut dyn Backend) {
    let outcomes = pollster::block_on(check::all(backend)).expect("the cases run");
    let wrong: Vec<String> = outcomes
        .iter()
        .filter(|o| o.nmse() > check::NMSE)
        .map(|o| {
            let show = |v: &[f32]| format!("{:?}", &v[..v.len().min(6)]);
            format!("{}: nmse {:.2e}, expected {} got {}", o.name, o.nmse(), show(&o.expected), show(&o.actual))
        })
        .collect();
    assert!(outcomes.len() > 100, "only {} cases", outcomes.len());
    assert!(wrong.is_empty(), "{} of {} cases are wrong:\n{}", wrong.len(), outcomes.len(), wrong.join("\n"));
}

#[test]
fn reference_backend() {
    run(&mut Reference::default());
}

/// Every instruction set that the machine has, on one thread and on several.
#[test]
fn cpu_backend() {
    for level in Level::available() {
        for threads in [1, 3] {
            println!("{} on {threads}", level.name());
            for precision in [Precision::Fast, Precision::Balanced, Precision::Exact] {
                run(&mut Cpu::new(CpuOptions { threads: Some(threads), level: Some(level), precision }));
            }
        }
    }
}

fn gpu(options: GpuOptions) -> Gpu {
    pollster::block_on(Gpu::new(options))
        .unwrap_or_else(|e| panic!("{e}; these tests need a Vulkan adapter: install mesa-vulkan-drivers for an emulated one"))
}

#[test]
fn gpu_backend() {
    run(&mut gpu(GpuOptions::default()));
}

#[test]
fn gpu_backend_at_the_floor() {
    run(&mut gpu(GpuOptions { floor: true, ..GpuOptions::default() }));
}

/// The kernels for emulated and for real GPUs, on whatever adapter there is.
#[test]
fn gpu_backend_with_either_kind_of_kernel() {
    for software in [false, true] {
        run(&mut gpu(GpuOptions { software: Some(software), ..GpuOptions::default() }));
    }
}

#[test]
fn gpu_backend_with_each_variant_of_matmul() {
    for variant in Variant::ALL {
        run(&mut gpu(GpuOptions { matmul: Some(variant), ..GpuOptions::default() }));
    }
}

/// The op's cases fall back to the processor where the device finds no token; here it must find one, or must not.
#[test]
fn gpu_samples_on_the_device() {
    let mut gpu = gpu(GpuOptions::default());
    let logits: Vec<f32> = check::Random(9).floats(5000).iter().map(|v| v * 12.0).collect();
    for (sampling, found) in [
        (Sampling::default(), true),
        (Sampling { temperature: 1.0, ..Sampling::default() }, true),
        (Sampling { temperature: 1.0, top_k: 128, ..Sampling::default() }, true),
        (Sampling { temperature: 0.1, top_p: 0.9, ..Sampling::default() }, true),
        (Sampling { temperature: 0.1, min_p: 0.1, ..Sampling::default() }, true),
        (Sampling { temperature: 1.0, top_k: 129, ..Sampling::default() }, false),
        (Sampling { temperature: 50.0, top_p: 0.9, ..Sampling::default() }, false),
    ] {
        let session = check::session(&mut gpu, 1, 4, 16, logits.len()).unwrap();
        gpu.begin(session, Input::Tokens(&[0])).unwrap();
        let tensor = gpu.upload(logits.len(), &logits);
        gpu.sample(tensor, &sampling);
        gpu.end().unwrap();
        assert_eq!(pollster::block_on(gpu.sampled()).unwrap().is_some(), found, "{sampling:?}");
        gpu.drop_session(session);
    }
}

#[test]
fn gpu_finds_no_token_where_no_logit_is_a_number() {
    let mut backend = openweights_tests::gpu();
    let session = check::session(backend.as_mut(), 1, 4, 4, 1000).expect("a session");
    backend.reset_counts(session, &[]);
    backend.begin(session, Input::Tokens(&[0])).expect("a step");
    let logits = backend.upload(1000, &[f32::NAN; 1000]);
    backend.sample(logits, &Sampling::default());
    backend.end().expect("submitted");
    assert_eq!(pollster::block_on(backend.sampled()).expect("sampled"), None);
}
