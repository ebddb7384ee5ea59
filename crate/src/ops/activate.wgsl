// Activations by number, as ops/gate.rs counts them.
fn activate(kind: u32, x: f32) -> f32 {
    if kind == 0u {
        return x / (1.0 + exp(-x));
    }
    // tanh overflows in some drivers where its argument is large.
    let t = clamp(0.7978846 * (x + 0.044715 * x * x * x), -20.0, 20.0);
    return 0.5 * x * (1.0 + tanh(t));
}
