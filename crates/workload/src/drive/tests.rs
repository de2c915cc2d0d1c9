//! The driver with workers that only pretend.

use super::*;

/// Tokio's paused clock: time passes only when everybody waits.
struct TestRuntime(tokio::time::Instant);

impl Runtime for TestRuntime {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        1_700_000_000_000
    }

    fn random_u64(&self) -> u64 {
        4
    }

    fn spawn(&self, task: cribwork_types::BoxFuture<()>) {
        tokio::spawn(task);
    }

    fn spawn_worker(&self, _name: &str, worker: cribwork_types::BoxFuture<()>) {
        tokio::spawn(worker);
    }

    fn sleep(&self, duration: Duration) -> cribwork_types::BoxFuture<()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// Takes `latency` an operation; every `fails`th one fails.
struct Fake {
    runtime: Arc<dyn Runtime>,
    latency: Duration,
    fails: u32,
    count: u32,
}

impl Worker for Fake {
    type Job = ();

    fn next(&mut self) -> ((), Touched) {
        self.count += 1;
        ((), Touched::one(0))
    }

    async fn run(&mut self, (): ()) -> Outcome {
        self.runtime.sleep(self.latency).await;
        match self.count.checked_rem(self.fails) {
            Some(0) => Outcome::Failed("on purpose".to_owned()),
            _ => Outcome::Done,
        }
    }
}

fn fake(runtime: &Arc<dyn Runtime>, latency_ms: u64, fails: u32) -> Fake {
    let latency = Duration::from_millis(latency_ms);
    Fake { runtime: runtime.clone(), latency, fails, count: 0 }
}

#[tokio::test(start_paused = true)]
async fn workers_run_until_the_time_is_up() {
    let runtime: Arc<dyn Runtime> = Arc::new(TestRuntime(tokio::time::Instant::now()));
    let options = CommonOptions { duration: Duration::from_secs(2), ..Default::default() };
    let workers = vec![fake(&runtime, 10, 0), fake(&runtime, 20, 0)];
    let (workers, summary) = drive("fake", &runtime, &options, 1, workers).await.unwrap();
    assert_eq!(workers.iter().map(|worker| worker.count).collect::<Vec<_>>(), [200, 100]);
    assert_eq!((summary.ops, summary.errors, summary.worker_ops_min), (300, 0, 100));
    assert!((summary.duration_s - 2.0).abs() < 0.01, "{summary:?}");
    assert!(summary.max_gap_ms <= 11.0, "{summary:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_an_error_and_no_operation() {
    let runtime: Arc<dyn Runtime> = Arc::new(TestRuntime(tokio::time::Instant::now()));
    let options = CommonOptions { duration: Duration::from_secs(1), ..Default::default() };
    let workers = vec![fake(&runtime, 10, 2)];
    let (workers, summary) = drive("fake", &runtime, &options, 1, workers).await.unwrap();
    assert_eq!(summary.ops + summary.errors, u64::from(workers[0].count));
    assert!(summary.errors >= 8, "{summary:?}");
    assert!(summary.max_gap_ms >= 120.0, "10 + 100 of pause + 10: {summary:?}");
}

/// A worker that panics is reported, not waited for.
#[tokio::test(start_paused = true)]
async fn a_lost_worker_ends_the_run() {
    struct Bad;
    impl Worker for Bad {
        type Job = ();
        fn next(&mut self) -> ((), Touched) {
            ((), Touched::one(0))
        }
        async fn run(&mut self, (): ()) -> Outcome {
            panic!("on purpose");
        }
    }
    let runtime: Arc<dyn Runtime> = Arc::new(TestRuntime(tokio::time::Instant::now()));
    let outcome = drive("bad", &runtime, &CommonOptions::default(), 1, vec![Bad]).await;
    assert_eq!(outcome.err(), Some(WorkloadError::WorkerLost));
}
