//! Group commit: the appends of all Raft groups of a node become one engine write and one fsync.
//!
//! ```text
//!  group 1 --append--+                                     +--> done(1)
//!  group 2 --append--+--> bounded queue --> worker: drain, +--> done(2)   in the order of the queue
//!  group 3 --append--+                      write, sync,   +--> done(3)
//! ```
//!
//! What gathers while one fsync runs is the next batch. While many groups append, batches start a
//! little apart, so that fewer and larger ones do the same work; who appends alone waits for nobody.
//!
//! Invariants:
//! - callbacks run in the order in which appends entered the queue, each exactly once;
//! - a callback hears `Ok` only after its bytes, and those of all before it, were written, and
//!   synced if its append asked for it;
//! - after the first failure nothing more is written: neither the failed batch nor a later one is
//!   ever tried again, because after a failed fsync the kernel may report the lost pages as clean.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cribwork_types::quirk::{Quirk, strikes};
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{Runtime, WriteBatch};
use crossbeam::queue::ArrayQueue;
use tokio::sync::{Notify, oneshot};

use crate::{Engine, EngineError, LogWriterMetrics};

/// Name of the worker in thread lists.
const WORKER_NAME: &str = "log-writer";

/// How long a disk that the simulator makes slow takes.
const SLOW_LOG: Duration = Duration::from_millis(60);

/// Appends in one batch from which on others are taken to be at work, so that a pause brings more.
const CROWD: usize = 3;

/// What hears how an append went.
pub type LogCallback = Box<dyn FnOnce(Result<(), EngineError>) + Send>;

/// One append.
pub struct LogWrite {
    /// What to write. May be empty.
    pub batch: WriteBatch,
    /// Whether `done` is to wait for an fsync.
    pub sync: bool,
    /// Called exactly once, on the worker or, if the append is refused, on the caller's thread;
    /// never if the future of [`LogWriter::append`] is dropped before it completes. Must not block.
    pub done: LogCallback,
}

/// Bounds of a [`LogWriter`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogWriterOptions {
    /// Appends that may wait; over it [`LogWriter::append`] waits.
    pub queue_max: usize,
    /// Bytes of keys and values that may wait; over it [`LogWriter::append`] waits. One append may
    /// pass it, so that none is too large.
    pub queue_bytes_max: usize,
    /// Bytes of keys and values after which a batch is closed. One append may pass it.
    pub batch_bytes_max: usize,
    /// Least time from the start of one batch to the start of the next while several groups append.
    /// Each batch costs an fsync, thread switches, and a frame to each peer, however small it is.
    pub pace: Duration,
}

impl Default for LogWriterOptions {
    fn default() -> Self {
        Self {
            queue_max: 4096,
            queue_bytes_max: 64 << 20,
            batch_bytes_max: 4 << 20,
            pace: Duration::from_millis(2),
        }
    }
}

/// The handle to a node's log writer. Clones share one queue and one worker, which ends after
/// [`LogWriter::close`] or when the last handle is gone, in both cases once the queue is empty.
#[derive(Clone)]
pub struct LogWriter {
    handle: Arc<Handle>,
}

/// Closes the queue when the last [`LogWriter`] is dropped.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.begin_close();
    }
}

struct Shared {
    queue: ArrayQueue<LogWrite>,
    queue_bytes: AtomicUsize,
    options: LogWriterOptions,
    /// Appends are refused.
    closing: AtomicBool,
    /// The worker will not look at the queue again.
    ended: AtomicBool,
    failure: OnceLock<EngineError>,
    /// Tells the worker of work.
    work: Notify,
    /// Tells appenders that the queue was drained or closed, and closers that the worker ended.
    progress: Notify,
}

impl LogWriter {
    /// Starts the worker.
    ///
    /// `on_fatal` is called once, on the worker and before any callback hears of it, with the first
    /// failure of the engine (or with [`EngineError::Stopped`] if a callback panicked). It should end
    /// the process: what the store holds is no longer known.
    pub fn start(
        engine: Arc<dyn Engine>,
        runtime: Arc<dyn Runtime>,
        options: LogWriterOptions,
        metrics: LogWriterMetrics,
        on_fatal: Arc<dyn Fn(EngineError) + Send + Sync>,
    ) -> LogWriter {
        let shared = Arc::new(Shared {
            queue: ArrayQueue::new(options.queue_max.max(1)),
            queue_bytes: AtomicUsize::new(0),
            options,
            closing: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            failure: OnceLock::new(),
            work: Notify::new(),
            progress: Notify::new(),
        });
        let worker = Worker {
            ending: Ending { shared: Arc::clone(&shared), on_fatal },
            engine,
            runtime: Arc::clone(&runtime),
            metrics,
        };
        runtime.spawn_worker(WORKER_NAME, Box::pin(worker.run()));
        LogWriter { handle: Arc::new(Handle { shared }) }
    }

