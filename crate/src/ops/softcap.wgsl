// y = cap * tanh(x / cap); tanh overflows in some drivers where its argument is large.
fn apply(v: f32) -> f32 {
    let cap = bitcast<f32>(p.setting);
    return cap * tanh(clamp(v / cap, -20.0, 20.0));
}
