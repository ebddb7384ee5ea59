// Floats need no scale: raw8 and scaling are what quantised formats give to kernels that scale whole groups.
const GROUP = 8u;

fn raw8(i: u32) -> Eight {
    return Eight(unpack4(i), unpack4(i + 1u));
}

fn scaling(g: u32) -> vec2f {
    return vec2f(1.0, 0.0);
}
