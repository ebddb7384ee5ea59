//! A fork-join pool for work of microseconds.
//!
//! A token costs about two hundred forks, so threads that have finished look for the next job for some tens of microseconds
//! before they sleep: within a step nobody is woken, and an idle engine costs nothing.

// A job borrows from its caller while other threads run it, which safe Rust cannot say of threads that live on.
#![allow(unsafe_code)]

use std::{
    any::Any,
    cell::{Cell, RefCell, UnsafeCell},
    marker::PhantomData,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::threads::{Thread, spawn};

/// Most threads of a pool: more only wait for memory and for each other.
pub const MOST_THREADS: usize = 64;

/// Looks at a value before sleeping: about 40 microseconds. A look costs some 40 nanoseconds where the processor pauses in
/// between, and one or two in wasm, which cannot ask for a pause.
const LOOKS: usize = if cfg!(target_arch = "wasm32") { 30_000 } else { 1_000 };

type Job = &'static (dyn Fn(usize) + Sync);

/// Threads that run one closure at a time, together with the thread that asks for it.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<Thread>,
    /// Makes the pool `!Sync`: jobs come from one thread, and a job, which is `Sync`, cannot hold the pool to fork again.
    _one_caller: PhantomData<Cell<()>>,
}

struct Shared {
    /// What to call; `None` ends the threads. Written only while no thread runs a job.
    job: UnsafeCell<Option<Job>>,
    /// Counts jobs. A change publishes `job`.
    started: Signal,
    /// Threads that have not finished the job.
    running: Signal,
    /// What the first thread to panic in this job threw.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written only by the pool's one caller, between the moment when `running` is 0 and the change of `started`;
// threads read it only between that change and their own decrement of `running`. The rest is `Sync` by itself.
unsafe impl Sync for Shared {}

thread_local! {
    /// The pool that this thread works for.
    static EMPLOYER: RefCell<Option<Arc<Shared>>> = const { RefCell::new(None) };
}

impl Pool {
    /// A pool of `threads` threads, the caller included; of fewer where fewer are to be had, and at most [`MOST_THREADS`].
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            job: UnsafeCell::new(None),
            started: Signal::default(),
            running: Signal::default(),
            panic: Mutex::new(None),
        });
        let work = |index| {
            let shared = shared.clone();
            spawn(Box::new(move || work(&shared, index)))
        };
        let threads = (1..threads.min(MOST_THREADS)).map_while(work).collect();
        Pool { shared, threads, _one_caller: PhantomData }
    }

    /// Threads, the caller included.
    pub fn threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Calls `job` with every index in `0..threads()`, each on its own thread and 0 on the caller's, and returns when all have
    /// returned. A panic in one of them is thrown here, once all have ended.
    pub fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        if self.threads.is_empty() {
            return job(0);
        }
        // SAFETY: the threads use the job only until they decrement `running`, and this function leaves, by return or by
        // panic, only after that.
        let job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(job) };
        self.start(Some(job));
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        self.shared.running.wait(|running| running == 0);
        let theirs = lock(&self.shared.panic).take();
        if let Some(panic) = own.err().or(theirs) {
            resume_unwind(panic);
        }
    }

    /// Calls `work` with ranges of at most `chunk` items that make up `0..items`; a thread takes the next range whenever it
    /// is free. A single range is not worth a fork.
    pub fn split(&self, items: usize, chunk: usize, work: &(dyn Fn(Range<usize>) + Sync)) {
        let chunk = chunk.max(1);
        if self.threads.is_empty() || items <= chunk {
            return (0..items).step_by(chunk).for_each(|start| work(start..items.min(start + chunk)));
        }
        let next = AtomicUsize::new(0);
        self.run(&|_| {
            loop {
                let start = next.fetch_add(chunk, Ordering::Relaxed);
                if start >= items {
                    return;
                }
                work(start..items.min(start + chunk));
            }
        });
    }

    fn start(&self, job: Option<Job>) {
        // SAFETY: `running` is 0, so no thread reads `job`, and the pool has one caller: this one.
        unsafe { *self.shared.job.get() = job };
        self.shared.running.value.store(self.threads.len(), Ordering::Relaxed);
        self.shared.started.add(1);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.start(None);
        self.threads.drain(..).for_each(Thread::join);
    }
}

/// A thread's life.
fn work(shared: &Arc<Shared>, index: usize) {
    EMPLOYER.set(Some(shared.clone()));
    let mut seen = 0;
    loop {
        shared.started.wait(|started| started != seen);
        seen = seen.wrapping_add(1);
        // SAFETY: `started` has changed and this thread has not finished yet: nobody writes.
        let Some(job) = (unsafe { *shared.job.get() }) else { break };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(index))) {
            lock(&shared.panic).get_or_insert(panic);
        }
        shared.running.add(usize::MAX);
    }
    EMPLOYER.set(None);
}

/// For where a panic ends the thread instead of unwinding, as in wasm: called on the thread that ended, it passes the failure
/// on to the pool's caller, which would otherwise wait for ever.
#[cfg(any(test, target_arch = "wasm32"))]
pub(crate) fn thread_failed() {
    if let Some(shared) = EMPLOYER.take() {
        lock(&shared.panic).get_or_insert(Box::new("a thread of the pool has failed"));
        shared.running.add(usize::MAX);
    }
}

