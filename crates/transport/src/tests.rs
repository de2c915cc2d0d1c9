//! Transports that talk to each other over TCP on loopback.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cribwork_proto::cribwork::peer::peer_client::PeerClient;
use cribwork_proto::cribwork::peer::peer_server::{Peer, PeerServer};
use cribwork_proto::cribwork::peer::{Ack, Frame, PeerMessage};
use cribwork_types::limits::MESSAGE_BYTES_MAX;
use cribwork_types::{BoxFuture, ClusterId, StoreId};
use futures::stream;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

use self::support::{Book, CLUSTER, Gate, Node, message};
use crate::handshake::Hello;
use crate::{
    BULK_BYTES_MAX, Class, Connector, LaneLimit, SendError, TcpConnector, TransportError,
    TransportOptions,
};

const ONE: StoreId = StoreId(1);
const TWO: StoreId = StoreId(2);

/// Tries that outlast any test, for connections that a gate holds up.
fn patient() -> TransportOptions {
    TransportOptions { connect_timeout: Duration::from_secs(60), ..TransportOptions::default() }
}

fn gated(book: &Arc<Book>, options: TransportOptions) -> (Node, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let connector = Arc::new(Gate(Arc::clone(&gate)));
    (Node::with(1, CLUSTER, book, connector, options), gate)
}

fn calls(log: &support::Log) -> Vec<u64> {
    log.messages.iter().map(|(_, message)| message.call).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_order_per_range_and_class_under_load() {
    const RANGES: u64 = 8;
    const EACH: u64 = 2000;
    let book = Arc::new(Book::default());
    let (a, b) = (Node::new(1, &book), Node::listening(2, &book).await);
    for call in 0..EACH {
        for range in 0..RANGES {
            let class = if range % 2 == 0 { Class::Data } else { Class::Control };
            let message = message(range, call, (call % 50) as usize * 40);
            while let Err(error) = a.transport.send(TWO, class, message.clone()) {
                assert!(matches!(error, SendError::Full { .. }), "{error}");
                tokio::task::yield_now().await;
            }
        }
    }
    let log = b.until("all arrived", |log| log.messages.len() as u64 == RANGES * EACH).await;
    for range in 0..RANGES {
        let of_range = log.messages.iter().filter(|(_, message)| message.range.get() == range);
        assert!(of_range.map(|(_, message)| message.call).eq(0..EACH), "range {range}");
    }
    assert!(log.messages.iter().all(|(from, _)| *from == ONE));
    drop(log);
    a.poll_until("all acknowledged", || a.metrics.frames_in_flight.get() == 0).await;
    assert!(a.metrics.queue_depth.iter().all(|depth| depth.get() == 0));
    assert_eq!(b.metrics.frames_received.get(), a.metrics.frames_sent.get());
}

#[tokio::test]
async fn a_burst_shares_frames() {
    let book = Arc::new(Book::default());
    let (a, b) = (Node::new(1, &book), Node::listening(2, &book).await);
    a.transport.connect(TWO).unwrap();
    a.until("connected", |log| log.connects == 1).await;
    for call in 0..1000 {
        a.transport.send(TWO, Class::Data, message(call % 9, call, 100)).unwrap();
    }
    b.until("all arrived", |log| log.messages.len() == 1000).await;
    let sent: u64 = a.metrics.messages_sent.iter().map(|counter| counter.get()).sum();
    let frames = a.metrics.frames_sent.get();
    assert_eq!((sent, b.metrics.messages_received.get()), (1000, 1000));
    assert!(frames * 100 <= sent, "{sent} messages in {frames} frames");
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &a.registry).unwrap();
    assert!(text.contains("cribwork_transport_messages_sent_total{class=\"data\"} 1000"), "{text}");
}

#[tokio::test]
async fn control_overtakes_data_and_bulk_that_wait() {
    let book = Arc::new(Book::default());
    let ((a, gate), b) = (gated(&book, patient()), Node::listening(2, &book).await);
    for call in 100..108 {
        a.transport.send(TWO, Class::Bulk, message(1, call, BULK_BYTES_MAX)).unwrap();
    }
    a.transport.send(TWO, Class::Data, message(1, 10, 9)).unwrap();
    a.transport.send(TWO, Class::Control, message(1, 1, 9)).unwrap();
    gate.add_permits(1);
    let log = b.until("all arrived", |log| log.messages.len() == 10).await;
    assert_eq!(calls(&log), [1, 10, 100, 101, 102, 103, 104, 105, 106, 107]);
}

