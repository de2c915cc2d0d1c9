//! All nodes of a run, and what they run in.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::clock::{self, Clock};
use crate::disk::Disk;
use crate::eio::{self, Failing};
use crate::kind::Need;
use crate::network::Network;
use crate::node::{Node, Setup};
use crate::probe::Capabilities;
use crate::stop::Stop;

/// Ports of nodes in namespaces; on one machine each node's are so many above the one's before.
const GRPC_PORT: usize = 26_000;
const HTTP_PORT: usize = 26_001;
const PORT_STEP: usize = 10;
/// Size of each node's file system. Sparse.
const DISK_MIB: u32 = 1024;
/// How long nodes may take until every range has a leader.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long a node may take to hand over and end.
pub(crate) const TERMINATE_LIMIT: Duration = Duration::from_secs(30);

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) binary: PathBuf,
    /// Where everything lies.
    pub(crate) directory: PathBuf,
    pub(crate) nodes: usize,
    pub(crate) ranges: u32,
}

/// Nodes with numbers from 0; node `i` holds store `i + 1`.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Dropped before the network that they are in.
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Option<Network>,
    binary: PathBuf,
    pub(crate) stop: Stop,
}

impl Cluster {
    /// Makes what is wanted, starts the nodes, makes a cluster of them and waits until it serves.
    pub(crate) fn start(shape: &Shape, can: &Capabilities, stop: &Stop) -> anyhow::Result<Self> {
        let network = can.wanted(Need::Network).then(|| Network::new(shape.nodes)).transpose()?;
        let mut cluster =
            Self { nodes: Vec::new(), network, binary: shape.binary.clone(), stop: stop.clone() };
        for number in 0..shape.nodes {
            let node = cluster.prepare(shape, can, number)?;
            cluster.nodes.push(node);
        }
        for node in &mut cluster.nodes {
            node.start()?;
        }
        let ranges = shape.ranges.to_string();
        cluster.command(&["init", "--ranges", &ranges]).context("init")?;
        cluster.wait_ready(READY_LIMIT)?;
        Ok(cluster)
    }

    fn addresses(&self, number: usize) -> (String, String) {
        match &self.network {
            Some(network) => {
                let ip = network.address(number);
                (format!("{ip}:{GRPC_PORT}"), format!("{ip}:{HTTP_PORT}"))
            }
            None => {
                let port = |first| first + number * PORT_STEP;
                (format!("127.0.0.1:{}", port(GRPC_PORT)), format!("127.0.0.1:{}", port(HTTP_PORT)))
            }
        }
    }

    fn prepare(&self, shape: &Shape, can: &Capabilities, number: usize) -> anyhow::Result<Node> {
        let name = format!("node{}", number + 1);
        let directory = shape.directory.clone();
        let disk = can.wanted(Need::Disk).then(|| Disk::new(&directory, &name, DISK_MIB));
        let disk = disk.transpose()?;
        let home = disk.as_ref().map_or_else(|| directory.join(&name), |disk| disk.path().into());
        let join: Vec<_> = (0..shape.nodes).map(|node| self.addresses(node).0).collect();
        let (listen, http) = self.addresses(number);
        let enter = self.network.as_ref().map(|network| network.enter(number).to_vec());
        let mut node = Node::new(Setup {
            binary: shape.binary.clone(),
            data: home.join("data"),
            name: name.clone(),
            listen,
            http,
            join: join.join(","),
            enter: enter.unwrap_or_default(),
            preload: Vec::new(),
            directory,
        });
        std::fs::create_dir_all(&home)?;
        node.disk = disk;
        let control = |what: &str| node.setup.directory.join(format!("{name}.{what}"));
        let (clock_file, eio_file) = (control("clock"), control("eio"));
        if can.wanted(Need::Eio) {
            let library = eio::compile(&node.setup.directory)?;
            node.setup.preload.push(library.display().to_string());
            node.failing = Some(Failing::new(eio_file));
        }
        if can.wanted(Need::Clock) {
            node.setup.preload.push(clock::library()?.to_owned());
            node.clock = Some(Clock::new(clock_file)?);
        }
        Ok(node)
    }

    /// What nodes and commands run.
    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    /// For `--endpoints`.
    pub(crate) fn endpoints(&self) -> String {
        let addresses: Vec<_> = self.nodes.iter().map(|node| node.setup.listen.as_str()).collect();
        addresses.join(",")
    }

    /// Runs `cribwork` with these arguments; gives the JSON it prints.
    pub(crate) fn command(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let output = Command::new(&self.binary)
            .args(arguments)
            .args(["--endpoints", &self.endpoints(), "--output", "json"])
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("cribwork {}: {}", arguments.join(" "), said.lines().next().unwrap_or_default());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Waits until every node says that it is ready and no range is without a leader.
    pub(crate) fn wait_ready(&mut self, limit: Duration) -> anyhow::Result<()> {
        let stop = self.stop.clone();
        stop.wait("the nodes are ready", limit, || {
            self.nodes.iter_mut().try_for_each(Node::ready)?;
            let status = self.command(&["status", "--timeout", "2s"])?;
            match (status["leaderless"].as_u64(), status["nodes_down"].as_u64()) {
                (Some(0), Some(0)) => Ok(()),
                _ => bail!("status: {status}"),
            }
        })
    }

    /// The node that leads most ranges, as far as any node knows.
    pub(crate) fn busiest(&self) -> anyhow::Result<usize> {
        let nodes = self.command(&["nodes"])?;
        let rows = nodes.as_array().context("no list of nodes")?;
        let leaders = |row: &&Value| row["leaders"].as_u64();
        let busiest = rows.iter().max_by_key(leaders).context("no nodes")?;
        let store = busiest["store"].as_u64().context("a node without a store")?;
        Ok(store as usize - 1)
    }

    /// Tells all nodes to stop, one after the other; gives what was wrong with it.
    pub(crate) fn terminate(&mut self) -> Vec<String> {
        let stop = self.stop.clone();
        let stopped = self.nodes.iter_mut().map(|node| node.terminate(&stop, TERMINATE_LIMIT));
        stopped.filter_map(|stopped| stopped.err().map(|error| format!("{error:#}"))).collect()
    }

    /// Stops and starts one node.
    pub(crate) fn bounce(&mut self, number: usize, down: Duration) -> anyhow::Result<()> {
        let stop = self.stop.clone();
        let told = self.nodes[number].terminate(&stop, TERMINATE_LIMIT);
        stop.sleep(down)?;
        if told.is_err() {
            self.nodes[number].kill9();
        }
        self.nodes[number].start()?;
        self.wait_ready(READY_LIMIT)?;
        told
    }

    /// Lines in which a node says that it panicked.
    pub(crate) fn panics(&self) -> Vec<String> {
        let mut found = Vec::new();
        for node in &self.nodes {
            let log = node.log();
            let lines = log.lines().filter(|line| line.contains("panicked"));
            found.extend(lines.map(|line| format!("{}: {line}", node.setup.name)));
        }
        found
    }
}

/// The binary beside this one.
pub(crate) fn default_binary() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own.parent().unwrap_or(Path::new(".")).join("cribwork");
    if !path.exists() {
        bail!("{} is missing: build it (`make build`), or say --binary", path.display());
    }
    Ok(path)
}
