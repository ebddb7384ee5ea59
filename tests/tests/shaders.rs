//! Every kernel is valid WGSL and declares the bindings that it is given: checked without a GPU.

use naga::{
    AddressSpace, StorageAccess,
    valid::{Capabilities, ValidationFlags, Validator},
};
use openweights::ops::kernel::{self, Access, Kernel};

/// `unpack2x16float` is part of WGSL, but naga makes it a capability.
const UNPACKS_F16: Capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;

/// WebGPU's default limits.
const WORKGROUP_BYTES: u32 = 16 << 10;
const INVOCATIONS: u32 = 256;
const STORAGE_BUFFERS: usize = 8;

fn check(kernel: &Kernel) -> Result<(), String> {
    let source = kernel.source();
    let module = naga::front::wgsl::parse_str(&source).map_err(|e| e.emit_to_string(&source))?;
    Validator::new(ValidationFlags::all(), UNPACKS_F16).validate(&module).map_err(|e| e.emit_to_string(&source))?;
    let mut declared = Vec::new();
    let mut shared = 0;
    for (_, variable) in module.global_variables.iter() {
        match (variable.space, &variable.binding) {
            (AddressSpace::Storage { access }, Some(at)) => {
                let write = access.contains(StorageAccess::STORE);
                declared.push((at.binding, if write { Access::Write } else { Access::Read }));
            }
            (AddressSpace::Uniform, Some(at)) if at.binding == 0 => {}
            (AddressSpace::WorkGroup, None) => shared += module.types[variable.ty].inner.size(module.to_ctx()),
            other => return Err(format!("unexpected variable in {other:?}")),
        }
    }
    declared.sort_by_key(|d| d.0);
    if declared != kernel.bindings {
        return Err(format!("declares {declared:?}, is given {:?}", kernel.bindings));
    }
    let [entry] = &module.entry_points[..] else { return Err("not one entry point".into()) };
    let invocations: u32 = entry.workgroup_size.iter().product();
    if entry.name != "main" || invocations > INVOCATIONS || shared > WORKGROUP_BYTES || declared.len() > STORAGE_BUFFERS {
        return Err(format!("{}: {invocations} invocations, {shared} bytes of workgroup memory, {} buffers", entry.name, declared.len()));
    }
    Ok(())
}

#[test]
fn every_kernel_is_valid_within_the_default_limits() {
    let kernels = kernel::all();
    let faults: Vec<String> = kernels.iter().filter_map(|k| check(k).err().map(|e| format!("{:?}: {e}", k.id))).collect();
    assert!(kernels.len() > 60, "only {} kernels", kernels.len());
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

#[test]
fn names_are_unique() {
    let mut ids: Vec<_> = kernel::all().iter().map(|k| format!("{:?}", k.id)).collect();
    ids.sort();
    let count = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), count);
}
