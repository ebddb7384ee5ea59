// f32.
@group(0) @binding(5) var<storage, read> values: array<vec4f>;

// Elements 4 i .. 4 i + 3 of the values plane, rows padded as `quant` says.
fn unpack4(i: u32) -> vec4f {
    return values[i];
}
