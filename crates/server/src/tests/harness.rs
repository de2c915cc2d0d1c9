//! Nodes for tests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use cribwork_engine::EngineOptions;

use crate::{Config, Node, NodeOptions, RunningNode, ServerError, tokio_runtime};

/// A node and the threads that run it.
pub(crate) struct TestNode {
    runtime: tokio::runtime::Runtime,
    node: Option<RunningNode>,
}

/// Settings for a small node at `dir`.
pub(crate) fn config(dir: &Path) -> Config {
    Config {
        data_dir: dir.to_owned(),
        listen: "127.0.0.1:0".to_owned(),
        http: "127.0.0.1:0".to_owned(),
        engine: EngineOptions::small().into(),
        ..Config::default()
    }
}

/// Addresses that were free a moment ago, for nodes that must know each other before they start.
pub(crate) fn free_addresses(count: usize) -> Vec<String> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
}

impl TestNode {
    /// Starts a node. The store of an earlier one in this process may still be closing.
    pub(crate) fn start(config: &Config) -> Self {
        let mut started = None;
        eventually("the store of the node before is closed", || match Self::try_start(config) {
            Ok(node) => started.insert(node).node.is_some(),
            Err(ServerError::Engine(cribwork_engine::EngineError::Locked { .. })) => false,
            Err(error) => panic!("{error}"),
        });
        started.unwrap()
    }

    pub(crate) fn try_start(config: &Config) -> Result<Self, ServerError> {
        // Two threads, so that the node runs while the test does not wait for it.
        let runtime = tokio_runtime(2).unwrap();
        let _entered = runtime.enter();
        let options = NodeOptions::new(config.clone());
        let node = Some(runtime.block_on(Node::start(options))?);
        Ok(Self { runtime, node })
    }

    pub(crate) fn node(&self) -> &RunningNode {
        self.node.as_ref().unwrap()
    }

    /// Waits for `future` on the node's runtime, 10 seconds at most.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        let limited = self
            .runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(10), future).await });
        limited.unwrap_or_else(|_| panic!("too slow: {:?}", self.node().readiness()))
    }

    pub(crate) fn init(&self, ranges: u32) -> Result<u32, ServerError> {
        self.wait(self.node().init(ranges)).map(|response| response.ranges)
    }

    pub(crate) fn wait_ready(&self) {
        self.wait(self.node().wait_ready());
    }

    pub(crate) fn shutdown(mut self) {
        let node = self.node.take().unwrap();
        let stopped = self.runtime.block_on(node.shutdown());
        stopped.unwrap();
    }

    /// Ends without any farewell, and copies what the operating system has of its store to `to`:
    /// the store itself stays open in this process.
    pub(crate) fn kill(self, to: &Path) {
        let from = self.node().state().config.data_dir.clone();
        self.runtime.shutdown_timeout(Duration::from_secs(5));
        copy(&from, to);
    }

    /// Status and body of a page of the HTTP port.
    pub(crate) fn http(&self, path: &str) -> (u16, String) {
        http(self.node().http_addr(), path)
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn http(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

/// Asks until `condition` holds, 10 seconds at most.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
