// Activations by number, as ops/activate.rs counts them.
fn activate(kind: u32, x: f32) -> f32 {
    if kind == 0u {
        return x / (1.0 + exp(-x));
    }
    if kind == 1u {
        // tanh overflows in some drivers where its argument is large.
        let t = clamp(0.7978846 * (x + 0.044715 * x * x * x), -20.0, 20.0);
        return 0.5 * x * (1.0 + tanh(t));
    }
    if kind == 2u {
        return 0.5 * x * (1.0 + erf(x * 0.70710677));
    }
    let clamped = min(x, 7.0);
    return clamped / (1.0 + exp(-1.702 * clamped));
}

// activation(gate) * up; the last activation changes up as well.
fn gated(kind: u32, gate: f32, up: f32) -> f32 {
    return activate(kind, gate) * select(up, clamp(up, -7.0, 7.0) + 1.0, kind == 3u);
}

// Abramowitz and Stegun 7.1.26: absolute error below 1.5e-7.
fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.3275911 * abs(x));
    let series = t * (0.2548296 + t * (-0.28449672 + t * (1.4214138 + t * (-1.4531521 + t * 1.0614054))));
    return sign(x) * (1.0 - series * exp(-x * x));
}
