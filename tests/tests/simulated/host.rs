//! A simulated machine: its disk, and the node that runs on it.

use std::sync::{Arc, Mutex};

use cribwork_engine::{Engine, MemoryEngine};
use cribwork_server::{Config, Node, NodeOptions};

use crate::network::SimNetwork;
use crate::runtime::SimRuntime;

/// The nodes, in the order of their store ids.
pub(crate) const HOSTS: [&str; 3] = ["node1", "node2", "node3"];

/// The gRPC address of a node.
pub(crate) fn address(name: &str) -> String {
    format!("{name}:20160")
}

struct Disk {
    engine: Arc<MemoryEngine>,
    /// Lives that the node on it has had.
    lives: u64,
}

/// The disk of one machine: it outlives the node.
pub(crate) struct Store(Mutex<Disk>);

impl Default for Store {
    fn default() -> Self {
        Self(Mutex::new(Disk { engine: MemoryEngine::new(), lives: 0 }))
    }
}

impl Store {
    /// What was not synced is gone.
    pub(crate) fn lose_power(&self) {
        let mut disk = self.0.lock().unwrap();
        disk.engine = disk.engine.crash();
    }
}

/// One life of the node `name`.
pub(crate) async fn run(name: &str, number: u64, store: Arc<Store>) -> turmoil::Result {
    let (engine, life) = {
        let mut disk = store.0.lock().unwrap();
        disk.lives += 1;
        (disk.engine.clone() as Arc<dyn Engine>, disk.lives)
    };
    let config = Config {
        listen: "0.0.0.0:20160".to_owned(),
        http: "0.0.0.0:20180".to_owned(),
        advertise: Some(address(name)),
        join: HOSTS.map(address).to_vec(),
        ..Config::default()
    };
    let options = NodeOptions {
        config,
        runtime: Arc::new(SimRuntime::new(number << 32 | life)),
        network: Arc::new(SimNetwork),
        engine: Some(engine),
        on_fatal: Some(Arc::new(|error| panic!("{error}"))),
    };
    let _node = Node::start(options).await?;
    std::future::pending().await
}
