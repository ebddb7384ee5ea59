//! Every parser of others' bytes, fuzzed: kept inputs, then bent ones for `OPENWEIGHTS_FUZZ_SECONDS` (20) each. A run is a test
//! of its own, so that `cargo test --test fuzz gguf` runs one; they take turns, since they share the allocator.

use std::{
    io::Write,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use openweights_tests::fuzz::{TARGETS, driver};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

static TURN: Mutex<()> = Mutex::new(());

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, no whole number")))
}

fn fuzz(name: &str) {
    let target = TARGETS.iter().find(|t| t.name == name).expect("a target of this name");
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (seed, seconds) = (number("OPENWEIGHTS_FUZZ_SEED", 1), number("OPENWEIGHTS_FUZZ_SECONDS", 20));
    let report = driver::run(target, &HEAP, seed, Duration::from_secs(seconds));
    let (peak, of) = report.peak;
    let line = format!(
        "fuzz {name}: {} inputs in {seconds} s from seed {seed}, {} outcomes, {} kept, most memory {} KiB (input {} KiB), slowest {} ms, {} failures\n",
        report.executions,
        report.outcomes,
        report.kept,
        peak >> 10,
        of >> 10,
        report.slowest.as_millis(),
        report.failures.len()
    );
    // Not captured as what is printed by macros is: the totals belong in every log.
    std::io::stderr().write_all(line.as_bytes()).expect("standard error");
    assert!(report.failures.is_empty(), "{name}, from seed {seed}:\n{}", report.failures.join("\n"));
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { fuzz(stringify!($name)) })*

        #[test]
        fn every_target_is_run() {
            assert_eq!(TARGETS.iter().map(|t| t.name).collect::<Vec<_>>(), [$(stringify!($name)),*]);
        }
    };
}

targets! { safetensors safetensors_fields manifest config peft owpkg signature gguf gguf_lora gguf_tokenizer tokenizer_json template }
