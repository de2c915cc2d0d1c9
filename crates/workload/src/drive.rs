//! Runs closed-loop workers for a time: each begins its next operation when the last one is
//! answered.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cribwork_types::Runtime;
use futures::future::{Either, select, try_join_all};
use tokio::sync::oneshot;

use crate::gaps::{Gaps, Touched};
use crate::meter::{Meter, Summary};
use crate::progress::{Live, PERIOD, Progress};
use crate::{CommonOptions, WorkloadError};

/// Pause of a worker whose operation failed: an error that comes at once must not become a busy
/// loop.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It succeeded.
    Done,
    /// It failed, in words.
    Failed(String),
    /// Nobody can say; the worker keeps count of these itself.
    Unknown,
}

/// One worker. It holds whatever it records, and gets itself back at the end.
pub(crate) trait Worker: Send + 'static {
    /// What it does next.
    type Job: Send + 'static;

    /// Chooses an operation and says which ranges it needs.
    fn next(&mut self) -> (Self::Job, Touched);

    /// Does it, with all its retries.
    fn run(&mut self, job: Self::Job) -> impl Future<Output = Outcome> + Send;
}

/// Runs `workers` for the duration in `options`, on `slots` own ranges; the workers come back with
/// what they recorded.
///
/// # Errors
/// [`WorkloadError::WorkerLost`].
pub(crate) async fn drive<W: Worker>(
    name: &'static str,
    runtime: &Arc<dyn Runtime>,
    options: &CommonOptions,
    slots: usize,
    workers: Vec<W>,
) -> Result<(Vec<W>, Summary), WorkloadError> {
    let begun = runtime.now();
    let until = begun + options.duration;
    let gaps = Arc::new(Gaps::new(slots, begun));
    let live = Arc::new(Live::default());
    let handles = workers.into_iter().map(|worker| {
        let (answer, handle) = oneshot::channel();
        let lane = Lane { runtime: runtime.clone(), gaps: gaps.clone(), live: live.clone() };
        runtime.spawn(Box::pin(async move {
            // Nobody waits any more if the run was given up.
            let _ = answer.send(lane.run(worker, until).await);
        }));
        handle
    });
    let all = pin!(try_join_all(handles));
    let show = pin!(show_progress(name, runtime, options.duration, &live));
    let finished = match select(all, show).await {
        Either::Left((finished, _)) => finished.map_err(|_| WorkloadError::WorkerLost)?,
        Either::Right((never, _)) => match never {},
    };
    let ended = runtime.now();
    let (workers, meters): (Vec<_>, Vec<_>) = finished.into_iter().unzip();
    let summary = Summary::new(name, ended - begun, &meters, gaps.finish(ended));
    Ok((workers, summary))
}

async fn show_progress(
    name: &'static str,
    runtime: &Arc<dyn Runtime>,
    total: Duration,
    live: &Live,
) -> std::convert::Infallible {
    let begun = runtime.now();
    let mut progress = Progress::new(name);
    loop {
        runtime.sleep(PERIOD).await;
        progress.show(runtime.now() - begun, total, live);
    }
}

/// What one worker runs in.
struct Lane {
    runtime: Arc<dyn Runtime>,
    gaps: Arc<Gaps>,
    live: Arc<Live>,
}

impl Lane {
    async fn run<W: Worker>(self, mut worker: W, until: Duration) -> (W, Meter) {
        let mut meter = Meter::default();
        loop {
            let begun = self.runtime.now();
            if begun >= until {
                return (worker, meter);
            }
            let (job, touched) = worker.next();
            self.gaps.begin(touched, begun);
            let outcome = worker.run(job).await;
            let ended = self.runtime.now();
            self.gaps.end(touched, ended, outcome == Outcome::Done);
            match outcome {
                Outcome::Done => {
                    meter.succeeded(ended - begun);
                    self.live.ops.fetch_add(1, Ordering::Relaxed);
                }
                Outcome::Unknown => {}
                Outcome::Failed(why) => {
                    tracing::warn!(why, "an operation failed");
                    meter.errors += 1;
                    self.live.errors.fetch_add(1, Ordering::Relaxed);
                    self.runtime.sleep(PAUSE_AFTER_ERROR).await;
                }
            }
        }
    }
}

/// Growing pauses between the attempts of one operation, up to 64 ms, with jitter.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    count: u32,
}

impl Pauses {
    /// Waits a little longer than the last time.
    pub(crate) async fn wait(&mut self, runtime: &dyn Runtime) {
        let full_us = 1000_u64 << self.count.min(6);
        self.count += 1;
        let us = full_us / 2 + runtime.random_u64() % (full_us / 2 + 1);
        runtime.sleep(Duration::from_micros(us)).await;
    }
}

#[cfg(test)]
mod tests;