#[tokio::test]
async fn a_full_lane_is_a_typed_error_and_other_lanes_stay_open() {
    let book = Arc::new(Book::default());
    let mut options = patient();
    options.lanes[Class::Data as usize] = LaneLimit { messages_max: 2, bytes_max: 1000 };
    let ((a, gate), b) = (gated(&book, options), Node::listening(2, &book).await);
    a.transport.send(TWO, Class::Data, message(1, 1, 0)).unwrap();
    a.transport.send(TWO, Class::Data, message(1, 2, 0)).unwrap();
    let full = a.transport.send(TWO, Class::Data, message(1, 3, 0));
    assert_eq!(full, Err(SendError::Full { store: TWO, class: "data" }));
    assert_eq!(a.metrics.drops("CW-TRANSPORT-FULL"), 1);
    a.transport.send(TWO, Class::Control, message(1, 4, 0)).unwrap();
    gate.add_permits(1);
    let log = b.until("the rest arrived", |log| log.messages.len() == 3).await;
    assert_eq!(calls(&log), [4, 1, 2]);
}

#[tokio::test]
async fn refuses_what_it_cannot_send() {
    let book = Arc::new(Book::default());
    let (a, b) = (Node::listening(1, &book).await, Node::listening(2, &book).await);
    let send = |to, class, bytes| a.transport.send(StoreId(to), class, message(1, 1, bytes));
    let too_large =
        |class: Class, max| SendError::TooLarge { class: class.name(), bytes: max + 1, max };
    assert_eq!(send(9, Class::Data, 1), Err(SendError::UnknownStore { store: StoreId(9) }));
    assert_eq!(send(1, Class::Data, 1), Err(SendError::UnknownStore { store: ONE }));
    assert_eq!(
        send(2, Class::Data, MESSAGE_BYTES_MAX + 1),
        Err(too_large(Class::Data, MESSAGE_BYTES_MAX))
    );
    assert_eq!(
        send(2, Class::Bulk, BULK_BYTES_MAX + 1),
        Err(too_large(Class::Bulk, BULK_BYTES_MAX))
    );
    // The largest frame that can come about, over the decoder's and every window's default.
    send(2, Class::Data, MESSAGE_BYTES_MAX).unwrap();
    send(2, Class::Bulk, BULK_BYTES_MAX).unwrap();
    b.until("the largest arrived", |log| log.messages.len() == 2).await;
    assert_eq!(b.metrics.frames_received.get(), 1);
}

#[tokio::test]
async fn another_cluster_is_refused() {
    let book = Arc::new(Book::default());
    let b = Node::listening(2, &book).await;
    let foreign =
        Node::with(1, ClusterId(1), &book, Arc::new(TcpConnector), TransportOptions::default());
    foreign.transport.send(TWO, Class::Control, message(1, 1, 1)).unwrap();
    foreign.until("refused", |log| log.disconnects >= 1).await;
    assert!(foreign.metrics.failures("CW-TRANSPORT-REFUSED") >= 1);
    assert!(b.metrics.refusals("cluster") >= 1);
    assert!(b.recorder.0.borrow().messages.is_empty());
}

#[tokio::test]
async fn a_stream_meant_for_another_store_is_refused_until_the_address_is_right() {
    let book = Arc::new(Book::default());
    let (wrong, right) = (Node::new(3, &book), Node::new(2, &book));
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    book.set(2, wrong.listen(any).await);
    let a = Node::new(1, &book);
    a.transport.send(TWO, Class::Data, message(1, 1, 1)).unwrap();
    a.until("refused", |log| log.disconnects >= 1).await;
    assert!(wrong.metrics.refusals("store") >= 1);

    book.set(2, right.listen(any).await);
    a.until("connected", |log| log.connects == 1).await;
    a.transport.send(TWO, Class::Data, message(1, 2, 1)).unwrap();
    let log = right.until("arrived", |log| !log.messages.is_empty()).await;
    assert_eq!(calls(&log), [2]);
    assert!(wrong.recorder.0.borrow().messages.is_empty());
}

/// A tokio runtime whose end closes every socket in it, like the end of a process.
fn process() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[tokio::test]
async fn reconnects_to_a_peer_that_restarts() {
    let book = Arc::new(Book::default());
    let a = Node::new(1, &book);
    let mut address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    for life in 1..=3 {
        let (process, inner) = (process(), Arc::clone(&book));
        let start = async move {
            let node = Node::new(2, &inner);
            (node.listen(address).await, node)
        };
        let (bound, b) = process.spawn(start).await.unwrap();
        address = bound;
        book.set(2, address);
        a.transport.connect(TWO).unwrap();
        a.until("connected", |log| log.connects == life).await;
        let call = life as u64;
        a.transport.send(TWO, Class::Data, message(1, call, 10)).unwrap();
        let log = b.until("arrived", |log| !log.messages.is_empty()).await;
        assert_eq!(calls(&log), [call]);
        drop(log);
        let before = a.recorder.0.borrow().disconnects;
        process.shutdown_background();
        a.until("disconnected", |log| log.disconnects > before).await;
    }
    assert_eq!((a.metrics.streams_opened.get(), a.metrics.reconnects.get()), (3, 2));
    assert_eq!(a.metrics.frames_in_flight.get(), 0);
}

