//! Clients that mean harm, each in its own way, while one that behaves works on. Whatever they do, memory
//! stays within a bound, every operation of the good client succeeds in time, and the node serves
//! afterwards.

mod good;
mod http2;
mod raw;

use bytes::Bytes;
use cribwork_tests::{Memory, wait_until};
use cribwork_types::limits::MESSAGE_BYTES_MAX;
use tonic::Code;

use self::good::GoodClient;
use self::http2::{
    CONTINUATION, Connection, DATA, END_HEADERS, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS,
    call, field, frame, prefix,
};
use super::{ANSWER_LIMIT, Wire};

/// How much more memory than before the node may ever have had.
const GROWTH_MAX: u64 = 64 << 20;
/// Connections that are opened and left alone, on each port: far more than a node keeps.
const CONNECTIONS: usize = 3_000;
/// Fewer say nothing about a bound: this process has too few file descriptors for the test.
const CONNECTIONS_MIN: usize = 1_500;

/// What one attack needs.
struct Scene {
    wire: Wire,
    grpc: String,
    http: String,
    before: Memory,
    good: GoodClient,
}

impl Scene {
    fn new() -> Self {
        let mut wire = Wire::start(1, 1);
        // What a node needs once to serve at all is no growth.
        for number in 0..50 {
            wire.put_and_get(format!("warm/{number}").as_bytes(), &[7; 10_000]);
        }
        let flags = wire.cluster.node(0).flags().clone();
        let before = wire.cluster.node(0).memory();
        let good = GoodClient::start(&flags.listen, wire.context(b"good"));
        Self { grpc: flags.listen, http: flags.http, before, good, wire }
    }

    /// To be called while the attack lasts: the good client meets it, and memory is looked at.
    #[track_caller]
    fn holds(&mut self, attack: &str) {
        self.good.goes_on(attack);
        let now = self.wire.cluster.node(0).memory();
        let growth = now.peak.saturating_sub(self.before.peak.max(self.before.resident));
        println!(
            "{attack}: resident {} KiB, peak grew by {} KiB",
            now.resident >> 10,
            growth >> 10
        );
        assert!(growth <= GROWTH_MAX, "{attack}: memory grew by {growth} bytes");
        assert!(!self.good.has_failed(), "{attack}: the good client failed");
    }

    /// After the last attack.
    #[track_caller]
    fn ends(mut self, attack: &str) {
        self.holds(attack);
        let (operations, slowest) = self.good.finish();
        println!("{attack}: {operations} operations, the slowest took {slowest:?}");
        self.wire.lives();
    }
}

/// As many connections as one gets, up to [`CONNECTIONS`].
fn many(open: impl Fn() -> std::io::Result<Connection>) -> Vec<Connection> {
    let connections: Vec<_> = (0..CONNECTIONS).map_while(|_| open().ok()).collect();
    assert!(connections.len() >= CONNECTIONS_MIN, "only {} connections", connections.len());
    connections
}

#[test]
fn crowds_make_room_for_others() {
    let mut scene = Scene::new();
    let silent = many(|| Connection::silent(&scene.grpc));
    scene.holds("silent connections");
    drop(silent);
    let idle = many(|| Connection::open(&scene.grpc));
    scene.holds("idle connections");
    drop(idle);
    let half = many(|| {
        let mut connection = Connection::silent(&scene.grpc)?;
        connection.send(&PREFACE[..10]);
        Ok(connection)
    });
    scene.holds("half a preface");
    drop(half);
    let headers = [b"GET / HTTP/1.1\r\n".to_vec(), b"X: y\r\n".repeat(2_500)].concat();
    let mut slow = many(|| {
        let mut connection = Connection::silent(&scene.http)?;
        connection.send(&headers);
        Ok(connection)
    });
    scene.holds("headers without end on the HTTP port");
    for byte in b"Y: z\r\n" {
        for connection in &mut slow {
            connection.send(&[*byte]);
        }
        scene.holds("headers that come byte by byte");
    }
    scene.wire.lives();
    drop(slow);
    scene.ends("crowds");
}

