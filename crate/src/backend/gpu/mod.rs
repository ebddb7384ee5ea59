//! WebGPU through wgpu, natively and in browsers: the only place that names wgpu.
//!
//! * [`device`] opens a device and hears of its errors;
//! * [`memory`] makes buffers, [`weights`] and [`session`] fill them;
//! * [`recorder`] holds the step while it is recorded, [`compose`] makes pipelines and bind groups of it;
//! * [`readback`] brings results back;
//! * [`contract`] implements the contract with these, [`experts`] its products with experts.

use std::collections::VecDeque;

use futures_util::future::{self, FutureExt, LocalBoxFuture};

use super::{
    Activation, Attention, Backend, BackendInfo, Cache, Conv, Input, Rope, Routes, Routing, Sampling, Segment, Session, SessionSpec,
    Tensor, Weight,
};
use crate::{
    error::{Error, Result},
    ops::{
        self,
        kernel::{Call, View},
        matmul::{Product, Variant},
    },
    quant::Plane,
};
use compose::{Compose, Ready};
use device::Device;
pub use device::GpuOptions;
use memory::{Buffer, Memory, Pool};
use readback::Staging;
use recorder::{Slot, Step};
use rope::Table;
use session::{Move, State};
use weights::{Matrix, Part};

mod compose;
mod contract;
mod device;
mod experts;
mod memory;
mod readback;
mod recorder;
mod rope;
mod session;
mod snapshot;
mod weights;

/// The GPU backend.
pub struct Gpu {
    device: Device,
    options: GpuOptions,
    memory: Memory,
    pool: Pool,
    compose: Compose,
    staging: Staging,
    /// Bound where a kernel has an input that a call leaves out.
    nothing: Buffer,
    weights: Vec<Matrix>,
    /// Handles of weights that were dropped.
    vacant: Vec<Weight>,
    ropes: Vec<Table>,
    sessions: Vec<Option<State>>,
    current: Current,
    step: Step,
    sampled: VecDeque<LocalBoxFuture<'static, Result<Option<u32>>>>,
    dispatches: usize,
    staged: usize,
}

/// The step under way, besides its calls.
#[derive(Default)]
struct Current {
    session: Option<Session>,
    rows: usize,
    input: TokenSource,
    moves: Vec<Move>,
    sample: Sample,
    error: Option<Error>,
}

/// Where the ids of a step are.
#[derive(Default, Clone, Copy, PartialEq)]
enum TokenSource {
    #[default]
    Given,
    Sampled,
}

/// Whether the step samples.
#[derive(Default, Clone, Copy, PartialEq)]
enum Sample {
    #[default]
    No,
    OnDevice,
    /// The setting needs the processor.
    Elsewhere,
}

impl Gpu {
    /// Opens the adapter that the system or browser prefers.
    pub async fn new(options: GpuOptions) -> Result<Gpu> {
        let device = Device::open(&options).await?;
        let memory = Memory::new(&device.raw);
        let compose = Compose::new(&device.raw, &device.queue);
        let nothing = memory.storage("nothing", 16);
        Ok(Gpu {
            device,
            options,
            memory,
            pool: Pool::default(),
            compose,
            staging: Staging::default(),
            nothing,
            weights: Vec::new(),
            vacant: Vec::new(),
            ropes: Vec::new(),
            sessions: Vec::new(),
            current: Current::default(),
            step: Step::default(),
            sampled: VecDeque::new(),
            dispatches: 0,
            staged: 0,
        })
    }

    fn live(&self, session: Session) -> &State {
        self.sessions[session.0 as usize].as_ref().expect("a session in use")
    }

    fn live_mut(&mut self, session: Session) -> &mut State {
        self.sessions[session.0 as usize].as_mut().expect("a session in use")
    }

    fn state(&self) -> &State {
        self.live(self.current.session.expect("an operation outside a step"))
    }

    /// Remembers what `end` will report.
    fn fail(&mut self, error: Error) {
        self.current.error.get_or_insert(error);
    }

