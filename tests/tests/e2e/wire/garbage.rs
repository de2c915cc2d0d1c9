//! Bytes that are no requests at all, on both ports, and streams that break their own rules.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use cribwork_proto::tikvpb::batch_commands_request::{Request, request::Cmd};
use cribwork_proto::tikvpb::{BatchCommandsEmptyRequest, BatchCommandsRequest};
use tokio_stream::StreamExt;

use super::Wire;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Connections that are opened and left alone.
const SILENT: usize = 200;

/// Bytes that look random.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn inputs() -> Vec<Vec<u8>> {
    let after_preface = |bytes: &[u8]| [PREFACE, bytes].concat();
    let mut inputs: Vec<Vec<u8>> = (0..20).map(|seed| noise(seed, 4096)).collect();
    inputs.extend((0..20).map(|seed| after_preface(&noise(seed, 4096))));
    inputs.extend([
        Vec::new(),
        vec![0; 1 << 20],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"POST /tikvpb.Tikv/RawGet HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n"
            .to_vec(),
        [b"GET /".to_vec(), vec![b'a'; 1 << 20], b" HTTP/1.1\r\n\r\n".to_vec()].concat(),
        [b"GET / HTTP/1.1\r\n".to_vec(), b"X: y\r\n".repeat(100_000), b"\r\n".to_vec()].concat(),
        // The beginning of TLS.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        PREFACE[..10].to_vec(),
        // A frame of 16 MiB, settings of an odd length, a window that overflows, data nobody opened.
        after_preface(b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"),
        after_preface(b"\x00\x00\x05\x04\x00\x00\x00\x00\x00hello"),
        after_preface(b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x7f\xff\xff\xff"),
        after_preface(b"\x00\x00\x05\x00\x01\x00\x00\x00\x07hello"),
    ]);
    inputs
}

/// Sends bytes and reads what comes back, until either side has had enough.
fn send(address: &str, input: &[u8]) {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    // The node may hang up in the middle, and rightly so.
    if stream.write_all(input).is_ok() {
        let mut answer = [0; 4096];
        while matches!(stream.read(&mut answer), Ok(1..)) {}
    }
}

#[test]
fn garbage_on_the_ports_disturbs_nobody() {
    let mut wire = Wire::start(1, 1);
    let flags = wire.cluster.node(0).flags().clone();
    for address in [&flags.listen, &flags.http] {
        for input in inputs() {
            send(address, &input);
        }
        wire.lives();
    }
    for (path, status) in
        [("/", 200), ("/absent", 404), ("/metrics", 200), ("/../../etc/passwd", 404)]
    {
        let answer = cribwork_tests::http_get(&flags.http, path).unwrap();
        assert_eq!(answer.0, status, "{path}");
    }
    let silent: Vec<TcpStream> = (0..SILENT)
        .map(|number| {
            let address = if number % 2 == 0 { &flags.listen } else { &flags.http };
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&PREFACE[..number % PREFACE.len()]).unwrap();
            stream
        })
        .collect();
    wire.lives();
    drop(silent);
    wire.lives();
}

#[test]
fn streams_of_nonsense_disturb_nobody() {
    let mut wire = Wire::start(1, 1);
    let empty = |test_id: u64| Request {
        cmd: Some(Cmd::Empty(BatchCommandsEmptyRequest { test_id, ..Default::default() })),
    };
    let batches = [
        // More ids than requests, more requests than ids, requests without a command.
        BatchCommandsRequest { requests: vec![empty(1)], request_ids: vec![1, 2, 3] },
        BatchCommandsRequest { requests: vec![empty(1), empty(2)], request_ids: vec![1] },
        BatchCommandsRequest {
            requests: vec![Request { cmd: None }; 3],
            request_ids: vec![1, 2, 3],
        },
        BatchCommandsRequest { requests: vec![empty(1), empty(1)], request_ids: vec![7, 7] },
    ];
    for batch in batches {
        let words = format!("{batch:?}");
        let answers = wire.ask(async {
            let stream = wire.tikv(1).batch_commands(tokio_stream::iter([batch])).await?;
            stream.into_inner().collect::<Result<Vec<_>, _>>().await
        });
        match answers {
            Err(status) => assert!(!status.message().is_empty(), "{words}: {status:?}"),
            Ok(answers) => {
                for answer in answers {
                    assert_eq!(answer.responses.len(), answer.request_ids.len(), "{words}");
                }
            }
        }
        wire.lives();
    }
    let many = BatchCommandsRequest {
        requests: (0..10_000).map(empty).collect(),
        request_ids: (0..10_000).collect(),
    };
    let answers = wire.ask(async {
        let stream = wire.tikv(1).batch_commands(tokio_stream::iter([many])).await.unwrap();
        stream.into_inner().collect::<Result<Vec<_>, _>>().await.unwrap()
    });
    let mut ids: Vec<_> = answers.into_iter().flat_map(|answer| answer.request_ids).collect();
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..10_000), "each is answered once, served or refused");
    wire.lives();
}
