//! Several nodes that make, join and keep a cluster.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use cribwork_multiraft::RaftError;
use cribwork_proto::cribwork::admin::{Operator, TransferLeaderOperator, operator};
use cribwork_types::{RangeId, StoreId, key};
use tempfile::TempDir;

use super::harness::{TestNode, config, eventually, free_addresses};
use crate::{Config, ServerError};

struct Cluster {
    _dir: TempDir,
    configs: Vec<Config>,
    nodes: Vec<TestNode>,
}

fn configs(dir: PathBuf, count: usize) -> Vec<Config> {
    let join = free_addresses(count);
    let one = |(at, address): (usize, &String)| Config {
        listen: address.clone(),
        join: join.clone(),
        ..config(&dir.join(at.to_string()))
    };
    join.iter().enumerate().map(one).collect()
}

impl Cluster {
    /// Fresh nodes that know each other.
    fn fresh(count: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let configs = configs(dir.path().to_owned(), count);
        let nodes = configs.iter().map(TestNode::start).collect();
        Self { _dir: dir, configs, nodes }
    }

    fn ready(count: usize, ranges: u32) -> Self {
        let cluster = Self::fresh(count);
        cluster.nodes[0].init(ranges).unwrap();
        cluster.nodes.iter().for_each(TestNode::wait_ready);
        cluster
    }

    fn store(&self, at: usize) -> StoreId {
        self.nodes[at].node().identity().unwrap().1
    }

    fn leads(&self, at: usize, range: RangeId) -> bool {
        let multi = self.nodes[at].node().multi().unwrap();
        multi.replica(range).is_some_and(|replica| replica.leader().is_self)
    }

    fn shutdown(self) {
        // One after the other: each hands its leaderships to those that are left.
        self.nodes.into_iter().for_each(TestNode::shutdown);
    }
}

#[test]
fn three_nodes_share_the_ranges_and_follow_placement() {
    let cluster = Cluster::ready(3, 4);
    for at in 0..3 {
        assert_eq!(cluster.store(at), StoreId(at as u64 + 1), "in the order of the join list");
        assert_eq!(cluster.nodes[at].node().multi().unwrap().replicas().len(), 6);
    }
    let leader = (0..3).find(|at| cluster.leads(*at, RangeId(1))).unwrap();
    let target = (leader + 1) % 3;
    let state = cluster.nodes[leader].node().state();
    state.member().unwrap().reporter.execute(vec![Operator {
        step: Some(operator::Step::TransferLeader(TransferLeaderOperator {
            range: 1,
            to_store: cluster.store(target).get(),
        })),
    }]);
    eventually("leadership moves", || cluster.leads(target, RangeId(1)));
    cluster.shutdown();
}

#[test]
fn a_split_takes_ids_from_placement_and_happens_everywhere() {
    let cluster = Cluster::ready(3, 1);
    let bound = Bytes::from(key::encode(b"m"));
    let leader = (0..3).find(|at| cluster.leads(*at, RangeId(1))).unwrap();
    let member = cluster.nodes[leader].node().state().member().unwrap();
    let split = |epoch| member.ranges.split_at_epoch(RangeId(1), epoch, bound.clone());
    let old = member.multi.replica(RangeId(1)).unwrap().descriptor().epoch;
    let (left, right) = cluster.nodes[leader].wait(split(old)).unwrap();
    assert_eq!((left.span.end.clone(), right.id), (bound.clone(), RangeId(3)));
    let late = cluster.nodes[leader].wait(split(old)).unwrap_err();
    assert!(matches!(late, ServerError::Raft(RaftError::EpochChanged { .. })), "{late}");
    for node in &cluster.nodes {
        let multi = node.node().multi().unwrap();
        let here = || multi.replica(right.id).is_some_and(|it| *it.descriptor() == right);
        eventually("the right side is everywhere", here);
        node.wait_ready();
    }
    let group = RaftError::RangeNotFound { range: RangeId::PLACEMENT, store: member.store() };
    let refused = member.ranges.split_at_epoch(RangeId::PLACEMENT, old, bound);
    let refused = cluster.nodes[leader].wait(refused).unwrap_err();
    assert_eq!(refused.to_string(), group.to_string());
    cluster.shutdown();
}

#[test]
fn leaders_move_before_a_node_stops_and_a_full_restart_finds_everybody() {
    let mut cluster = Cluster::ready(3, 4);
    let last = cluster.nodes.pop().unwrap();
    last.shutdown();
    for range in 0..6 {
        let found = || (0..2).any(|at| cluster.leads(at, RangeId(range)));
        eventually("the others lead", found);
    }
    while let Some(node) = cluster.nodes.pop() {
        node.shutdown();
    }
    cluster.nodes = cluster.configs.iter().map(TestNode::start).collect();
    cluster.nodes.iter().for_each(TestNode::wait_ready);
    cluster.shutdown();
}