#[test]
fn floods_of_frames_harm_nobody() {
    let mut scene = Scene::new();
    let flood = |frames: &[u8], times: usize| {
        let mut connection = Connection::open(&scene.grpc).unwrap();
        let frames = frames.repeat(100);
        (0..times / 100).all(|_| connection.send(&frames));
        connection
    };
    let pings = flood(&frame(PING, 0, 0, &[7; 8]), 200_000);
    let settings = flood(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]), 200_000);
    let empty = flood(&frame(DATA, 0, 1, &[]), 100_000);
    scene.holds("floods of pings, settings and empty frames");
    drop((pings, settings, empty));

    let headers = call("/tikvpb.Tikv/RawGet");
    for _ in 0..4 {
        let mut connection = Connection::open(&scene.grpc).unwrap();
        for stream in (0..20_000).map(|number| 2 * number + 1) {
            let begin = frame(HEADERS, END_HEADERS, stream, &headers);
            let reset = frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
            if !connection.send(&[begin, reset].concat()) {
                break;
            }
        }
    }
    scene.holds("streams opened and reset at once");

    let mut block = call("/tikvpb.Tikv/RawGet");
    block.truncate(block.len().min(16_000));
    let filler = field("x-filler", &"x".repeat(100)).repeat(140);
    let mut endless = Connection::open(&scene.grpc).unwrap();
    endless.send(&frame(HEADERS, 0, 1, &block));
    (0..2_000).all(|_| endless.send(&frame(CONTINUATION, 0, 1, &filler)));
    scene.holds("headers without end");
    drop(endless);

    let huge = |length: [u8; 3]| {
        let mut connection = Connection::open(&scene.grpc).unwrap();
        connection.send(&[&length[..], &[DATA, 0, 0, 0, 0, 1], &[7; 16_000]].concat());
        connection
    };
    let mut refused: Vec<_> = (0..200).map(|_| huge([0xFF; 3])).collect();
    scene.holds("frames of 16 MiB");
    wait_until("the node hangs up", ANSWER_LIMIT, || {
        let open = refused.iter_mut().filter_map(|it| (!it.is_closed()).then_some(())).count();
        if open == 0 { Ok(()) } else { Err(format!("{open} are open")) }
    });
    scene.ends("floods of frames");
}

#[test]
fn requests_that_never_end_are_bounded() {
    let mut scene = Scene::new();
    let headers = call("/tikvpb.Tikv/RawPut");
    let streams = |count: u32| (0..count).map(|number| 2 * number + 1);

    let mut open: Vec<Connection> = Vec::new();
    for _ in 0..8 {
        let mut connection = Connection::open(&scene.grpc).unwrap();
        streams(4_000)
            .all(|stream| connection.send(&frame(HEADERS, END_HEADERS, stream, &headers)));
        open.push(connection);
    }
    scene.holds("streams that are opened and left alone");
    drop(open);

    // Each within the windows that the node grants: 8 MiB a connection, 160 MiB in all.
    let mut half: Vec<Connection> = Vec::new();
    for _ in 0..20 {
        let mut connection = Connection::open(&scene.grpc).unwrap();
        for stream in streams(8) {
            connection.send(&frame(HEADERS, END_HEADERS, stream, &headers));
            connection.send(&frame(DATA, 0, stream, &prefix(MESSAGE_BYTES_MAX as u32)));
            let part = frame(DATA, 0, stream, &[7; 16_384]);
            (0..64).all(|_| connection.send(&part));
        }
        half.push(connection);
    }
    scene.holds("halves of large messages");
    for _ in 0..3 {
        for connection in &mut half {
            streams(8).all(|stream| connection.send(&frame(DATA, 0, stream, &[7])));
        }
        scene.holds("bodies that come byte by byte");
    }
    drop(half);

    let mut announced: Vec<Connection> = Vec::new();
    for _ in 0..20 {
        let mut connection = Connection::open(&scene.grpc).unwrap();
        for (stream, length) in streams(100).zip([u32::MAX, MESSAGE_BYTES_MAX as u32].repeat(50)) {
            connection.send(&frame(HEADERS, END_HEADERS, stream, &headers));
            connection.send(&frame(DATA, 0, stream, &prefix(length)));
        }
        announced.push(connection);
    }
    scene.holds("messages that are announced and do not come");
    scene.ends("requests that never end");
}

