//! Kernels become pipelines, and calls with their buffers become bind groups; both are made once.

use std::collections::HashMap;

use super::memory::Buffer;
use crate::ops::kernel::{self, Access, Call, Id};

/// Bind groups kept; sessions and prompt lengths that no longer occur would otherwise add up.
const MOST_GROUPS: usize = 20_000;

/// Pipelines and bind groups.
pub struct Compose {
    device: wgpu::Device,
    queue: wgpu::Queue,
    pipelines: HashMap<Id, Pipeline>,
    groups: HashMap<Key, wgpu::BindGroup>,
}

struct Pipeline {
    raw: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
    bindings: &'static [(u32, Access)],
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    kernel: Id,
    params: Vec<u32>,
    buffers: Vec<u64>,
}

/// A call ready to be encoded.
pub struct Ready {
    pub pipeline: wgpu::ComputePipeline,
    pub group: wgpu::BindGroup,
    pub workgroups: [u32; 3],
}

impl Compose {
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Compose {
        Compose { device: device.clone(), queue: queue.clone(), pipelines: HashMap::new(), groups: HashMap::new() }
    }

    /// `buffers` are in the order of the kernel's bindings.
    pub fn ready(&mut self, call: Call, buffers: &[&Buffer]) -> Ready {
        let Compose { device, queue, pipelines, groups } = self;
        let pipeline = pipelines.entry(call.kernel).or_insert_with(|| compile(device, call.kernel));
        if groups.len() > MOST_GROUPS {
            groups.clear();
        }
        let key = Key { kernel: call.kernel, params: call.params, buffers: buffers.iter().map(|b| b.id).collect() };
        let group = match groups.get(&key) {
            Some(group) => group.clone(),
            None => {
                let group = bind(device, queue, pipeline, &key.params, buffers);
                groups.insert(key, group.clone());
                group
            }
        };
        Ready { pipeline: pipeline.raw.clone(), group, workgroups: call.groups }
    }

    /// Drops bind groups that hold any of these buffers, which would stay allocated otherwise.
    pub fn forget(&mut self, buffers: &[u64]) {
        self.groups.retain(|key, _| !key.buffers.iter().any(|id| buffers.contains(id)));
    }
}

fn compile(device: &wgpu::Device, id: Id) -> Pipeline {
    let kernel = kernel::find(id);
    let label = Some(kernel.id.0);
    let entry = |binding, ty| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    let mut entries = vec![entry(0, wgpu::BufferBindingType::Uniform)];
    for &(binding, access) in &kernel.bindings {
        entries.push(entry(binding, wgpu::BufferBindingType::Storage { read_only: access == Access::Read }));
    }
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
    let pipeline_layout =
        device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor { label, bind_group_layouts: &[Some(&layout)], immediate_size: 0 });
    let module =
        device.create_shader_module(wgpu::ShaderModuleDescriptor { label, source: wgpu::ShaderSource::Wgsl(kernel.source().into()) });
    let raw = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label,
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: Default::default(),
        cache: None,
    });
    Pipeline { raw, layout, bindings: &kernel.bindings }
}

fn bind(device: &wgpu::Device, queue: &wgpu::Queue, pipeline: &Pipeline, params: &[u32], buffers: &[&Buffer]) -> wgpu::BindGroup {
    assert_eq!(buffers.len(), pipeline.bindings.len(), "one buffer for each binding");
    let bytes: &[u8] = bytemuck::cast_slice(params);
    let uniform = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("params"),
        size: bytes.len().next_multiple_of(16) as u64,
        usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    queue.write_buffer(&uniform, 0, bytes);
    let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: uniform.as_entire_binding() }];
    for (&(binding, _), buffer) in pipeline.bindings.iter().zip(buffers) {
        entries.push(wgpu::BindGroupEntry { binding, resource: buffer.raw.as_entire_binding() });
    }
    device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &pipeline.layout, entries: &entries })
}
