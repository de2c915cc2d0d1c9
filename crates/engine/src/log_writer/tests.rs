//! Group commit against a memory engine whose syncs can be held up and made to fail.

use std::future::Future;
use std::sync::mpsc;
use std::task::{Context, Waker};

use bytes::Bytes;
use cribwork_types::{Cf, KeyRange};
use parking_lot::{Condvar, Mutex};
use prometheus_client::registry::Registry;

use super::*;
use crate::test_runtime::TestRuntime;
use crate::{DiskUsage, EngineSnapshot, MemoryEngine};

#[derive(Default)]
struct Gate {
    held: bool,
    syncs_waiting: usize,
    failure: Option<EngineError>,
    writes: usize,
    syncs: usize,
}

/// A memory engine behind a gate, which says when it is dropped.
struct GatedEngine {
    inner: Arc<MemoryEngine>,
    gate: Mutex<Gate>,
    changed: Condvar,
    dropped: mpsc::SyncSender<()>,
}

impl GatedEngine {
    fn hold(&self) {
        self.gate.lock().held = true;
    }

    fn release(&self) {
        self.gate.lock().held = false;
        self.changed.notify_all();
    }

    fn release_with(&self, failure: EngineError) {
        self.gate.lock().failure = Some(failure);
        self.release();
    }

    /// Blocks until the worker hangs in a sync.
    fn wait_until_stuck(&self) {
        let mut gate = self.gate.lock();
        self.changed.wait_while(&mut gate, |gate| gate.syncs_waiting == 0);
    }

    fn counts(&self) -> (usize, usize) {
        let gate = self.gate.lock();
        (gate.writes, gate.syncs)
    }
}

impl Drop for GatedEngine {
    fn drop(&mut self) {
        let _ = self.dropped.try_send(());
    }
}

impl Engine for GatedEngine {
    fn write(&self, batch: &WriteBatch) -> Result<(), EngineError> {
        self.gate.lock().writes += 1;
        self.inner.write(batch)
    }

    fn sync(&self) -> Result<(), EngineError> {
        let mut gate = self.gate.lock();
        gate.syncs += 1;
        gate.syncs_waiting += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut gate, |gate| gate.held);
        gate.syncs_waiting -= 1;
        gate.failure.clone().map_or(Ok(()), Err)?;
        self.inner.sync()
    }

    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.inner.get(cf, key)
    }

    fn snapshot(&self) -> Arc<dyn EngineSnapshot> {
        self.inner.snapshot()
    }

    fn approximate_size_bytes(&self, cf: Cf, range: &KeyRange) -> u64 {
        self.inner.approximate_size_bytes(cf, range)
    }

    fn disk_usage(&self) -> DiskUsage {
        self.inner.disk_usage()
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.inner.flush()
    }
}

type Heard = Arc<Mutex<Vec<(u32, Result<(), EngineError>)>>>;

struct Fixture {
    engine: Arc<GatedEngine>,
    writer: LogWriter,
    metrics: LogWriterMetrics,
    registry: Registry,
    fatal: Arc<Mutex<Vec<EngineError>>>,
    heard: Heard,
    engine_dropped: mpsc::Receiver<()>,
}

fn start(options: LogWriterOptions) -> Fixture {
    let (dropped, engine_dropped) = mpsc::sync_channel(1);
    let engine = Arc::new(GatedEngine {
        inner: MemoryEngine::new(),
        gate: Mutex::default(),
        changed: Condvar::new(),
        dropped,
    });
    let mut registry = Registry::default();
    let metrics = LogWriterMetrics::register(&mut registry);
    let fatal: Arc<Mutex<Vec<EngineError>>> = Arc::default();
    let on_fatal = {
        let fatal = Arc::clone(&fatal);
        Arc::new(move |error| fatal.lock().push(error))
    };
    let runtime = Arc::new(TestRuntime::new());
    let writer =
        LogWriter::start(Arc::clone(&engine) as _, runtime, options, metrics.clone(), on_fatal);
    let heard = Arc::default();
    Fixture { engine, writer, metrics, registry, fatal, heard, engine_dropped }
}

