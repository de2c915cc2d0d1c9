//! A runtime on tokio, a handler that records, and nodes that listen on loopback.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cribwork_types::{BoxFuture, ClusterId, Runtime, RuntimeExt, StoreId};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};

use crate::{
    AddressResolver, Connector, Message, MessageHandler, PeerIdentity, TcpConnector, Transport,
    TransportError, TransportMetrics, TransportOptions, tune_server,
};

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const CLUSTER: ClusterId = ClusterId(77);

/// Clock and tasks of tokio; counts the tasks that it runs.
pub(crate) struct TestRuntime {
    start: Instant,
    random: AtomicU64,
    pub(crate) tasks: watch::Sender<usize>,
}

impl TestRuntime {
    pub(crate) fn new() -> Arc<Self> {
        let (random, tasks) = (AtomicU64::new(1), watch::Sender::new(0));
        Arc::new(Self { start: Instant::now(), random, tasks })
    }
}

impl Runtime for TestRuntime {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        0
    }

    fn random_u64(&self) -> u64 {
        self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed)
    }

    fn spawn(&self, task: BoxFuture<()>) {
        self.tasks.send_modify(|tasks| *tasks += 1);
        let tasks = self.tasks.clone();
        tokio::spawn(async move {
            task.await;
            tasks.send_modify(|tasks| *tasks -= 1);
        });
    }

    fn spawn_worker(&self, _name: &str, worker: BoxFuture<()>) {
        self.spawn(worker);
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// What a handler saw.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) messages: Vec<(StoreId, Message)>,
    pub(crate) connects: usize,
    pub(crate) accepts: usize,
    pub(crate) disconnects: usize,
}

pub(crate) struct Recorder(pub(crate) watch::Sender<Log>);

impl MessageHandler for Recorder {
    fn on_message(&self, from: StoreId, message: Message) {
        self.0.send_modify(|log| log.messages.push((from, message)));
    }

    fn on_connected(&self, _peer: StoreId) {
        self.0.send_modify(|log| log.connects += 1);
    }

    fn on_accepted(&self, _peer: StoreId) {
        self.0.send_modify(|log| log.accepts += 1);
    }

    fn on_disconnected(&self, _peer: StoreId) {
        self.0.send_modify(|log| log.disconnects += 1);
    }
}

/// The addresses of all stores of a test.
#[derive(Default)]
pub(crate) struct Book(Mutex<HashMap<StoreId, String>>);

impl Book {
    pub(crate) fn set(&self, store: u64, address: SocketAddr) {
        self.0.lock().insert(StoreId(store), address.to_string());
    }

    pub(crate) fn remove(&self, store: u64) {
        self.0.lock().remove(&StoreId(store));
    }
}

impl AddressResolver for Book {
    fn address(&self, store: StoreId) -> Option<String> {
        self.0.lock().get(&store).cloned()
    }
}

/// TCP that waits for a permit before each connection.
pub(crate) struct Gate(pub(crate) Arc<Semaphore>);

impl Connector for Gate {
    fn connect(&self, address: &str) -> BoxFuture<Result<Channel, TransportError>> {
        let (gate, address) = (Arc::clone(&self.0), address.to_owned());
        Box::pin(async move {
            gate.acquire().await.unwrap().forget();
            TcpConnector.connect(&address).await
        })
    }
}

/// One store, listening or not.
pub(crate) struct Node {
    pub(crate) transport: Transport,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) runtime: Arc<TestRuntime>,
    pub(crate) metrics: TransportMetrics,
    pub(crate) registry: Registry,
}

impl Node {
    pub(crate) fn new(store: u64, book: &Arc<Book>) -> Self {
        let options = TransportOptions::default();
        Self::with(store, CLUSTER, book, Arc::new(TcpConnector), options)
    }

    pub(crate) fn with(
        store: u64,
        cluster: ClusterId,
        book: &Arc<Book>,
        connector: Arc<dyn Connector>,
        options: TransportOptions,
    ) -> Self {
        let recorder = Arc::new(Recorder(watch::Sender::default()));
        let runtime = TestRuntime::new();
        let mut registry = Registry::default();
        let metrics = TransportMetrics::new(&mut registry);
        let transport = Transport::start(
            PeerIdentity { cluster, store: StoreId(store) },
            Arc::clone(book) as Arc<dyn AddressResolver>,
            Arc::clone(&recorder) as Arc<dyn MessageHandler>,
            connector,
            Arc::clone(&runtime) as Arc<dyn Runtime>,
            options,
            metrics.clone(),
        );
        Self { transport, recorder, runtime, metrics, registry }
    }

    /// A node that listens, entered in the book.
    pub(crate) async fn listening(store: u64, book: &Arc<Book>) -> Self {
        let node = Self::new(store, book);
        book.set(store, node.listen("127.0.0.1:0".parse().unwrap()).await);
        node
    }

    /// Serves until the tokio runtime of the caller ends.
    pub(crate) async fn listen(&self, address: SocketAddr) -> SocketAddr {
        // The process before on this address may take a moment to let go of it.
        let mut listener = None;
        let mut bind = || {
            listener = std::net::TcpListener::bind(address).ok();
            listener.is_some()
        };
        self.poll_until("the address is free", &mut bind).await;
        let listener = listener.unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let address = listener.local_addr().unwrap();
        let router = tune_server(Server::builder()).add_service(self.transport.service());
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }

    /// Waits until the handler has seen enough.
    pub(crate) async fn until(
        &self,
        what: &str,
        enough: impl FnMut(&Log) -> bool + Send,
    ) -> watch::Ref<'_, Log> {
        let mut log = self.recorder.0.subscribe();
        let seen = self.runtime.timeout(PATIENCE, log.wait_for(enough)).await;
        assert!(seen.is_ok(), "waited in vain until {what}");
        drop(seen);
        self.recorder.0.borrow()
    }

    /// Waits until something that tells nobody is true.
    pub(crate) async fn poll_until(&self, what: &str, mut condition: impl FnMut() -> bool + Send) {
        let poll = async {
            while !condition() {
                self.runtime.sleep(Duration::from_millis(1)).await;
            }
        };
        let seen = self.runtime.timeout(PATIENCE, poll).await;
        assert!(seen.is_ok(), "waited in vain until {what}");
    }
}

pub(crate) fn message(range: u64, call: u64, bytes: usize) -> Message {
    Message {
        range: range.into(),
        from: 1.into(),
        to: 2.into(),
        kind: 3,
        call,
        payload: vec![7; bytes].into(),
    }
}
