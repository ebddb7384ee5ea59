// Matrix product, the part that all variants share. A variant computes `sums` of a block of four weight rows for a token:
// with x a vec4 and the four rows' vec4s as columns of a matrix, x * matrix is the four dot products.
// Another part (matmul_dense, experts) says which row of x a token has, and how much of it is to be read; an output part which rows
// a block holds and what becomes of the sums.
struct Params {
    tokens: u32,
    quads: u32,           // vec4s of x in a row
    row_quads: u32,       // vec4s of a padded weight row
    x_offset: u32,        // vec4s
    x_stride: u32,
    blocks: u32,
    rows: u32,            // rows of this segment; for gated outputs of gate alone
    out_start: u32,       // column of the segment's first output
    out_stride: u32,
    has_bias: u32,
    has_residual: u32,
    residual_offset: u32, // floats
    residual_stride: u32,
    activation: u32,      // of gated outputs
    expert_rows: u32,     // of experts: rows of one
    share: u32,           // of experts: routes that read the same row of x
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;

// First vec4s of a block's rows in the values plane.
fn block_starts(block: u32, token: u32) -> vec4u {
    let low = vec2u(block_row(block, 0u, token), block_row(block, 1u, token));
    let high = vec2u(block_row(block, 2u, token), block_row(block, 3u, token));
    return vec4u(low, high) * p.row_quads;
}

fn weights(starts: vec4u, i: u32) -> mat4x4f {
    return mat4x4f(unpack4(starts.x + i), unpack4(starts.y + i), unpack4(starts.z + i), unpack4(starts.w + i));
}

