// What a format gives to kernels: unpack4(i), elements 4 i .. 4 i + 3 of the values plane; and for kernels that scale whole groups
// of GROUP vec4s, raw8(i), the same without scale for 8 elements from vec4 i on (i even), with w = scale * raw + offset,
// (scale, offset) = scaling(g) of their group g.

// Elements of two consecutive vec4s.
struct Eight {
    low: vec4f,
    high: vec4f,
}