    /// Checks that kernels which read four floats at once can read `x`.
    fn need_quads(&mut self, what: &str, x: View) {
        if !x.in_quads() {
            let View { cols, offset, stride, .. } = x;
            self.fail(Error::UnsupportedFormat(format!(
                "{what} of {cols} columns at {offset} with stride {stride}: the GPU backend needs multiples of 4"
            )));
        }
    }

    fn record<const N: usize>(&mut self, call: Call, slots: [Slot; N]) {
        self.step.call(call, slots.into());
    }

    fn vector(&self, weight: Weight) -> Buffer {
        self.weights[weight.0 as usize].parts[0].values.clone()
    }

    fn or_nothing(&self, weight: Option<Weight>) -> Slot {
        Slot::Buffer(weight.map_or_else(|| self.nothing.clone(), |w| self.vector(w)))
    }

    fn variant(&self, tokens: usize) -> Variant {
        self.options.matmul.unwrap_or_else(|| Variant::choose(self.device.info.software, tokens))
    }

    /// One dispatch per part of the table; `index` holds ids or the first position.
    fn embed_by(&mut self, table: Weight, index: Buffer, by: ops::embed::By) -> Tensor {
        let rows = self.current.rows;
        let matrix = &self.weights[table.0 as usize];
        let y = self.step.tensor(rows, matrix.cols, None);
        for part in &matrix.parts {
            let call = ops::embed::call(part.format, matrix.cols, rows, part.first, part.rows, by);
            let mut slots = vec![Slot::Buffer(index.clone()), Slot::Tensor(y)];
            slots.extend(planes(part));
            self.step.call(call, slots);
        }
        y
    }

    /// One product per part of the weight, into the columns of the same tensor.
    fn product(
        &mut self,
        weight: Weight,
        x: Tensor,
        bias: Option<Weight>,
        residual: Option<Tensor>,
        out: usize,
        gated: Option<Activation>,
    ) -> Tensor {
        let view = self.step.view(x);
        self.need_quads("a product with input", view);
        let variant = self.variant(view.rows);
        let y = self.step.tensor(view.rows, out, None);
        for index in 0..self.weights[weight.0 as usize].parts.len() {
            let part = &self.weights[weight.0 as usize].parts[index];
            let product = Product {
                format: part.format,
                rows: part.rows,
                first: part.first,
                out,
                x: view,
                bias: bias.is_some(),
                residual: residual.map(|r| self.step.view(r)),
            };
            let add = residual.map_or_else(|| Slot::Buffer(self.nothing.clone()), Slot::Tensor);
            let mut slots = vec![Slot::Tensor(x), Slot::Tensor(y), self.or_nothing(bias), add];
            slots.extend(planes(part));
            let call = match gated {
                Some(activation) => product.gated_call(variant, activation),
                None => product.call(variant),
            };
            self.step.call(call, slots);
        }
        y
    }

    /// Encodes calls and a copy of what was sampled, and submits them at once.
    fn submit(&mut self, ready: &[Ready], moves: &[Move], chosen: Option<(&Buffer, &Buffer)>) -> wgpu::SubmissionIndex {
        let mut encoder = self.device.raw.create_command_encoder(&Default::default());
        for m in moves.iter().filter(|m| m.bytes > 0) {
            encoder.copy_buffer_to_buffer(&m.from.raw, 0, &m.to.raw, 0, m.bytes);
        }
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for call in ready {
            let [x, y, z] = call.workgroups;
            pass.set_pipeline(&call.pipeline);
            pass.set_bind_group(0, &call.group, &[]);
            pass.dispatch_workgroups(x, y, z);
        }
        drop(pass);
        if let Some((from, to)) = chosen {
            encoder.copy_buffer_to_buffer(&from.raw, 0, &to.raw, 0, 8);
        }
        self.device.queue.submit([encoder.finish()])
    }
}

fn planes(part: &Part) -> impl Iterator<Item = Slot> {
    part.planes().cloned().map(Slot::Buffer)
}