    /// Puts `write` into the queue, waiting while it is full. `write.done` hears how it went.
    ///
    /// # Errors
    /// [`EngineError::Stopped`] after a failure, [`EngineError::Closed`] after [`Self::close`].
    /// `write.done` has been called with the same error.
    pub async fn append(&self, write: LogWrite) -> Result<(), EngineError> {
        self.handle.shared.append(write).await
    }

    /// Completes when everything appended before this call is durable.
    ///
    /// # Errors
    /// As [`Self::append`], and the engine's error if it fails meanwhile.
    pub async fn barrier(&self) -> Result<(), EngineError> {
        self.write_durable(WriteBatch::new()).await
    }

    /// Completes when `batch` is durable.
    ///
    /// # Errors
    /// As [`Self::barrier`].
    pub async fn write_durable(&self, batch: WriteBatch) -> Result<(), EngineError> {
        let (sender, receiver) = oneshot::channel();
        // Nobody listens any more if the caller gave up, which is the caller's right.
        let done = Box::new(move |result| drop(sender.send(result)));
        self.append(LogWrite { batch, sync: true, done }).await?;
        receiver.await.unwrap_or(Err(EngineError::Closed))
    }

    /// Refuses further appends and completes when all earlier ones are written and called back.
    pub async fn close(&self) {
        let shared = &self.handle.shared;
        shared.begin_close();
        shared.wait(|| shared.ended.load(Ordering::SeqCst).then_some(())).await;
    }
}

impl Shared {
    /// Completes with what `check` returns, asking again after each progress of the worker.
    async fn wait<T>(&self, mut check: impl FnMut() -> Option<T>) -> T {
        loop {
            let mut progress = pin!(self.progress.notified());
            // Enlisted before the check: progress in between is not missed.
            progress.as_mut().enable();
            if let Some(value) = check() {
                return value;
            }
            progress.await;
        }
    }

    fn check_open(&self) -> Result<(), EngineError> {
        if let Some(first) = self.failure.get() {
            return Err(first.stopped());
        }
        match self.closing.load(Ordering::SeqCst) {
            true => Err(EngineError::Closed),
            false => Ok(()),
        }
    }

    async fn append(&self, write: LogWrite) -> Result<(), EngineError> {
        let mut waiting = Some(write);
        let refused = match self.try_append(&mut waiting) {
            Some(result) => result,
            None => self.wait(|| self.try_append(&mut waiting)).await,
        };
        match (refused, waiting) {
            (Err(error), Some(write)) => {
                (write.done)(Err(error.clone()));
                Err(error)
            }
            (result, _) => result,
        }
    }

    /// Moves `write` into the queue, or leaves it if there is no room (`None`) or no worker.
    fn try_append(&self, write: &mut Option<LogWrite>) -> Option<Result<(), EngineError>> {
        if let Err(error) = self.check_open() {
            return Some(Err(error));
        }
        let bytes = write.as_ref().map_or(0, |write| write.batch.size_bytes());
        let before = self.queue_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before != 0 && before + bytes > self.options.queue_bytes_max {
            self.queue_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return None;
        }
        if let Err(back) = self.queue.push(write.take()?) {
            self.queue_bytes.fetch_sub(bytes, Ordering::Relaxed);
            *write = Some(back);
            return None;
        }
        self.work.notify_one();
        // Pairs with the fence in `Ending`: either its last look at the queue finds this append, or
        // we see that it has ended.
        fence(Ordering::SeqCst);
        if self.ended.load(Ordering::SeqCst) {
            self.refuse_queued();
        }
        Some(Ok(()))
    }

    fn pop(&self) -> Option<LogWrite> {
        let write = self.queue.pop()?;
        self.queue_bytes.fetch_sub(write.batch.size_bytes(), Ordering::Relaxed);
        Some(write)
    }

    fn begin_close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.work.notify_one();
        self.progress.notify_waiters();
    }

    fn refuse_queued(&self) {
        while let Some(write) = self.pop() {
            let error = self.failure.get().map_or(EngineError::Closed, EngineError::stopped);
            (write.done)(Err(error));
        }
    }
}

