// y = c * conv(b * x) for rows b | c | x. A thread computes an element, keeps its b * x in the state, or both.
struct Params {
    cols: u32,
    taps: u32,
    slots: u32,  // rows of the state
    offset: u32,
    stride: u32,
    first: u32,  // row
    bias: u32,
    computes: u32,
    keeps: u32,
}
struct Step {
    position: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> step: Step;
@group(0) @binding(2) var<storage, read> bcx: array<f32>;
@group(0) @binding(3) var<storage, read> taps: array<f32>;               // [column][tap]
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> state: array<f32>;        // [position % slots][column]
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

fn gated(row: u32, column: u32) -> f32 {
    let at = p.offset + row * p.stride + column;
    return bcx[at] * bcx[at + 2u * p.cols];
}

fn slot(position: u32, column: u32) -> u32 {
    return position % p.slots * p.cols + column;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let column = id.x;
    let row = p.first + id.y;
    if column >= p.cols {
        return;
    }
    if p.computes != 0u {
        var sum = 0.0;
        for (var k = 0u; k < p.taps; k++) {
            let back = p.taps - 1u - k;
            var value = 0.0;
            if back <= row {
                value = gated(row - back, column);
            } else if back <= step.position + row {
                value = state[slot(step.position + row - back, column)];
            }
            sum += taps[column * p.taps + k] * value;
        }
        if p.bias != 0u {
            sum += bias[column];
        }
        y[row * p.cols + column] = bcx[p.offset + row * p.stride + p.cols + column] * sum;
    }
    if p.keeps != 0u {
        state[slot(step.position + row, column)] = gated(row, column);
    }
}
