// y = x * factor.
fn apply(v: f32) -> f32 {
    return v * bitcast<f32>(p.setting);
}
