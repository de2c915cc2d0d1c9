//! What clients do while a test does something to the nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::poll::wait_until;

/// How long the tasks of a load may take to end once they are told.
const END_LIMIT: Duration = Duration::from_secs(60);

/// Tasks on threads of their own, so that the test may block. They count what they have done.
#[derive(Debug)]
pub struct Load {
    runtime: Runtime,
    tasks: JoinSet<()>,
    pulse: Pulse,
}

/// How a task and its test see each other. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Pulse {
    /// Notes one more success.
    pub fn beat(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the task should go on.
    pub fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

impl Load {
    /// A load without tasks yet.
    pub fn new() -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        Self { runtime, tasks: JoinSet::new(), pulse: Pulse::default() }
    }

    /// Runs something on the load's threads, and waits for it.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Adds a task.
    pub fn spawn<F>(&mut self, task: impl FnOnce(Pulse) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn_on(task(self.pulse.clone()), self.runtime.handle());
    }

    /// Successes so far.
    pub fn done(&self) -> u64 {
        self.pulse.done.load(Ordering::Relaxed)
    }

    /// Waits for `count` more successes.
    ///
    /// # Panics
    /// If a task has panicked, or they do not come in time.
    #[track_caller]
    pub fn wait_for(&mut self, count: u64, deadline: Duration) {
        let goal = self.done() + count;
        wait_until("the load makes progress", deadline, || {
            while let Some(ended) = self.tasks.try_join_next() {
                ended.expect("a task of the load does not panic");
            }
            let done = self.pulse.done.load(Ordering::Relaxed);
            if done >= goal { Ok(()) } else { Err(format!("{done} done of {goal}")) }
        });
    }

    /// Ends the tasks where they are: what is under way has an unknown outcome.
    pub fn abort(&mut self) {
        self.runtime.block_on(self.tasks.shutdown());
    }

    /// Tells the tasks to end, and waits for them.
    ///
    /// # Panics
    /// If a task has panicked, or does not end.
    #[track_caller]
    pub fn finish(&mut self) {
        self.pulse.stop.store(true, Ordering::Relaxed);
        let tasks = &mut self.tasks;
        let all = async {
            while let Some(ended) = tasks.join_next().await {
                ended.expect("a task of the load does not panic");
            }
        };
        let ended = self.runtime.block_on(async { tokio::time::timeout(END_LIMIT, all).await });
        ended.expect("the load ends once it is told to");
    }
}

impl Default for Load {
    fn default() -> Self {
        Self::new()
    }
}