#[test]
fn a_node_that_comes_back_under_another_address_is_found() {
    let mut cluster = Cluster::ready(3, 1);
    let moved = cluster.nodes.pop().unwrap();
    moved.shutdown();
    let mut config = cluster.configs[2].clone();
    config.listen = free_addresses(1).remove(0);
    let moved = TestNode::start(&config);
    moved.wait_ready();
    for other in &cluster.nodes {
        let addresses = other.node().state().addresses.clone();
        let known = || addresses.get(StoreId(3)).is_some_and(|it| it.address == config.listen);
        eventually("the new address is known", known);
    }
    cluster.nodes.push(moved);
    cluster.shutdown();
}

#[test]
fn init_refuses_a_list_with_a_member_of_a_cluster_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let old = TestNode::start(&config(&dir.path().join("old")));
    old.init(1).unwrap();
    let address = old.node().advertised().to_owned();
    let fresh = TestNode::start(&config(&dir.path().join("fresh")));
    let state = fresh.node().state();
    let gathered = fresh.wait(state.gather_stores(&[address]));
    let error = gathered.unwrap_err();
    assert!(matches!(error, ServerError::InitRefused { .. }), "{error}");
    assert_eq!(state.records.plan().unwrap(), None);
    assert_eq!(state.records.identity().unwrap(), None);
    fresh.shutdown();
    old.shutdown();
}

#[test]
fn init_waits_for_nodes_that_start_late() {
    let dir = tempfile::tempdir().unwrap();
    let configs = configs(dir.path().to_owned(), 2);
    let first = TestNode::start(&configs[0]);
    std::thread::scope(|scope| {
        let made = scope.spawn(|| first.init(1));
        let second = TestNode::start(&configs[1]);
        assert_eq!(made.join().unwrap().unwrap(), 2);
        second.wait_ready();
        second.shutdown();
    });
    first.shutdown();
}

/// The conductor dies after it stored the plan: nobody has it yet, and `init` goes on with it.
#[test]
fn an_unfinished_initialisation_is_resumed_with_the_same_plan() {
    let dir = tempfile::tempdir().unwrap();
    let configs = configs(dir.path().to_owned(), 2);
    let (first, second) = (TestNode::start(&configs[0]), TestNode::start(&configs[1]));
    let state = first.node().state();
    let plan = first.wait(state.begin_init(3)).unwrap();
    let answer = first.wait(async { state.identity_answer() }).unwrap();
    assert_eq!((answer.cluster_id, answer.store_id), (plan.cluster.get(), 0));
    first.shutdown();
    let first = TestNode::start(&configs[0]);
    assert_eq!(first.node().identity(), None);
    assert_eq!(first.init(16).unwrap(), 4, "the stored plan counts, not the new number");
    assert_eq!(first.node().identity().unwrap().0, plan.cluster);
    second.wait_ready();
    assert!(matches!(first.init(3), Err(ServerError::AlreadyInitialised { .. })));
    assert!(matches!(second.init(3), Err(ServerError::AlreadyInitialised { .. })));
    second.shutdown();
    first.shutdown();
}

/// Else it would vote a second time as the store that it was.
#[test]
fn a_store_that_lost_its_part_of_an_initialisation_is_not_given_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let configs = configs(dir.path().to_owned(), 3);
    let [first, second, third]: [TestNode; 3] =
        configs.iter().map(TestNode::start).collect::<Vec<_>>().try_into().ok().unwrap();
    let state = first.node().state();
    let plan = first.wait(state.begin_init(1)).unwrap();
    let deadline = state.runtime.now() + Duration::from_secs(10);
    first.wait(state.send_plan(&plan, &plan.stores[1], deadline)).unwrap();
    assert_eq!(second.node().identity().unwrap().1, StoreId(2));
    second.shutdown();
    let empty = Config { data_dir: dir.path().join("empty"), ..configs[1].clone() };
    let second = TestNode::start(&empty);
    first.init(1).unwrap();
    first.wait_ready();
    assert_eq!(second.node().identity(), None);
    for node in [second, third, first] {
        node.shutdown();
    }
}

#[test]
fn of_two_initialisations_at_once_one_wins_everywhere() {
    let cluster = Cluster::fresh(3);
    let results: Vec<Result<u32, ServerError>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            cluster.nodes.iter().map(|node| scope.spawn(|| node.init(2))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let won = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(won, 1, "{results:?}");
    cluster.nodes.iter().for_each(TestNode::wait_ready);
    let clusters: BTreeSet<_> =
        cluster.nodes.iter().map(|node| node.node().identity().unwrap().0).collect();
    assert_eq!(clusters.len(), 1);
    let stores: BTreeSet<_> = (0..3).map(|at| cluster.store(at)).collect();
    assert_eq!(stores.len(), 3);
    cluster.shutdown();
}

#[test]
fn a_newcomer_registers_and_survives_a_restart() {
    let cluster = Cluster::ready(3, 1);
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.join = vec![cluster.configs[2].listen.clone()];
    let newcomer = TestNode::start(&config);
    newcomer.wait(newcomer.node().wait_member());
    newcomer.wait_ready();
    let identity = newcomer.node().identity().unwrap();
    assert_eq!(identity.1, StoreId(4));
    newcomer.shutdown();
    let newcomer = TestNode::start(&config);
    newcomer.wait_ready();
    assert_eq!(newcomer.node().identity(), Some(identity));
    newcomer.shutdown();
    cluster.shutdown();
}
