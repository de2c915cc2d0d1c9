//! A network namespace for each node, all on one bridge, where the harness and the clients are too.

use crate::nft::{HEALED, Rule};
use crate::shell;

/// Names and addresses of one run; the process number keeps runs apart.
#[derive(Clone, Copy, Debug)]
struct Names {
    run: u32,
}

impl Names {
    fn bridge(self) -> String {
        format!("cwb{}", self.run)
    }

    fn namespace(self, node: usize) -> String {
        format!("cwn{}-{node}", self.run)
    }

    fn link(self, node: usize) -> String {
        format!("cwv{}-{node}", self.run)
    }

    /// In 10.0.0.0/8, where the second number is one that few networks use.
    fn address(self, last: usize) -> String {
        format!("10.213.{}.{last}", self.run % 250)
    }
}

/// The host's end, and where clients call from.
const HOST: usize = 254;

/// Namespaces and the bridge; gone when dropped.
#[derive(Debug)]
pub(crate) struct Network {
    names: Names,
    nodes: usize,
}

impl Network {
    /// Makes them for nodes 0 to `nodes - 1`.
    pub(crate) fn new(nodes: usize) -> anyhow::Result<Self> {
        let names = Names { run: std::process::id() % 100_000 };
        // Owned from here on, so that half of it is removed if the rest fails.
        let network = Self { names, nodes };
        let bridge = names.bridge();
        shell::run(&format!("ip link add {bridge} type bridge"))?;
        shell::run(&format!("ip addr add {}/24 dev {bridge}", names.address(HOST)))?;
        shell::run(&format!("ip link set {bridge} up"))?;
        for node in 0..nodes {
            let (space, link) = (names.namespace(node), names.link(node));
            let address = names.address(node + 1);
            shell::run(&format!("ip netns add {space}"))?;
            shell::run(&format!("ip -n {space} link set lo up"))?;
            shell::run(&format!("ip link add {link} type veth peer name eth0 netns {space}"))?;
            shell::run(&format!("ip link set {link} master {bridge} up"))?;
            shell::run(&format!("ip -n {space} addr add {address}/24 dev eth0"))?;
            shell::run(&format!("ip -n {space} link set eth0 up"))?;
        }
        Ok(network)
    }

    /// The IP address of a node.
    pub(crate) fn address(&self, node: usize) -> String {
        self.names.address(node + 1)
    }

    /// The addresses of all other nodes.
    pub(crate) fn others(&self, node: usize) -> Vec<String> {
        (0..self.nodes).filter(|other| *other != node).map(|other| self.address(other)).collect()
    }

    /// What goes before a command so that it runs in the namespace of a node, with the same process
    /// number. Unlike `ip netns exec` it leaves the mounts alone: a copy of them would keep a file
    /// system busy that is to be cut off.
    pub(crate) fn enter(&self, node: usize) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net=/run/netns/{}", self.names.namespace(node))]
    }

    /// Drops packets of a node from now on, in place of what was dropped before.
    pub(crate) fn set(&self, node: usize, rule: &Rule) -> anyhow::Result<()> {
        self.apply(node, &rule.text())
    }

    /// Lets all packets of a node through.
    pub(crate) fn heal(&self, node: usize) -> anyhow::Result<()> {
        self.apply(node, HEALED)
    }

    fn apply(&self, node: usize, rules: &str) -> anyhow::Result<()> {
        let [nsenter, space] = self.enter(node);
        shell::words(&[&nsenter, &space, "nft", "-f", "-"], rules).map(|_| ())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for node in 0..self.nodes {
            // Removes its link too. What was never made cannot be removed.
            let _ = shell::run(&format!("ip netns del {}", self.names.namespace(node)));
        }
        let _ = shell::run(&format!("ip link del {}", self.names.bridge()));
    }
}
