//! Closed-loop load: a number of workers, each with one operation under way.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// Runs `operation(worker, number)` for the numbers `0..total`, one worker on each of `workers`, and
/// gives the time from the first to the last. Each worker takes the next number when it is done.
pub fn spread<F>(
    workers: &[Handle],
    total: u64,
    operation: impl Fn(usize, u64) -> F + Send + Sync + 'static,
) -> Duration
where
    F: Future<Output = ()> + Send + 'static,
{
    let (operation, next) = (Arc::new(operation), Arc::new(AtomicU64::new(0)));
    let (done, ended) = sync_channel(workers.len());
    let start = Instant::now();
    for (worker, handle) in workers.iter().enumerate() {
        let (operation, next, done) = (operation.clone(), next.clone(), done.clone());
        handle.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    break;
                }
                operation(worker, number).await;
            }
            // Nobody listens if another worker panicked.
            let _ = done.send(());
        });
    }
    drop(done);
    for _ in workers {
        ended.recv().expect("an operation panicked; its message is above");
    }
    start.elapsed()
}
