// Activations by number, as ops/activate.rs counts them.
fn activate(kind: u32, x: f32) -> f32 {
    if kind == 0u {
        return x / (1.0 + exp(-x));
    }
    if kind == 1u {
        return 0.5 * x * (1.0 + tanh_safe(0.7978846 * (x + 0.044715 * x * x * x)));
    }
    if kind == 2u {
        return 0.5 * x * (1.0 + erf(x * 0.70710677));
    }
    if kind == 4u {
        return tanh_safe(x);
    }
    let clamped = min(x, 7.0);
    return clamped / (1.0 + exp(-1.702 * clamped));
}

// activation(gate) * up; gpt-oss's activation changes up as well.
fn gated(kind: u32, gate: f32, up: f32) -> f32 {
    return activate(kind, gate) * select(up, clamp(up, -7.0, 7.0) + 1.0, kind == 3u);
}

// tanh overflows in some drivers where its argument is large.
fn tanh_safe(x: f32) -> f32 {
    return tanh(clamp(x, -20.0, 20.0));
}

// Abramowitz and Stegun 7.1.26: absolute error below 1.5e-7.
fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.3275911 * abs(x));
    let series = t * (0.2548296 + t * (-0.28449672 + t * (1.4214138 + t * (-1.4531521 + t * 1.0614054))));
    return sign(x) * (1.0 - series * exp(-x * x));
}
