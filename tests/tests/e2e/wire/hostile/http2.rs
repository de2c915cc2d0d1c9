//! HTTP/2 by hand, to break its rules.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How a client of HTTP/2 begins.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longer writes mean that the node reads no more, which is its right.
const WRITE_LIMIT: Duration = Duration::from_secs(2);

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_HEADERS: u8 = 4;

/// One frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header field that enters no table.
pub(super) fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        let length = text.len();
        assert!(length < 127, "one byte of length");
        [&[length as u8], text.as_bytes()].concat()
    };
    [vec![0], text(name), text(value)].concat()
}

/// The headers of a gRPC call of `path`.
pub(super) fn call(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "hostile"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    fields.into_iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// The prefix of a gRPC message.
pub(super) fn prefix(length: u32) -> Vec<u8> {
    [&[0][..], &length.to_be_bytes()].concat()
}

/// A connection.
pub(super) struct Connection(TcpStream);

impl Connection {
    /// Opens one and says nothing.
    pub(super) fn silent(address: &str) -> std::io::Result<Self> {
        let address: SocketAddr = address.parse().unwrap();
        let stream = TcpStream::connect_timeout(&address, WRITE_LIMIT)?;
        stream.set_write_timeout(Some(WRITE_LIMIT))?;
        stream.set_read_timeout(Some(WRITE_LIMIT))?;
        Ok(Self(stream))
    }

    /// Opens one and begins as every client does.
    pub(super) fn open(address: &str) -> std::io::Result<Self> {
        let mut connection = Self::silent(address)?;
        connection.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
        Ok(connection)
    }

    /// Sends; false if the node has hung up or reads no more.
    pub(super) fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// Whether the node has ended the connection: what it has sent so far is read.
    pub(super) fn is_closed(&mut self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        let closed = loop {
            match self.0.read(&mut buffer) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() != std::io::ErrorKind::WouldBlock,
            }
        };
        self.0.set_nonblocking(false).unwrap();
        closed
    }
}
