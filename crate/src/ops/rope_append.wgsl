// q | k | v: q rotated goes to a tensor, k rotated and v go to the cache at the step's positions.
@group(0) @binding(4) var<storage, read_write> q: array<f32>;
@group(0) @binding(5) var<storage, read_write> keys: array<f32>;
@group(0) @binding(6) var<storage, read_write> values: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let row = id.y;
    let column = id.x;
    if column >= p.width {
        return;
    }
    let cached = (step.position + row) * p.kv_width;
    if column < p.q_width {
        q[row * p.q_width + column] = rotated(row, column);
    } else if column < p.q_width + p.kv_width {
        keys[cached + column - p.q_width] = rotated(row, column);
    } else {
        values[cached + column - p.q_width - p.kv_width] = x[p.offset + row * p.stride + column];
    }
}