impl Fixture {
    fn write(&self, number: u32, sync: bool) -> LogWrite {
        let mut batch = WriteBatch::new();
        batch.put(Cf::Raft, number.to_be_bytes().to_vec(), "data");
        let heard = Arc::clone(&self.heard);
        let done = Box::new(move |result| heard.lock().push((number, result)));
        LogWrite { batch, sync, done }
    }

    async fn append(&self, number: u32) {
        self.writer.append(self.write(number, true)).await.unwrap();
    }

    /// Holds the gate, with append 0 stuck in its sync.
    async fn stick(&self) {
        self.engine.hold();
        self.append(0).await;
        self.engine.wait_until_stuck();
    }

    fn is_durable(&self, number: u32) -> bool {
        let crashed = self.engine.inner.crash();
        crashed.get(Cf::Raft, &number.to_be_bytes()).unwrap().is_some()
    }
}

fn poll_once<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn what_gathers_during_a_sync_shares_the_next() {
    let fixture = start(LogWriterOptions::default());
    fixture.stick().await;
    for number in 1..=100 {
        fixture.append(number).await;
    }
    assert!(fixture.heard.lock().is_empty() && !fixture.is_durable(0), "nothing before the fsync");
    fixture.engine.release();
    fixture.writer.barrier().await.unwrap();

    let expected: Vec<_> = (0..=100).map(|number| (number, Ok(()))).collect();
    assert_eq!(*fixture.heard.lock(), expected, "each once, in order");
    assert!((0..=100).all(|number| fixture.is_durable(number)));
    let (writes, syncs) = fixture.engine.counts();
    // The barrier may or may not have been in time for the second group.
    assert!(writes == 2 && syncs <= 3, "{writes} writes, {syncs} syncs");

    assert_eq!(fixture.metrics.appends.get(), 102);
    assert_eq!(fixture.metrics.batches.get(), 2);
    assert_eq!(fixture.metrics.fsyncs.get(), syncs as u64);
    assert_eq!(fixture.metrics.bytes.get(), 101 * 8);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &fixture.registry).unwrap();
    assert!(text.contains("cribwork_log_appends_total 102"), "{text}");
    assert!(text.contains(&format!("cribwork_log_fsync_seconds_count {syncs}")), "{text}");
}

#[tokio::test]
async fn batches_of_a_crowd_start_apart_and_one_alone_waits_for_nobody() {
    let pace = Duration::from_millis(300);
    let fixture = start(LogWriterOptions { pace, ..LogWriterOptions::default() });
    fixture.stick().await;
    for number in 1..=CROWD as u32 {
        fixture.append(number).await;
    }
    fixture.engine.release();
    // The crowd's batch is written at once; the two behind it share the next one, whenever they come.
    while fixture.heard.lock().len() <= CROWD {
        tokio::task::yield_now().await;
    }
    let crowd_heard = std::time::Instant::now();
    fixture.append(10).await;
    fixture.append(11).await;
    while fixture.heard.lock().len() < CROWD + 3 {
        tokio::task::yield_now().await;
    }
    assert!(crowd_heard.elapsed() >= pace / 2, "{:?}", crowd_heard.elapsed());
    assert_eq!(fixture.engine.counts(), (3, 3));
    let alone = std::time::Instant::now();
    fixture.append(12).await;
    while fixture.heard.lock().len() < CROWD + 4 {
        tokio::task::yield_now().await;
    }
    assert!(alone.elapsed() < pace / 2, "{:?}", alone.elapsed());
}

#[tokio::test]
async fn a_failed_sync_is_fatal_once_and_never_retried() {
    let fixture = start(LogWriterOptions::default());
    fixture.stick().await;
    fixture.append(1).await;
    fixture.append(2).await;
    let failure = EngineError::Io { what: "sync", detail: "EIO".into() };
    fixture.engine.release_with(failure.clone());
    let late = fixture.writer.barrier().await.unwrap_err();
    fixture.writer.close().await;

    let stopped = failure.stopped();
    assert_eq!(late, stopped);
    assert_eq!(*fixture.fatal.lock(), std::slice::from_ref(&failure));
    let expected = [(0, Err(failure)), (1, Err(stopped.clone())), (2, Err(stopped.clone()))];
    assert_eq!(*fixture.heard.lock(), expected);
    let error = fixture.writer.append(fixture.write(3, true)).await.unwrap_err();
    assert_eq!(error, stopped);
    assert_eq!(fixture.heard.lock().last(), Some(&(3, Err(stopped))));
    assert_eq!(fixture.engine.counts(), (1, 1), "neither the batch nor a later one was tried");
}

