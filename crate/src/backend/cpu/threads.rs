//! Where a pool's threads come from. Natively from the operating system. A wasm module cannot make any: JavaScript starts
//! workers on the same module and memory beforehand, each calls `help`, and they run the tasks of one pool after the other.

#[cfg(not(target_arch = "wasm32"))]
pub(super) use native::{Thread, spawn};
#[cfg(target_arch = "wasm32")]
pub(super) use wasm::{Thread, spawn};
#[cfg(target_arch = "wasm32")]
pub use wasm::{enter, help};

/// What a thread runs until its pool ends.
pub(super) type Task = Box<dyn FnOnce() + Send>;

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use super::Task;

    /// A running task.
    pub struct Thread(std::thread::JoinHandle<()>);

    impl Thread {
        /// Waits until the task has returned.
        pub fn join(self) {
            // A pool's tasks catch panics themselves.
            let _ = self.0.join();
        }
    }

    /// Runs `task` on a thread of its own; none if the system grants no more.
    pub fn spawn(task: Task) -> Option<Thread> {
        std::thread::Builder::new().name("openweights".into()).spawn(task).ok().map(Thread)
    }
}

#[cfg(target_arch = "wasm32")]
mod wasm {
    use std::sync::{Arc, Condvar, Mutex, MutexGuard};

    use super::Task;

    /// Helpers without a task, and tasks that helpers were promised to.
    struct Helpers {
        idle: usize,
        tasks: Vec<Task>,
    }

    static HELPERS: Mutex<Helpers> = Mutex::new(Helpers { idle: 0, tasks: Vec::new() });
    static TASK: Condvar = Condvar::new();

    /// Counts the calling worker as a helper: it must call [`help`] next.
    pub fn enter() {
        lock(&HELPERS).idle += 1;
    }

    /// Runs tasks for ever, asleep between them.
    pub fn help() {
        loop {
            let mut helpers = TASK.wait_while(lock(&HELPERS), |helpers| helpers.tasks.is_empty()).unwrap_or_else(|e| e.into_inner());
            let task = helpers.tasks.pop();
            drop(helpers);
            if let Some(task) = task {
                task();
            }
        }
    }

    /// A running task: set when it has returned.
    pub struct Thread(Arc<(Mutex<bool>, Condvar)>);

    impl Thread {
        /// Waits until the task has returned and its helper is idle.
        pub fn join(self) {
            let (ended, changed) = &*self.0;
            drop(changed.wait_while(lock(ended), |ended| !*ended));
        }
    }

    /// Runs `task` on a helper; none if all are busy.
    pub fn spawn(task: Task) -> Option<Thread> {
        let mut helpers = lock(&HELPERS);
        helpers.idle = helpers.idle.checked_sub(1)?;
        let state = Arc::new((Mutex::new(false), Condvar::new()));
        let shared = state.clone();
        helpers.tasks.push(Box::new(move || {
            task();
            lock(&HELPERS).idle += 1;
            *lock(&shared.0) = true;
            shared.1.notify_all();
        }));
        TASK.notify_one();
        Some(Thread(state))
    }

    fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(|e| e.into_inner())
    }
}
