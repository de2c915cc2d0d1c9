//! What is on disk when the process dies between two steps of a log.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests unwrap and spawn")]

use std::future::ready;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cribwork_engine::{LogWriterMetrics, LogWriterOptions, MemoryEngine};
use cribwork_types::{BoxFuture, Runtime};

use super::*;
use crate::records::Payload;

/// Tasks of the test's own thread: one runs only while the test waits.
pub(crate) struct OneThread;

impl Runtime for OneThread {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn wall_ms(&self) -> u64 {
        0
    }

    fn random_u64(&self) -> u64 {
        static DRAWN: AtomicU64 = AtomicU64::new(1);
        DRAWN.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    fn spawn(&self, task: BoxFuture<()>) {
        tokio::spawn(task);
    }

    fn spawn_worker(&self, _: &str, worker: BoxFuture<()>) {
        self.spawn(worker);
    }

    fn sleep(&self, _: Duration) -> BoxFuture<()> {
        Box::pin(ready(()))
    }
}

const RANGE: RangeId = RangeId(1);

fn at(index: u64) -> Position {
    Position { term: 1, index }
}

/// What takes the place of dropped entries may be applied at once. A crash must not leave an applied
/// index behind a log that still ends in what was dropped: openraft never opens such a replica again.
#[tokio::test]
async fn a_truncation_is_written_before_it_returns() {
    let engine = MemoryEngine::new();
    let writer = LogWriter::start(
        engine.clone(),
        Arc::new(OneThread),
        LogWriterOptions::default(),
        LogWriterMetrics::register(&mut Default::default()),
        Arc::new(|error| panic!("{error}")),
    );
    let log = RangeLog::open(RANGE, engine.clone(), writer, 1 << 20).unwrap();
    let entry = |index| (at(index), records::encode_entry(1, &Payload::Blank));
    let (told, durable) = oneshot::channel();
    let flushed = Box::new(move |result| drop(told.send(result)));
    log.append((0..5).map(entry).collect(), flushed).await.unwrap();
    durable.await.unwrap().unwrap();

    log.truncate_after(Some(at(1))).await.unwrap();
    // The disk keeps everything that it was handed, and nothing else.
    let crashed = engine.crash_keeping(usize::MAX);
    assert_eq!(RangeLog::load(RANGE, crashed.as_ref()).unwrap().last, Some(at(1)));
}