/// What SIGSTOP and SIGCONT do: connections are accepted by the kernel, and nobody answers.
#[tokio::test]
async fn a_peer_that_hangs_is_left_and_found_again_when_it_returns() {
    let book = Arc::new(Book::default());
    let (process, inner) = (process(), Arc::clone(&book));
    let b = process.spawn(async move { Node::listening(2, &inner).await }).await.unwrap();
    let limit = Duration::from_millis(100);
    let options = TransportOptions {
        stall_limit: limit,
        handshake_timeout: limit,
        ..TransportOptions::default()
    };
    let a = Node::with(1, CLUSTER, &book, Arc::new(TcpConnector), options);
    a.transport.connect(TWO).unwrap();
    a.until("connected", |log| log.connects == 1).await;

    let (resume, stopped) = std::sync::mpsc::sync_channel::<()>(1);
    let (asleep, is_asleep) = tokio::sync::oneshot::channel();
    process.spawn(async move {
        asleep.send(()).unwrap();
        stopped.recv().unwrap();
    });
    is_asleep.await.unwrap();
    a.transport.send(TWO, Class::Data, message(1, 1, 1)).unwrap();
    a.until("several attempts failed", |log| log.disconnects >= 4).await;
    assert!(a.metrics.failures("CW-TRANSPORT-STALLED") >= 4);
    assert_eq!(a.recorder.0.borrow().connects, 1);

    resume.send(()).unwrap();
    a.until("connected again", |log| log.connects >= 2).await;
    a.transport.send(TWO, Class::Data, message(1, 2, 1)).unwrap();
    let log = b.until("arrived", |log| calls(log).contains(&2)).await;
    assert!(log.messages.iter().map(|(_, message)| message.call).is_sorted());
    drop(log);
    process.shutdown_background();
}

#[tokio::test]
async fn a_stream_from_the_peer_ends_the_pause() {
    let book = Arc::new(Book::default());
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    book.set(2, unused);
    let pause = Duration::from_secs(3600);
    let options = TransportOptions { backoff_min: pause, backoff_max: pause, ..patient() };
    let a = Node::with(1, CLUSTER, &book, Arc::new(TcpConnector), options);
    book.set(1, a.listen("127.0.0.1:0".parse().unwrap()).await);
    a.transport.send(TWO, Class::Data, message(1, 1, 1)).unwrap();
    a.until("the first attempt failed", |log| log.disconnects == 1).await;

    let b = Node::listening(2, &book).await;
    b.transport.send(ONE, Class::Data, message(1, 2, 1)).unwrap();
    a.until("connected", |log| log.connects == 1).await;
    assert_eq!(a.metrics.drops("disconnected"), 1);
}

#[tokio::test]
async fn a_peer_that_accepts_and_says_nothing_is_left_for_one_that_answers() {
    let book = Arc::new(Book::default());
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    book.set(2, mute.local_addr().unwrap());
    let options = TransportOptions {
        handshake_timeout: Duration::from_millis(50),
        ..TransportOptions::default()
    };
    let a = Node::with(1, CLUSTER, &book, Arc::new(TcpConnector), options);
    a.transport.connect(TWO).unwrap();
    a.until("the handshake timed out", |log| log.disconnects >= 1).await;
    assert!(a.metrics.failures("CW-TRANSPORT-STALLED") >= 1);
    Node::listening(2, &book).await;
    a.until("connected", |log| log.connects == 1).await;
}

/// Accepts every stream and answers with the given acks, then nothing.
struct Scripted(Vec<u64>);

#[tonic::async_trait]
impl Peer for Scripted {
    type DeliverStream = stream::Chain<
        stream::Iter<std::vec::IntoIter<Result<Ack, Status>>>,
        stream::Pending<Result<Ack, Status>>,
    >;

    async fn deliver(
        &self,
        _request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let acks: Vec<_> = self.0.iter().map(|&sequence| Ok(Ack { sequence })).collect();
        Ok(Response::new(futures::StreamExt::chain(stream::iter(acks), stream::pending())))
    }
}

