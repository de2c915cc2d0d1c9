//! Free ports, and the smallest HTTP client that tests need.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Ports are taken from below those that the system gives to outgoing connections (32768 and up on
/// Linux): a node's port must not be taken, while the node is down, by somebody who dials it.
const FIRST_PORT: u32 = 21_000;
const PORTS: u32 = 11_000;
/// How long an HTTP request may take.
const HTTP_TIMEOUT: Duration = Duration::from_secs(2);

/// An address of 127.0.0.1 that was free a moment ago and that this process has not given before.
///
/// # Panics
/// If no port is free.
pub fn free_address() -> String {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    for _ in 0..PORTS {
        // Test processes that run at the same time begin at different places.
        let offset = std::process::id() * 37 + TRIED.fetch_add(1, Ordering::Relaxed);
        let address = format!("127.0.0.1:{}", FIRST_PORT + offset % PORTS);
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
    panic!("no free port between {FIRST_PORT} and {}", FIRST_PORT + PORTS)
}

/// Fetches `path` from an HTTP port: status and body.
///
/// # Errors
/// In words, if nobody answers.
pub fn http_get(address: &str, path: &str) -> Result<(u16, String), String> {
    let ask = || -> std::io::Result<String> {
        let address: SocketAddr = address.parse().map_err(std::io::Error::other)?;
        let mut stream = TcpStream::connect_timeout(&address, HTTP_TIMEOUT)?;
        stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| format!("http://{address}{path}: {error}"))?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status.zip(body).ok_or_else(|| format!("http://{address}{path}: no HTTP: {answer:?}"))
}
