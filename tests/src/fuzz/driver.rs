//! Runs a target: the kept inputs first, then bent ones for as long as asked. One input may take [`MOST_TIME`] and allocate four times the length of what it
//! stands for and [`MOST_MEMORY`]; nothing may panic. What breaks this joins the corpus, so that every later run begins with it, and is named; long ones go to
//! `.cache/fuzz-failures/`.

use std::{
    collections::HashSet,
    fs,
    io::{Seek, SeekFrom, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use openweights::{Result, weights::manifest::sha256_hex};
use peak_alloc::PeakAlloc;

use super::{
    Target,
    mutate::{LONGEST, mutated},
};
use crate::{fixture, rng::Rng};

/// Bytes that an input may have live at once, besides four for each of its own.
pub const MOST_MEMORY: usize = 16 << 20;
/// What one input may take, and as long again for each of its MiB beyond the first: tests run beside other work.
pub const MOST_TIME: Duration = Duration::from_secs(2);
/// After this an input is taken to hang: the process ends, its input is in the file `<target>-running`.
const HANGS: u64 = 30;
/// Inputs that are bent further, at most.
const MOST_KEPT: usize = 4096;
/// Longest input that joins the corpus for its outcome, and for its failure.
const MOST_STORED: usize = 2 << 10;
const MOST_FAILED: usize = 64 << 10;

/// What a run did.
#[derive(Debug)]
pub struct Report {
    /// Inputs that were run.
    pub executions: u64,
    /// Different outcomes: ways through the parser.
    pub outcomes: usize,
    /// Inputs that joined the corpus in memory, since their outcome was new.
    pub kept: usize,
    /// Most bytes that were live at once because of an input, and that input's length.
    pub peak: (usize, usize),
    /// The slowest input.
    pub slowest: Duration,
    /// What went wrong, each with the file of its input.
    pub failures: Vec<String>,
}

/// Runs `target` for `time`, counting bytes with `heap`, which is the process's allocator.
pub fn run(target: &Target, heap: &PeakAlloc, seed: u64, time: Duration) -> Report {
    let folder = fixture("../../.cache/fuzz-failures");
    fs::create_dir_all(&folder).expect("a folder for failures");
    let running = folder.join(format!("{}-running", target.name));
    let mut fuzzer = Fuzzer {
        target,
        heap,
        file: fs::File::create(&running).expect("a folder for failures"),
        running,
        folder,
        watch: Arc::default(),
        outcomes: HashSet::new(),
        report: Report { executions: 0, outcomes: 0, kept: 0, peak: (0, 0), slowest: Duration::ZERO, failures: Vec::new() },
    };
    fuzzer.watch_for_hangs();
    let mut kept = [(target.seeds)(), corpus(target)].concat();
    for input in [&[][..]].into_iter().chain(kept.iter().map(Vec::as_slice)) {
        fuzzer.run(input);
    }
    for input in (target.heavy)() {
        fuzzer.run(&input);
    }
    let (mut rng, start) = (Rng::new(seed), Instant::now());
    while start.elapsed() < time && fuzzer.report.failures.len() < 8 {
        let (one, other) = (rng.below(kept.len()), rng.below(kept.len()));
        let input = mutated(&mut rng, &kept[one], &kept[other], target.words);
        if fuzzer.run(&input) && kept.len() < MOST_KEPT && input.len() <= LONGEST {
            keep(target, &input);
            kept.push(input);
            fuzzer.report.kept += 1;
        }
    }
    drop(fs::remove_file(&fuzzer.running));
    fuzzer.report.outcomes = fuzzer.outcomes.len();
    fuzzer.report
}

/// The kept inputs: bytes as they are.
fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let Ok(folder) = fs::read_dir(fixture("fuzz").join(target.name)) else { return Vec::new() };
    let mut paths: Vec<_> = folder.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("an input")).collect()
}

/// Adds an input to the repository's corpus, where `OPENWEIGHTS_FUZZ_KEEP` is set.
fn keep(target: &Target, input: &[u8]) {
    if std::env::var_os("OPENWEIGHTS_FUZZ_KEEP").is_none() || input.len() > MOST_STORED {
        return;
    }
    store(fixture("fuzz").join(target.name), input);
}