async fn scripted(book: &Book, acks: Vec<u64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    book.set(2, listener.local_addr().unwrap());
    let router = Server::builder().add_service(PeerServer::new(Scripted(acks)));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
}

#[tokio::test]
async fn a_peer_that_stops_acknowledging_is_given_up() {
    let book = Arc::new(Book::default());
    scripted(&book, vec![]).await;
    let options =
        TransportOptions { stall_limit: Duration::from_millis(60), ..TransportOptions::default() };
    let a = Node::with(1, CLUSTER, &book, Arc::new(TcpConnector), options);
    a.transport.send(TWO, Class::Data, message(1, 1, 1)).unwrap();
    a.until("given up", |log| log.disconnects >= 1).await;
    assert!(a.metrics.failures("CW-TRANSPORT-STALLED") >= 1);
    assert!(a.recorder.0.borrow().connects >= 1);
}

#[tokio::test]
async fn an_ack_for_a_frame_never_sent_ends_the_stream() {
    let book = Arc::new(Book::default());
    scripted(&book, vec![1]).await;
    let a = Node::new(1, &book);
    a.transport.connect(TWO).unwrap();
    a.until("given up", |log| log.disconnects >= 1).await;
    assert!(a.metrics.failures("CW-TRANSPORT-PROTOCOL") >= 1);
}

#[tokio::test]
async fn a_silent_peer_fills_the_window_and_control_passes_it() {
    let book = Arc::new(Book::default());
    scripted(&book, vec![]).await;
    let options = TransportOptions { window_frames_max: 2, ..TransportOptions::default() };
    let a = Node::with(1, CLUSTER, &book, Arc::new(TcpConnector), options);
    a.transport.connect(TWO).unwrap();
    a.until("connected", |log| log.connects == 1).await;
    for call in 0..8 {
        a.transport.send(TWO, Class::Data, message(1, call, 512 * 1024)).unwrap();
    }
    a.poll_until("the window is full", || a.metrics.frames_in_flight.get() == 2).await;
    a.transport.send(TWO, Class::Control, message(1, 9, 1)).unwrap();
    a.poll_until("control is under way", || a.metrics.frames_in_flight.get() == 3).await;
    assert_eq!(a.metrics.queue_depth[Class::Data as usize].get(), 6);
    assert_eq!(a.metrics.queue_depth[Class::Control as usize].get(), 0);
}

/// Opens a stream by hand and sends `frames`; answers how the stream ended.
async fn send_by_hand(address: &str, attempt: u64, frames: Vec<Frame>) -> Result<Vec<u64>, Status> {
    let mut client = PeerClient::new(TcpConnector.connect(address).await.unwrap());
    let mut request = Request::new(stream::iter(frames));
    let hello =
        Hello { protocol: 1, cluster: CLUSTER, from: ONE, to: TWO, incarnation: 1, attempt };
    hello.write(request.metadata_mut());
    let mut acks = client.deliver(request).await?.into_inner();
    let mut seen = Vec::new();
    while let Some(ack) = acks.message().await? {
        seen.push(ack.sequence);
    }
    Ok(seen)
}

#[tokio::test]
async fn garbage_closes_its_own_stream_and_hurts_nobody() {
    let book = Arc::new(Book::default());
    let (a, b) = (Node::new(1, &book), Node::listening(2, &book).await);
    let address = crate::AddressResolver::address(&*book, TWO).unwrap();
    for noise in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xFF; 4096], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0"]
    {
        let mut socket = TcpStream::connect(&address).await.unwrap();
        socket.write_all(noise).await.unwrap();
    }
    let frame = |sequence, kind| Frame {
        sequence,
        messages: vec![PeerMessage { kind, ..PeerMessage::default() }],
    };
    let bad = [
        vec![frame(2, 1)],
        vec![frame(1, 1), frame(3, 1)],
        vec![frame(1, 256)],
        vec![Frame { sequence: 1, messages: vec![] }],
    ];
    for (attempt, frames) in bad.into_iter().enumerate() {
        let status = send_by_hand(&address, attempt as u64, frames).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    let mut client = PeerClient::new(TcpConnector.connect(&address).await.unwrap());
    let status = client.deliver(stream::pending()).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert_eq!(b.metrics.refusals("malformed"), 1);

    a.transport.send(TWO, Class::Data, message(1, 42, 1)).unwrap();
    b.until("arrived", |log| log.messages.iter().any(|(_, message)| message.call == 42)).await;
}

