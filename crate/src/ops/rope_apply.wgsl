// A tensor rotated.
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x < p.width {
        y[id.y * p.width + id.x] = rotated(id.y, id.x);
    }
}