/// Writes an input under the name of its digest.
fn store(folder: PathBuf, input: &[u8]) -> PathBuf {
    let path = folder.join(&sha256_hex(input)[..16]);
    fs::create_dir_all(&folder).and_then(|()| fs::write(&path, input)).expect("a folder that can be written");
    path
}

struct Fuzzer<'a> {
    target: &'a Target,
    heap: &'a PeakAlloc,
    folder: PathBuf,
    running: PathBuf,
    file: fs::File,
    /// Seconds since 1970 at which the input that is running began, or 0.
    watch: Arc<AtomicU64>,
    outcomes: HashSet<String>,
    report: Report,
}

impl Fuzzer<'_> {
    /// Runs an input; says whether its outcome is new.
    fn run(&mut self, input: &[u8]) -> bool {
        // What ends the process (a full stack, an allocation that fails) leaves its input here.
        self.note(input).expect("a file that can be written");
        self.report.executions += 1;
        let (outcome, mut took, peak) = self.measure(input);
        let most_time = MOST_TIME * (input.len() >> 20).max(1) as u32;
        // The machine may have been busy with something else.
        for _ in 0..2 {
            if took > most_time {
                took = took.min(self.measure(input).1);
            }
        }
        self.report.peak = self.report.peak.max((peak, input.len()));
        self.report.slowest = self.report.slowest.max(took);
        let most = || 4 * (self.target.stands_for)(input) + MOST_MEMORY;
        let said = match &outcome {
            Err(panic) => format!("panicked: {}", words_of(&**panic)),
            Ok(_) if took > most_time => format!("took {took:?}"),
            Ok(_) if peak > MOST_MEMORY && peak > most() => format!("had {peak} bytes allocated, {} are allowed", most()),
            Ok(outcome) => return self.outcomes.insert(skeleton(outcome)),
        };
        if self.outcomes.insert(said.chars().filter(|c| !c.is_ascii_digit()).collect()) {
            let name = self.target.name;
            let path = store(if input.len() > MOST_FAILED { self.folder.join(name) } else { fixture("fuzz").join(name) }, input);
            self.report.failures.push(format!("{} bytes {said}: {}", input.len(), path.display()));
        }
        false
    }

    /// The outcome (or what it panicked with), the time, and the most bytes that were live because of it.
    fn measure(&self, input: &[u8]) -> (thread::Result<Result<()>>, Duration, usize) {
        let before = self.heap.current_usage();
        self.heap.reset_peak_usage();
        self.watch.store(now(), Ordering::Relaxed);
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.target.run)(input)));
        let took = start.elapsed();
        self.watch.store(0, Ordering::Relaxed);
        (outcome, took, self.heap.peak_usage().saturating_sub(before))
    }

    /// Overwrites the file in place: a file made anew for each input would take most of the time.
    fn note(&self, input: &[u8]) -> std::io::Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(input)?;
        file.set_len(input.len() as u64)
    }

    /// Watches for inputs that hang, as long as the fuzzer lives.
    fn watch_for_hangs(&self) {
        let (watch, running) = (Arc::downgrade(&self.watch), self.running.clone());
        thread::spawn(move || {
            while let Some(started) = watch.upgrade().map(|watch| watch.load(Ordering::Relaxed)) {
                if started > 0 && now() > started + HANGS {
                    eprintln!("an input hangs: {}", running.display());
                    std::process::exit(1);
                }
                thread::sleep(Duration::from_secs(1));
            }
        });
    }
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_secs())
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
}

/// An error's code and message without what comes from the input: quoted names, numbers, and what is not ASCII.
fn skeleton(outcome: &Result<()>) -> String {
    let Err(error) = outcome else { return "good".into() };
    let (mut out, mut quote) = (error.code().to_owned(), None);
    let message = error.to_string();
    let mut chars = message.chars().take(400);
    while let Some(c) = chars.next() {
        match quote {
            Some(_) if c == '\\' => drop(chars.next()),
            Some(end) if c == end => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '`') => quote = Some(c),
            None if (c.is_ascii_alphabetic() || c == ' ') && out.len() < 80 => out.push(c),
            None => {}
        }
    }
    out
}