/// Marks the worker's end, however it comes: closed, its runtime gone, or a callback that panicked.
struct Ending {
    shared: Arc<Shared>,
    on_fatal: Arc<dyn Fn(EngineError) + Send + Sync>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let shared = &self.shared;
        if std::thread::panicking() {
            let error = EngineError::Stopped { first: "the log writer panicked".to_owned() };
            shared.failure.get_or_init(|| error.clone());
            (self.on_fatal)(error);
        }
        shared.closing.store(true, Ordering::SeqCst);
        shared.ended.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        shared.refuse_queued();
        shared.progress.notify_waiters();
    }
}

struct Worker {
    ending: Ending,
    engine: Arc<dyn Engine>,
    runtime: Arc<dyn Runtime>,
    metrics: LogWriterMetrics,
}

impl Worker {
    async fn run(self) {
        // Before this, no batch starts.
        let mut due = Duration::ZERO;
        loop {
            let closing = self.ending.shared.closing.load(Ordering::SeqCst);
            if self.ending.shared.queue.is_empty() {
                if closing {
                    return;
                }
                self.ending.shared.work.notified().await;
                continue;
            }
            // Before anything is taken out: what the queue holds is answered even if this never wakes.
            let early = due.saturating_sub(self.runtime.now());
            if !early.is_zero() && !closing {
                self.runtime.sleep(early).await;
            }
            if strikes(Quirk::SlowLog) {
                self.runtime.sleep(SLOW_LOG).await;
            }
            let Some(first) = self.ending.shared.pop() else { continue };
            let started = self.runtime.now();
            match self.commit(first) {
                Ok(appends) if appends >= CROWD => due = started + self.ending.shared.options.pace,
                Ok(_) => due = Duration::ZERO,
                Err(failed) => return self.fail(failed),
            }
        }
    }

    /// Writes `first` and what waits behind it, syncs, and calls back; the number of appends. On
    /// failure the callbacks have not been called yet and come back through `self.fail`.
    fn commit(&self, first: LogWrite) -> Result<usize, Failed> {
        let shared = &self.ending.shared;
        self.metrics.queue_depth.set(shared.queue.len() as i64 + 1);
        let LogWrite { mut batch, mut sync, done } = first;
        let mut bytes = batch.size_bytes();
        let mut callbacks = vec![done];
        // The count is bounded too: appends without bytes could come as fast as they are taken.
        while bytes < shared.options.batch_bytes_max
            && callbacks.len() <= shared.queue.capacity()
            && !strikes(Quirk::SmallLogBatch)
        {
            let Some(next) = shared.pop() else { break };
            bytes += next.batch.size_bytes();
            sync |= next.sync;
            batch.append(next.batch);
            callbacks.push(next.done);
        }
        shared.progress.notify_waiters();
        if let Err(error) = self.write(&batch, sync) {
            return Err(Failed { error, callbacks });
        }
        let appends = callbacks.len();
        self.metrics.appends.inc_by(appends as u64);
        self.metrics.bytes.inc_by(bytes as u64);
        callbacks.into_iter().for_each(|done| done(Ok(())));
        Ok(appends)
    }

    fn write(&self, batch: &WriteBatch, sync: bool) -> Result<(), EngineError> {
        // With the bug, what was called back is synced with the next batch.
        if has(Bug::AckBeforeFsync) {
            self.engine.sync()?;
        }
        if !batch.is_empty() {
            self.engine.write(batch)?;
            self.metrics.batches.inc();
        }
        if sync && !has(Bug::AckBeforeFsync) {
            let start = self.runtime.now();
            self.engine.sync()?;
            let took = self.runtime.now().saturating_sub(start);
            self.metrics.fsync_seconds.observe(took.as_secs_f64());
            self.metrics.fsyncs.inc();
        }
        Ok(())
    }

    fn fail(&self, failed: Failed) {
        let Failed { error, callbacks } = failed;
        tracing::error!(%error, "the log cannot be written");
        self.ending.shared.failure.get_or_init(|| error.clone());
        (self.ending.on_fatal)(error.clone());
        callbacks.into_iter().for_each(|done| done(Err(error.clone())));
    }
}

/// A batch that failed, and who must hear of it.
struct Failed {
    error: EngineError,
    callbacks: Vec<LogCallback>,
}

#[cfg(test)]
mod tests;