/// The tag of a repeated field and the length zero, as often as fits into a message.
fn elements(tag: u8) -> Bytes {
    Bytes::from([tag, 0].repeat(MESSAGE_BYTES_MAX / 2 - 8))
}

#[test]
fn messages_that_would_grow_are_refused() {
    let mut scene = Scene::new();
    let channel = scene.wire.channel(&scene.grpc);
    for (path, tag) in [
        ("/tikvpb.Tikv/BatchCommands", 0x0A),
        ("/tikvpb.Tikv/BatchCommands", 0x12),
        ("/tikvpb.Tikv/RawBatchPut", 0x12),
        ("/tikvpb.Tikv/RawBatchGet", 0x12),
        ("/tikvpb.Tikv/KvPrewrite", 0x12),
        ("/pdpb.PD/BatchScanRegions", 0x1A),
    ] {
        let answer = scene.wire.ask(raw::call(channel.clone(), path, elements(tag), &[]));
        // A stream of batches ends without a word; anything else says why.
        if let Err(status) = &answer {
            assert_eq!(status.code(), Code::OutOfRange, "{path}: {status}");
        } else {
            assert!(path.ends_with("BatchCommands"), "{path}: {answer:?}");
        }
        scene.holds(path);
    }
    scene.ends("messages of many elements");
}

#[test]
fn strangers_among_the_peers_are_refused() {
    let mut scene = Scene::new();
    let channel = scene.wire.channel(&scene.grpc);
    let path = "/cribwork.peer.Peer/Deliver";
    let hello = |cluster: u64, from: u64, to: u64| {
        [
            ("cribwork-protocol", cribwork_transport::PROTOCOL_VERSION),
            ("cribwork-cluster", cluster),
            ("cribwork-from", from),
            ("cribwork-to", to),
            ("cribwork-incarnation", 7),
            ("cribwork-attempt", 1),
        ]
        .map(|(key, value)| (key, value.to_string()))
    };
    let ours = scene.wire.cluster_id;
    for (cluster, from, to) in [(ours ^ 1, 77, 1), (ours, 77, 2), (ours, 1, 1)] {
        let hello = hello(cluster, from, to);
        let answer = scene.wire.ask(raw::call(channel.clone(), path, Bytes::new(), &hello));
        assert_eq!(answer.unwrap_err().code(), Code::FailedPrecondition);
    }
    let answer = scene.wire.ask(raw::call(channel.clone(), path, Bytes::new(), &[]));
    assert_eq!(answer.unwrap_err().code(), Code::FailedPrecondition, "no handshake at all");

    // From here on it passes for a store of the cluster that nobody knows.
    let stranger = hello(ours, 77, 1);
    let oversized = Bytes::from(vec![0; cribwork_transport::FRAME_BYTES_MAX + 1]);
    for message in
        [oversized, elements(0x12), Bytes::from_static(&[8, 2]), Bytes::from_static(b"x")]
    {
        let answer = scene.wire.ask(raw::call(channel.clone(), path, message, &stranger));
        // The stream ends, with a reason or without: nobody is there who could mend anything.
        assert!(!matches!(answer, Ok(Some(_))), "no such frame is acknowledged: {answer:?}");
        scene.holds("frames that no peer sends");
    }
    scene.ends("strangers among the peers");
}
