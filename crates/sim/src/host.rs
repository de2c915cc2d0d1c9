//! A simulated machine and the node that runs on it, life after life.

use std::collections::BTreeMap;
use std::sync::Arc;

use cribwork_multiraft::MultiRaft;
use cribwork_server::{Config, Node, NodeOptions, RaftConfig, RunningNode};
use parking_lot::Mutex;

use crate::clock::{HostClock, SimRuntime, SimTime};
use crate::disk::{Mounted, SimDisk};
use crate::moves::{self, Leaving};
use crate::network::SimNetwork;
use crate::plan::Plan;
use crate::random::Random;

/// Port of the gRPC services on every host.
const PORT: u16 = 20160;

/// Pause between two looks for changes of members to make.
const CHANGES_PERIOD: std::time::Duration = std::time::Duration::from_millis(50);

/// The name of node `number`, counted from 1.
pub(crate) fn name(number: usize) -> String {
    format!("node{number}")
}

/// The gRPC address of node `number`.
pub(crate) fn address(number: usize) -> String {
    format!("{}:{PORT}", name(number))
}

/// A machine.
pub(crate) struct Host {
    pub(crate) number: usize,
    pub(crate) name: String,
    pub(crate) clock: Arc<HostClock>,
    pub(crate) disk: Arc<SimDisk>,
    /// Of the whole cluster.
    nodes: usize,
    log_entries_max: u64,
    seed: u64,
    life: Mutex<Life>,
    /// Changes of members that this node is to make, if it lives: numbers to draw from.
    pub(crate) changes: Mutex<Vec<u64>>,
    /// Of the whole cluster.
    leaving: Leaving,
    /// Counters of lives that are over.
    counters: Mutex<BTreeMap<String, u64>>,
}

#[derive(Default)]
struct Life {
    /// Lives so far.
    number: u64,
    node: Option<RunningNode>,
    /// Why this life has to end: its store failed.
    fatal: Option<String>,
}

impl Host {
    /// # Errors
    /// If there is no room for its disk.
    pub(crate) fn new(
        number: usize,
        plan: &Plan,
        stepped: SimTime,
        leaving: Leaving,
    ) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            number,
            name: name(number),
            clock: HostClock::new(stepped, plan.drift[number - 1], plan.wall_off_ms[number - 1]),
            disk: SimDisk::new(plan.store)?,
            nodes: plan.nodes,
            log_entries_max: plan.log_entries_max,
            seed: plan.seed,
            life: Mutex::default(),
            changes: Mutex::default(),
            leaving,
            counters: Mutex::default(),
        }))
    }

    /// One life of the node; it ends with the host.
    pub(crate) async fn live(self: Arc<Self>) -> turmoil::Result {
        let life = {
            let mut life = self.life.lock();
            *life = Life { number: life.number + 1, ..Life::default() };
            life.number
        };
        let config = Config {
            listen: format!("0.0.0.0:{PORT}"),
            http: "0.0.0.0:20180".to_owned(),
            advertise: Some(address(self.number)),
            join: (1..=self.nodes).map(address).collect(),
            raft: RaftConfig {
                log_entries_max: self.log_entries_max,
                log_entries_kept: self.log_entries_max / 3,
                ..RaftConfig::default()
            },
            ..Config::default()
        };
        let seed = Random::new(self.seed, (self.number as u64) << 32 | life);
        let host = self.clone();
        let options = NodeOptions {
            config,
            runtime: SimRuntime::new(self.clock.clone(), seed),
            network: Arc::new(SimNetwork),
            engine: Some(Mounted::new(self.disk.clone())),
            on_fatal: Some(Arc::new(move |error| {
                host.life.lock().fatal.get_or_insert_with(|| error.to_string());
            })),
        };
        match Node::start(options).await {
            Ok(node) => self.life.lock().node = Some(node),
            // A disk that fails at start ends the life like one that fails later.
            Err(error) => self.life.lock().fatal = Some(error.to_string()),
        }
        loop {
            tokio::time::sleep(CHANGES_PERIOD).await;
            let changes = std::mem::take(&mut *self.changes.lock());
            let parts = self.life.lock().node.as_ref().and_then(|it| it.multi().zip(it.place()));
            let Some((multi, place)) = parts else { continue };
            moves::see_off(&multi, &self.leaving);
            for number in changes {
                let (multi, place, leaving) = (multi.clone(), place.clone(), self.leaving.clone());
                tokio::spawn(moves::change_one(multi, place, number, self.nodes, leaving));
            }
        }
    }

    /// The machine stopped. What the node held goes with it.
    pub(crate) fn forget(&self) {
        let node = self.life.lock().node.take();
        if let Some(node) = node {
            add_counters(&node, &mut self.counters.lock());
        }
    }

    /// What the node's own counters came to, all lives together: by name, labels summed up.
    pub(crate) fn counters(&self) -> BTreeMap<String, u64> {
        let mut counters = self.counters.lock().clone();
        if let Some(node) = &self.life.lock().node {
            add_counters(node, &mut counters);
        }
        counters
    }

    /// Why the life has to end, if it has.
    pub(crate) fn fatal(&self) -> Option<String> {
        self.life.lock().fatal.clone()
    }

    /// The groups, once the node is a member.
    pub(crate) fn multi(&self) -> Option<MultiRaft> {
        self.life.lock().node.as_ref()?.multi()
    }

    /// Number of the life, from 1; 0 before the first.
    pub(crate) fn life(&self) -> u64 {
        self.life.lock().number
    }
}

/// Families of counters that say which paths a run took.
const FAMILIES: [&str; 5] = [
    "cribwork_raft_",
    "cribwork_kv_",
    "cribwork_placement_",
    "cribwork_autosplit_",
    "cribwork_verify_",
];

fn add_counters(node: &RunningNode, counters: &mut BTreeMap<String, u64>) {
    let mut text = String::new();
    let registry = node.registry();
    if prometheus_client::encoding::text::encode(&mut text, &registry.lock()).is_err() {
        return;
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let name = series.split('{').next().unwrap_or(series);
        let Some(name) = name.strip_suffix("_total") else { continue };
        let ours = FAMILIES.iter().any(|family| name.starts_with(family));
        if let Some(value) = value.parse::<u64>().ok().filter(|value| ours && *value > 0) {
            *counters.entry(name.to_owned()).or_default() += value;
        }
    }
}
