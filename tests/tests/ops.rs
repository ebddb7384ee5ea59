//! Every op's random cases, on every backend, against the plain references.

use openweights::{
    backend::{Backend, reference::Reference},
    ops::check,
};

fn run(backend: &mut dyn Backend) {
    let outcomes = pollster::block_on(check::all(backend)).expect("the cases run");
    let wrong: Vec<String> = outcomes
        .iter()
        .filter(|o| o.nmse() > check::NMSE)
        .map(|o| {
            let show = |v: &[f32]| format!("{:?}", &v[..v.len().min(6)]);
            format!("{}: nmse {:.2e}, expected {} got {}", o.name, o.nmse(), show(&o.expected), show(&o.actual))
        })
        .collect();
    assert!(outcomes.len() > 100, "only {} cases", outcomes.len());
    assert!(wrong.is_empty(), "{} of {} cases are wrong:\n{}", wrong.len(), outcomes.len(), wrong.join("\n"));
}

#[test]
fn reference_backend() {
    run(&mut Reference::default());
}
