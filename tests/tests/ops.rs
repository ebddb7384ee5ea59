//! Every op's random cases, on every backend, against the plain references.

use openweights::{
    backend::{
        Backend,
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