#[tokio::test]
async fn appends_wait_while_the_queue_is_full() {
    let count = LogWriterOptions { queue_max: 2, ..Default::default() };
    let bytes = LogWriterOptions { queue_bytes_max: 16, ..Default::default() };
    for options in [count, bytes] {
        let fixture = start(options);
        fixture.stick().await;
        fixture.append(1).await;
        fixture.append(2).await;
        let mut third = pin!(fixture.writer.append(fixture.write(3, true)));
        assert!(poll_once(third.as_mut()).is_none(), "two wait already");
        fixture.engine.release();
        third.await.unwrap();
        fixture.writer.barrier().await.unwrap();
        assert_eq!(fixture.heard.lock().len(), 4);
    }
}

#[tokio::test]
async fn one_append_may_pass_the_byte_bounds() {
    let options = LogWriterOptions { queue_bytes_max: 1, batch_bytes_max: 1, ..Default::default() };
    let fixture = start(options);
    fixture.append(1).await;
    fixture.append(2).await;
    fixture.writer.barrier().await.unwrap();
    assert!(fixture.is_durable(2));
    assert_eq!(fixture.engine.counts().0, 2, "each filled a batch alone");
}

#[tokio::test]
async fn unsynced_appends_cost_no_fsync_and_a_barrier_makes_them_durable() {
    let fixture = start(LogWriterOptions::default());
    let (sender, receiver) = oneshot::channel();
    let mut write = fixture.write(1, false);
    write.done = Box::new(move |result| sender.send(result).unwrap());
    fixture.writer.append(write).await.unwrap();
    receiver.await.unwrap().unwrap();
    assert_eq!(fixture.engine.counts(), (1, 0));
    assert!(!fixture.is_durable(1));
    fixture.writer.barrier().await.unwrap();
    assert_eq!(fixture.engine.counts(), (1, 1));
    assert!(fixture.is_durable(1));
}

#[tokio::test]
async fn close_finishes_what_was_queued_and_refuses_the_rest() {
    let fixture = start(LogWriterOptions::default());
    fixture.stick().await;
    fixture.append(1).await;
    let mut close = pin!(fixture.writer.close());
    assert!(poll_once(close.as_mut()).is_none());
    let refused = fixture.writer.append(fixture.write(2, true)).await.unwrap_err();
    assert_eq!(refused, EngineError::Closed);
    fixture.engine.release();
    close.await;
    let expected = [(2, Err(EngineError::Closed)), (0, Ok(())), (1, Ok(()))];
    assert_eq!(*fixture.heard.lock(), expected);
    assert!(fixture.is_durable(1) && fixture.fatal.lock().is_empty());
}

#[tokio::test]
async fn the_last_handle_takes_the_worker_with_it() {
    let Fixture { engine, writer, engine_dropped, .. } = start(LogWriterOptions::default());
    drop(engine);
    let clone = writer.clone();
    drop(writer);
    clone.barrier().await.unwrap();
    drop(clone);
    engine_dropped.recv().unwrap();
}

#[tokio::test]
async fn a_panicking_callback_is_fatal() {
    let fixture = start(LogWriterOptions::default());
    let mut write = fixture.write(1, true);
    write.done = Box::new(|_| panic!("a bug in a callback"));
    fixture.writer.append(write).await.unwrap();
    fixture.writer.close().await;
    assert_eq!(fixture.fatal.lock().len(), 1);
    let error = fixture.writer.barrier().await.unwrap_err();
    assert!(matches!(error, EngineError::Stopped { .. }), "{error}");
}
