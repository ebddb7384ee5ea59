// Quantised planes. A format gives raw4(i) and raw8(i), elements without scale from vec4 i on (i even for raw8), and
// scaling(g), scale and offset of a group of GROUP vec4s: w = scale * raw + offset.
@group(0) @binding(5) var<storage, read> values: array<u32>;
@group(0) @binding(6) var<storage, read> scales: array<u32>;

// Elements 4 i .. 4 i + 3 of the values plane, rows padded as `quant` says.
fn unpack4(i: u32) -> vec4f {
    let s = scaling(i / GROUP);
    return s.x * raw4(i) + s.y;
}