#[tokio::test]
async fn acknowledges_what_it_handed_over_and_refuses_older_streams() {
    let book = Arc::new(Book::default());
    let b = Node::listening(2, &book).await;
    let address = crate::AddressResolver::address(&*book, TWO).unwrap();
    let mut client = PeerClient::new(TcpConnector.connect(&address).await.unwrap());
    let (frames, receiver) = mpsc::channel(4);
    let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(receiver));
    Hello { protocol: 1, cluster: CLUSTER, from: ONE, to: TWO, incarnation: 1, attempt: 5 }
        .write(request.metadata_mut());
    let mut acks = client.deliver(request).await.unwrap().into_inner();
    for sequence in 1..=3 {
        let messages = vec![PeerMessage { call: sequence, ..PeerMessage::default() }];
        frames.send(Frame { sequence, messages }).await.unwrap();
    }
    let mut acked = 0;
    while acked < 3 {
        let ack = acks.message().await.unwrap().unwrap().sequence;
        assert!(ack > acked && ack <= 3, "{ack} after {acked}");
        acked = ack;
    }
    let log = b.until("arrived", |log| log.messages.len() == 3).await;
    assert_eq!((calls(&log), log.accepts), (vec![1, 2, 3], 1));
    drop(log);

    let older = send_by_hand(&address, 4, vec![]).await.unwrap_err();
    assert_eq!(older.code(), Code::Aborted, "{older}");
    assert_eq!(send_by_hand(&address, 6, vec![]).await.unwrap(), [0; 0]);
    assert_eq!(b.recorder.0.borrow().accepts, 2, "told of each stream that was admitted");
    let ended = acks.message().await.unwrap_err();
    assert_eq!(ended.code(), Code::Aborted, "{ended}");
}

#[tokio::test]
async fn shutdown_ends_every_task_and_stream() {
    let book = Arc::new(Book::default());
    let (a, b) = (Node::listening(1, &book).await, Node::listening(2, &book).await);
    a.transport.send(TWO, Class::Data, message(1, 1, 1)).unwrap();
    b.transport.send(ONE, Class::Data, message(1, 1, 1)).unwrap();
    a.until("both ways", |log| log.connects == 1 && log.messages.len() == 1).await;
    b.until("both ways", |log| log.connects == 1 && log.messages.len() == 1).await;

    a.transport.shutdown();
    a.until("told", |log| log.disconnects == 1).await;
    a.poll_until("no task is left", || *a.runtime.tasks.borrow() == 0).await;
    let send = a.transport.send(TWO, Class::Data, message(1, 2, 1));
    assert_eq!(send, Err(SendError::Shutdown));
    b.until("the stream to a ended", |log| log.disconnects >= 1).await;
    b.poll_until("a takes no new stream", || a.metrics.refusals("stopping") >= 1).await;
}

#[tokio::test]
async fn the_link_to_a_store_that_is_no_longer_known_ends() {
    let book = Arc::new(Book::default());
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    book.set(2, unused);
    let a = Node::new(1, &book);
    a.transport.connect(TWO).unwrap();
    book.remove(2);
    a.poll_until("the task is over", || *a.runtime.tasks.borrow() == 0).await;
    let send = a.transport.send(TWO, Class::Control, message(1, 2, 1));
    assert_eq!(send, Err(SendError::UnknownStore { store: TWO }));
}

/// Connections in memory: a simulator's network plugs in the same way.
struct InMemory(mpsc::Sender<std::io::Result<tokio::io::DuplexStream>>);

impl Connector for InMemory {
    fn connect(&self, _address: &str) -> BoxFuture<Result<Channel, TransportError>> {
        let accept = self.0.clone();
        let open = tower::service_fn(move |_| {
            let accept = accept.clone();
            async move {
                let (ours, theirs) = tokio::io::duplex(64 * 1024);
                accept.send(Ok(theirs)).await.map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(ours))
            }
        });
        Box::pin(async move {
            let endpoint = Endpoint::from_static("http://memory");
            endpoint.connect_with_connector(open).await.map_err(|error| {
                TransportError::Unreachable { address: "memory".into(), why: error.to_string() }
            })
        })
    }
}

#[tokio::test]
async fn runs_over_any_connector() {
    let book = Arc::new(Book::default());
    book.set(2, "127.0.0.1:1".parse().unwrap());
    let (accept, incoming) = mpsc::channel(1);
    let b = Node::new(2, &book);
    let router = Server::builder().add_service(b.transport.service());
    let incoming = tokio_stream::wrappers::ReceiverStream::new(incoming);
    tokio::spawn(router.serve_with_incoming(incoming));
    let a = Node::with(1, CLUSTER, &book, Arc::new(InMemory(accept)), TransportOptions::default());
    a.transport.send(TWO, Class::Data, message(1, 1, 100_000)).unwrap();
    b.until("arrived", |log| log.messages.len() == 1).await;
}