/// A number that threads wait for. Aligned, so that the two of a pool do not share a cache line (lines are fetched in pairs).
#[derive(Default)]
#[repr(align(128))]
struct Signal {
    value: AtomicUsize,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Signal {
    /// Returns when the value is as wanted; what was written before it was set is visible then.
    fn wait(&self, wanted: impl Fn(usize) -> bool) {
        for _ in 0..LOOKS {
            if wanted(self.value.load(Ordering::Acquire)) {
                return;
            }
            std::hint::spin_loop();
        }
        let mut guard = lock(&self.lock);
        // Of "count as sleeper, look at the value" here and "set the value, look for sleepers" in `add`, all sequentially
        // consistent, at least one sees the other: nobody sleeps through a change.
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while !wanted(self.value.load(Ordering::SeqCst)) {
            guard = self.changed.wait(guard).unwrap_or_else(|e| e.into_inner());
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// Adds `amount`, wrapping around, and wakes who sleeps.
    fn add(&self, amount: usize) {
        self.value.fetch_add(amount, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // Whoever is between looking and sleeping holds the lock.
            drop(lock(&self.lock));
            self.changed.notify_all();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{super::parts::Parts, *};

    fn counters(n: usize) -> Vec<AtomicUsize> {
        (0..n).map(|_| AtomicUsize::new(0)).collect()
    }

    fn count(counter: &AtomicUsize) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn thrown(run: impl FnOnce()) -> String {
        *catch_unwind(AssertUnwindSafe(run)).expect_err("a panic").downcast::<String>().expect("a message")
    }

    #[test]
    fn every_index_runs_once_on_a_thread_of_its_own() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            let ids = Mutex::new(Vec::new());
            pool.run(&|index| ids.lock().unwrap().push((index, std::thread::current().id())));
            let mut ids = ids.into_inner().unwrap();
            ids.sort_by_key(|(index, _)| *index);
            assert!(ids.iter().map(|(index, _)| *index).eq(0..threads));
            assert_eq!(ids[0].1, std::thread::current().id());
            assert_eq!(ids.iter().map(|(_, id)| *id).collect::<std::collections::HashSet<_>>().len(), threads);
        }
        assert_eq!(Pool::new(0).threads(), 1);
    }

    #[test]
    fn a_hundred_thousand_forks() {
        let pool = Pool::new(2);
        let mut rows = vec![0u32; 2];
        for _ in 0..100_000 {
            let parts = Parts::new(&mut rows);
            // SAFETY: each index is one thread's.
            pool.run(&|index| unsafe { parts.part(index..index + 1) }[0] += 1);
        }
        assert_eq!(rows, [100_000; 2]);
    }

    #[test]
    fn threads_that_sleep_between_forks_miss_none() {
        let pool = Pool::new(4);
        let counts = counters(4);
        for round in 0..200 {
            pool.run(&|index| {
                if index == round % 4 {
                    std::thread::sleep(Duration::from_micros(100));
                }
                count(&counts[index]);
            });
            std::thread::sleep(Duration::from_micros(round as u64));
        }
        assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 200));
    }

    #[test]
    fn an_idle_pool_sleeps() {
        let pool = Pool::new(3);
        pool.run(&|_| {});
        let started = Instant::now();
        while pool.shared.started.sleepers.load(Ordering::SeqCst) < 2 {
            assert!(started.elapsed() < Duration::from_secs(10), "threads are awake");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(3);
        for guilty in 0..3 {
            let others = counters(1);
            let message = thrown(|| {
                pool.run(&|index| {
                    if index == guilty {
                        panic!("thread {index}");
                    }
                    std::thread::sleep(Duration::from_millis(5));
                    count(&others[0]);
                });
            });
            assert_eq!(message, format!("thread {guilty}"));
            assert_eq!(others[0].load(Ordering::Relaxed), 2, "the others had ended");
            let counts = counters(3);
            pool.run(&|index| count(&counts[index]));
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
        assert!(thrown(|| pool.run(&|index| panic!("thread {index}"))).starts_with("thread"));
        pool.run(&|_| {});
    }

    #[test]
    fn a_thread_that_ends_without_unwinding_is_no_deadlock() {
        let pool = Pool::new(2);
        // What wasm does: the job never returns, and its worker says so.
        let message = catch_unwind(AssertUnwindSafe(|| {
            pool.run(&|index| {
                if index == 1 {
                    thread_failed();
                    std::thread::sleep(Duration::from_secs(3600));
                }
            });
        }));
        assert_eq!(*message.expect_err("a panic").downcast::<&str>().expect("a message"), "a thread of the pool has failed");
        std::mem::forget(pool); // its thread is gone: nothing ends it
    }

    #[test]
    fn a_dropped_pool_ends_its_threads() {
        let pool = Pool::new(4);
        let shared = Arc::downgrade(&pool.shared);
        pool.run(&|_| {});
        drop(pool);
        assert!(shared.upgrade().is_none(), "a thread still holds the pool");
    }

    #[test]
    fn split_covers_every_item_once() {
        for threads in [1, 3] {
            let pool = Pool::new(threads);
            for (items, chunk) in [(0, 4), (1, 4), (4, 4), (5, 4), (1000, 7), (9, 0)] {
                let counts = counters(items);
                pool.split(items, chunk, &|range| {
                    assert!(range.len() <= chunk.max(1) && !range.is_empty());
                    counts[range].iter().for_each(count);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{items} items by {chunk}");
            }
        }
    }
}
