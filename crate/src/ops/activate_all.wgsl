// y = activation(x).
fn apply(v: f32) -> f32 {
    return activate(p.setting, v);
}
