//! Some nodes on one machine, and the commands that are given to them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::node::{Node, NodeFlags};
use crate::poll::wait_until;
use crate::ports::free_address;
use crate::process::{Finished, Process};
use crate::turn::Turn;

/// How long one command may take: its own limit of 60 s (`init`) and its start.
const COMMAND_LIMIT: Duration = Duration::from_secs(90);
/// How long nodes may take until every range has a leader.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// Attempts with other ports, if somebody takes one between the look and its use.
const START_ATTEMPTS: usize = 5;
/// Lines of each node's log that a failed test shows.
const LINES_SHOWN: usize = 60;

/// Nodes with numbers from 0. After [`Cluster::init`], node `i` holds store `i + 1`.
///
/// Dropping it kills the nodes. If the test has failed, it prints the ends of their logs; if it has
/// not, it fails when a node has panicked.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    /// Dropped after the nodes that live in it.
    _directory: TempDir,
    turn: Arc<Turn>,
}

impl Cluster {
    /// Starts nodes that are not yet a cluster, once no other test runs one.
    pub fn start(count: usize) -> Self {
        Self::start_in(Arc::new(Turn::take()), count)
    }

    /// Starts nodes, makes a cluster of them, and waits until all of it serves.
    pub fn with_ranges(count: usize, ranges: u32) -> Self {
        let cluster = Self::start(count);
        cluster.init(ranges).ok();
        cluster.wait_ready();
        cluster
    }

    /// Starts nodes beside these, in the same turn.
    pub fn beside(&self, count: usize) -> Self {
        Self::start_in(self.turn.clone(), count)
    }

    fn start_in(turn: Arc<Turn>, count: usize) -> Self {
        for _ in 0..START_ATTEMPTS {
            let directory = TempDir::new().unwrap();
            let listen: Vec<_> = (0..count).map(|_| free_address()).collect();
            let flags = listen.iter().enumerate().map(|(number, address)| NodeFlags {
                data: directory.path().join(format!("node{number}")),
                listen: address.clone(),
                http: free_address(),
                join: listen.join(","),
                rebuild_damaged: false,
            });
            match flags.map(Node::start).collect() {
                Ok(nodes) => return Self { nodes, _directory: directory, turn },
                Err(ended) if ended.stderr.contains("CW-SERVER-LISTEN") => {}
                Err(ended) => panic!("a node did not start: {ended:?}"),
            }
        }
        panic!("others take every port before a node can")
    }

    /// Starts nodes that join this cluster. Waits until each listens, not until it is a member.
    pub fn grow(&mut self, count: usize) {
        let join = self.endpoints().join(",");
        for _ in 0..count {
            let number = self.nodes.len();
            let start = || {
                let data = self._directory.path().join(format!("node{number}"));
                let (listen, http) = (free_address(), free_address());
                let join = join.clone();
                Node::start(NodeFlags { data, listen, http, join, rebuild_damaged: false })
            };
            let taken = |ended: &Finished| ended.stderr.contains("CW-SERVER-LISTEN");
            let mut started = start();
            for _ in 1..START_ATTEMPTS {
                if started.as_ref().is_err_and(taken) {
                    started = start();
                }
            }
            match started {
                Ok(node) => self.nodes.push(node),
                Err(ended) => panic!("a node did not start: {ended:?}"),
            }
        }
    }

    /// Gives the command `init`.
    pub fn init(&self, ranges: u32) -> Finished {
        let node = &self.nodes[0].flags().listen;
        let ranges = ranges.to_string();
        crate::run(&["init", "--endpoints", node, "--ranges", &ranges], COMMAND_LIMIT)
    }

    /// Waits until every node that runs says that it serves.
    ///
    /// # Panics
    /// If one does not in time.
    #[track_caller]
    pub fn wait_ready(&self) {
        wait_until("all nodes are ready", READY_LIMIT, || {
            self.nodes.iter().filter(|node| node.process_runs()).try_for_each(Node::is_ready)
        });
    }

    /// A node.
    pub fn node(&mut self, number: usize) -> &mut Node {
        &mut self.nodes[number]
    }

    /// All nodes.
    pub fn nodes(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// The gRPC addresses of all nodes.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.flags().listen.clone()).collect()
    }

    /// Starts a command against the cluster.
    pub fn spawn(&self, args: &[&str]) -> Process {
        let endpoints = self.endpoints().join(",");
        let args: Vec<&str> = args.iter().copied().chain(["--endpoints", &endpoints]).collect();
        Process::start(&args)
    }

    /// Gives a command to the cluster.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Finished {
        self.spawn(args).wait(COMMAND_LIMIT)
    }

    /// Gives a command that must succeed, and reads its JSON.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["--output", "json"]).collect();
        self.run(&args).json()
    }

    /// How many ranges `store` leads, as the cluster sees it.
    #[track_caller]
    pub fn led_by(&self, store: u64) -> usize {
        let ranges = self.json(&["ranges"]);
        let led = |range: &&Value| range["leader_store"] == store;
        ranges.as_array().expect("a list of ranges").iter().filter(led).count()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        let mut panics = Vec::new();
        for node in self.nodes.drain(..) {
            let log = node.log();
            if failed {
                let lines: Vec<_> = log.lines().collect();
                let end = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
                eprintln!("--- log of {} ---\n{end}", node.flags().listen);
            }
            panics
                .extend(log.lines().filter(|line| line.contains("panicked at")).map(str::to_owned));
        }
        assert!(failed || panics.is_empty(), "nodes have panicked: {panics:#?}");
    }
}
