//! Downloads on which everything goes wrong, a thousand times over: files, faults, versions, crashes, aborts and full storage are
//! drawn from a seed. Every run ends in verified weights or in an error with a code that fits what went wrong; nothing
//! corrupt is ever stored; and nothing that is stored is fetched again, unless the protocol leaves no choice: where the server has
//! no ranges or sends wrong ones, the version changed, or bytes were wrong.

use std::collections::BTreeMap;

use openweights::weights::{abort::Abort, manifest::MANIFEST};
use openweights_tests::{
    downloads::{World, bytes},
    faults::{Fault, Version},
    rng::Rng,
};

const SCENARIOS: u64 = 1500;

/// A fault, its name, and the codes that it may lead to.
fn fault(rng: &mut Rng) -> (Fault, &'static str, &'static [&'static str]) {
    let at = rng.below(20_000);
    let after = ["2", "Thu, 01 Jan 2026 00:00:20 GMT", "999999", "whenever"][rng.below(4)];
    match rng.below(16) {
        0 => (Fault::Status([500, 502, 503, 429, 408][rng.below(5)]), "5xx, 429, 408", &["network"]),
        1 => (Fault::Status([400, 403][rng.below(2)]), "400, 403", &["network"]),
        2 => (Fault::Status([404, 410][rng.below(2)]), "404, 410", &["not_found"]),
        3 => (Fault::Busy([429, 503][rng.below(2)], after), "Retry-After", &["network"]),
        4 => (Fault::Expired, "expired redirect", &["network"]),
        5 => (Fault::Refused, "refused", &["network"]),
        6 | 7 => (Fault::Broken(at), "broken", &["network"]),
        8 => (Fault::Stalled(at), "stalled", &["network"]),
        9 => (Fault::Trickle(1 + at as u32), "trickle", &[]),
        10 => (Fault::CutShort(at), "cut short", &["integrity"]),
        11 => (Fault::Longer(1 + at), "longer", &["integrity"]),
        12 => (Fault::Flipped(at), "flipped bit", &["integrity"]),
        13 => (Fault::Changed, "changed version", &["network"]),
        14 => ([Fault::WrongRange, Fault::NoRanges][rng.below(2)], "wrong or no range", &["network"]),
        _ => (Fault::Gzip, "gzip", &["integrity", "network"]),
    }
}

#[derive(Default)]
struct Tally {
    outcomes: BTreeMap<&'static str, usize>,
    faults: BTreeMap<&'static str, usize>,
    crashes: usize,
    fetched_again: (u64, u64),
}

fn scenario(seed: u64, tally: &mut Tally) {
    let mut rng = Rng::new(seed);
    let names: Vec<String> = (0..1 + rng.below(7)).map(|i| format!("file-{i}")).collect();
    let contents: Vec<_> = names.iter().map(|name| (name.as_str(), bytes(rng.below(5) as u8, rng.below(30_000)))).collect();
    let mut world = World::new(&contents);
    world.server.chunk = 1 + rng.below(5000);
    world.server.ranges = rng.below(6) > 0;
    world.server.exposed = rng.below(3) > 0;
    world.server.if_range = rng.below(6) > 0;
    world.server.version = [Version::Strong, Version::Strong, Version::Weak, Version::Date, Version::Unsaid][rng.below(5)];
    let mut allowed = Vec::new();
    for _ in 0..rng.below(4) {
        let path = if rng.below(10) == 0 { MANIFEST } else { names[rng.below(names.len())].as_str() };
        let mut script = Vec::new();
        for _ in 0..1 + rng.below(4) {
            let (fault, name, codes) = fault(&mut rng);
            *tally.faults.entry(name).or_default() += 1;
            // In runs, too.
            script.extend(vec![fault; 1 + rng.below(3)]);
            allowed.extend(codes);
        }
        if path == MANIFEST {
            // It has no digest: damage shows as JSON that makes no sense, or as files that are not as it says.
            allowed.extend(["invalid_file", "integrity", "not_found", "unsupported_format"]);
        }
        world.fault(path, &script);
    }
    // Without ranges, a preflight that fails, and hidden headers, there are attempts that bring nothing.
    allowed.push("network");
    if rng.below(8) == 0 {
        world.storage.set_quota(Some(rng.below(150_000) as u64));
        allowed.push("quota");
    }
    if rng.below(8) == 0 {
        world.abort_after = Some(rng.below(40));
        allowed.push("aborted");
    }
    // The page dies and is opened again, up to four times.
    for _ in 0..rng.below(5) {
        world.crash_after = Some(1 + rng.below(120));
        let ended = world.load();
        world.check();
        if !world.crashed.get() {
            note(seed, ended.err().map(|error| error.code()), &allowed, tally);
            break;
        }
        tally.crashes += 1;
    }
    world.crash_after = None;
    let ended = world.load();
    world.check();
    note(seed, ended.err().map(|error| error.code()), &allowed, tally);

    // All is well again: the model comes, and from then on without the network.
    (world.abort, world.abort_after) = (Abort::default(), None);
    world.server.faults.take();
    world.storage.set_quota(None);
    let record = world.load().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    world.server.down.set(true);
    assert_eq!(world.load().unwrap(), record);
    world.check();
    world.check_files(&record);
    let (forced, unforced) = world.server.again.get();
    assert_eq!(unforced, 0, "seed {seed}: bytes that were stored were fetched again");
    tally.fetched_again.0 += forced;
    tally.fetched_again.1 += unforced;
}

fn note(seed: u64, code: Option<&'static str>, allowed: &[&str], tally: &mut Tally) {
    assert!(code.is_none_or(|code| allowed.contains(&code)), "seed {seed}: {code:?}; allowed: {allowed:?}");
    *tally.outcomes.entry(code.unwrap_or("verified weights")).or_default() += 1;
}

#[test]
fn every_run_ends_in_verified_weights_or_a_coded_error() {
    let mut tally = Tally::default();
    (0..SCENARIOS).for_each(|seed| scenario(seed, &mut tally));
    println!("{SCENARIOS} scenarios, {} crashes; runs that ended: {:?}", tally.crashes, tally.outcomes);
    println!("faults: {:?}", tally.faults);
    println!("bytes asked for although stored: {} forced by the protocol, {} else", tally.fetched_again.0, tally.fetched_again.1);
    assert!(tally.crashes > 500);
    assert_eq!(tally.faults.len(), 15);
    assert!(tally.faults.values().all(|n| *n > 100), "{:?}", tally.faults);
    for outcome in ["verified weights", "not_found", "network", "integrity", "quota", "aborted"] {
        assert!(tally.outcomes.get(outcome).is_some_and(|n| *n >= 10), "{outcome}: {:?}", tally.outcomes);
    }
}
