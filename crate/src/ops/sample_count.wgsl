// Counts a token that was chosen elsewhere.
@group(0) @binding(0) var<uniform> unused: vec4u;
@group(0) @binding(1) var<storage, read_write> counts: array<u32>;
@group(0) @binding(2) var<storage, read_write> chosen: vec2u;

@compute @workgroup_size(1)
fn main() {
    counts[chosen.x] += 1u;
}
