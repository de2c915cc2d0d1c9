//! Messages between two stores over TCP on loopback: how many a second when the stream is kept full,
//! and how long one takes there and back when there is no other.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "benchmarks measure real time")]

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cribwork_benches::{Host, Loopback, system};
use cribwork_transport::{Class, Message, MessageHandler, SendError, Transport};
use cribwork_types::{RangeId, ReplicaId, Runtime, RuntimeExt, StoreId};
use criterion::Throughput;
use tokio::sync::Semaphore;

const LEFT: StoreId = StoreId(1);
const RIGHT: StoreId = StoreId(2);
const PAYLOAD: &[u8] = &[b'p'; 128];
/// Messages sent before the link's task gets its turn, as if so many groups had work at a time.
const BURST: u64 = 64;
/// Messages on a broken stream are lost, and then no answer comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Counts what arrives; sends it back if it was told how.
struct Inbox {
    arrived: Semaphore,
    echo: OnceLock<Transport>,
}

impl MessageHandler for Inbox {
    fn on_message(&self, from: StoreId, message: Message) {
        match self.echo.get() {
            Some(transport) => transport.send(from, Class::Data, message).expect("there is room"),
            None => self.arrived.add_permits(1),
        }
    }
}

/// One of the two stores.
struct Peer {
    host: Host,
    inbox: Arc<Inbox>,
    transport: Transport,
}

impl Peer {
    fn start(store: StoreId, loopback: &mut Loopback) -> Self {
        let host = Host::start();
        let inbox = Arc::new(Inbox { arrived: Semaphore::new(0), echo: OnceLock::new() });
        let transport = loopback.start(store, &host, inbox.clone());
        Self { host, inbox, transport }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.transport.shutdown();
    }
}

fn pair() -> (Peer, Peer) {
    let mut loopback = Loopback::bind(&[LEFT, RIGHT]);
    (Peer::start(LEFT, &mut loopback), Peer::start(RIGHT, &mut loopback))
}

fn main() {
    system("transport", |group| {
        group.throughput(Throughput::Elements(1));
        let (left, right) = pair();
        group.bench_function("one_way", |bencher| {
            bencher.iter_custom(|messages| {
                let sent = send_all(left.transport.clone(), right.inbox.clone(), messages);
                left.host.run(limited(left.host.runtime(), sent))
            });
        });
        let (left, right) = pair();
        assert!(right.inbox.echo.set(right.transport.clone()).is_ok(), "set once");
        group.bench_function("round_trip", |bencher| {
            bencher.iter_custom(|trips| {
                let answered = ask_all(left.transport.clone(), left.inbox.clone(), trips);
                left.host.run(limited(left.host.runtime(), answered))
            });
        });
    });
}

async fn limited<T>(runtime: Arc<dyn Runtime>, work: impl Future<Output = T> + Send) -> T {
    runtime.timeout(PATIENCE, work).await.expect("no message is lost")
}

/// Sends `count` messages, as many at once as the link takes; the time until all have arrived.
async fn send_all(transport: Transport, inbox: Arc<Inbox>, count: u64) -> Duration {
    let start = Instant::now();
    for number in 1..=count {
        while let Err(error) = transport.send(RIGHT, Class::Data, message(number)) {
            assert!(matches!(error, SendError::Full { .. }), "{error}");
            tokio::task::yield_now().await;
        }
        if number.is_multiple_of(BURST) {
            tokio::task::yield_now().await;
        }
    }
    take(&inbox, count).await;
    start.elapsed()
}

/// Sends `count` messages, each once the answer to the one before is here.
async fn ask_all(transport: Transport, inbox: Arc<Inbox>, count: u64) -> Duration {
    let start = Instant::now();
    for number in 1..=count {
        transport.send(RIGHT, Class::Data, message(number)).expect("nothing else is queued");
        take(&inbox, 1).await;
    }
    start.elapsed()
}

/// Waits for `count` messages.
async fn take(inbox: &Inbox, count: u64) {
    let count = u32::try_from(count).expect("a sample has fewer messages");
    inbox.arrived.acquire_many(count).await.expect("it is never closed").forget();
}

fn message(number: u64) -> Message {
    Message {
        range: RangeId(number % BURST + 1),
        from: ReplicaId(1),
        to: ReplicaId(2),
        kind: 1,
        call: number,
        payload: Bytes::from_static(PAYLOAD),
    }
}
