//! Changes of members: learners, promotion, removal, and replicas that come back after they were removed.

use std::sync::Arc;

use cribwork_engine::{Engine, MemoryEngine};
use cribwork_multiraft::{RaftError, Replica, ReplicaChange};
use cribwork_types::{Cf, KeyRange, RangeDescriptor, ReplicaId, ReplicaRole, StoreId};

use crate::harness::{Cluster, RANGE, bound, descriptor, put, stores, wait_for};
use crate::splits::{RIGHT, new_range};

const FOURTH: StoreId = StoreId(4);
const NEWCOMER: ReplicaId = ReplicaId(300);

async fn four_nodes() -> Cluster {
    let mut cluster = Cluster::start().await;
    cluster.boot(FOURTH, MemoryEngine::new());
    cluster
}

/// Asks again as placement does, while that may help.
async fn change(cluster: &Cluster, change: ReplicaChange) -> Arc<RangeDescriptor> {
    for _ in 0..50 {
        match cluster.leader(RANGE).await.change_replicas(change.clone()).await {
            Ok(descriptor) => return descriptor,
            Err(RaftError::NotLeader { .. } | RaftError::ChangeFailed { .. }) => {}
            Err(error) => panic!("{change:?}: {error}"),
        }
    }
    panic!("{change:?} never went through");
}

async fn add_learner(cluster: &Cluster, store: StoreId, id: ReplicaId) -> Arc<RangeDescriptor> {
    change(cluster, ReplicaChange::AddLearner { id, store }).await
}

fn home(leader: &Replica) -> StoreId {
    leader.descriptor().replica(leader.replica_id()).unwrap().store
}

/// A store that holds a replica which does not lead.
async fn follower(cluster: &Cluster) -> (StoreId, ReplicaId) {
    let leader = cluster.leader(RANGE).await;
    let other = |store: &StoreId| *store != home(&leader);
    let store = stores().into_iter().find(other).unwrap();
    (store, leader.descriptor().replica_on(store).unwrap().id)
}

fn holds(cluster: &Cluster, store: StoreId, name: &str) -> bool {
    cluster.nodes[&store].engine.get(Cf::Raw, name.as_bytes()).unwrap().is_some()
}

/// Nothing of the range is on the store, but its tombstone.
fn is_forgotten(engine: &dyn Engine) -> bool {
    let empty = |cf| {
        let snapshot = engine.snapshot();
        let mut cursor = snapshot.cursor(cf, &KeyRange::all());
        !cursor.seek_to_first().unwrap()
    };
    empty(Cf::Raw) && empty(Cf::Raft)
}

#[tokio::test]
async fn a_replica_moves_to_another_store() {
    let cluster = four_nodes().await;
    cluster.put(RANGE, "a", "1").await;
    let with_learner = add_learner(&cluster, FOURTH, NEWCOMER).await;
    assert_eq!(with_learner.replica_on(FOURTH).unwrap().role, ReplicaRole::Learner);
    assert_eq!(with_learner.epoch.conf_ver, 2);
    let (leaving, old) = follower(&cluster).await;
    let moved =
        change(&cluster, ReplicaChange::Members { promote: vec![NEWCOMER], remove: vec![old] })
            .await;
    assert!(!moved.is_joint());
    assert_eq!(moved.epoch.conf_ver, 4, "a joint membership and the one behind it");
    assert_eq!(moved.replica_on(FOURTH).unwrap().role, ReplicaRole::Voter);
    assert!(moved.replica_on(leaving).is_none());
    wait_for("the removed replica to go", || {
        cluster.replica(leaving, RANGE).is_none()
            && is_forgotten(cluster.nodes[&leaving].engine.as_ref())
    })
    .await;
    cluster.put(RANGE, "b", "2").await;
    cluster.leader(RANGE).await.transfer_leader(FOURTH).await.unwrap();
    assert_eq!(home(cluster.leader(RANGE).await.as_ref()), FOURTH);
    assert_eq!(cluster.get(RANGE, "a").await.as_deref(), Some(&b"1"[..]));
    assert_eq!(cluster.get(RANGE, "b").await.as_deref(), Some(&b"2"[..]));
}

#[tokio::test]
async fn a_member_that_was_removed_while_it_was_away_forgets_the_range_when_it_returns() {
    let mut cluster = four_nodes().await;
    cluster.put(RANGE, "a", "1").await;
    cluster.settle(RANGE).await;
    let (away, old) = follower(&cluster).await;
    let engine = cluster.kill(away);
    add_learner(&cluster, FOURTH, NEWCOMER).await;
    change(&cluster, ReplicaChange::Members { promote: vec![NEWCOMER], remove: vec![old] }).await;
    cluster.put(RANGE, "b", "2").await;
    cluster.boot(away, engine);
    wait_for("the stale replica to go", || cluster.replica(away, RANGE).is_none()).await;
    assert!(is_forgotten(cluster.nodes[&away].engine.as_ref()));
    // Removal is not synced: a crash may bring the replica back, but never for long.
    let engine = cluster.kill(away);
    cluster.boot(away, engine);
    wait_for("the replica to go again", || cluster.replica(away, RANGE).is_none()).await;
    cluster.put(RANGE, "c", "3").await;
}

#[tokio::test]
async fn a_store_that_was_rid_of_a_replica_takes_a_new_one_but_never_the_old() {
    let cluster = four_nodes().await;
    cluster.put(RANGE, "a", "1").await;
    add_learner(&cluster, FOURTH, NEWCOMER).await;
    wait_for("the learner's data", || holds(&cluster, FOURTH, "a")).await;
    change(&cluster, ReplicaChange::Members { promote: vec![], remove: vec![NEWCOMER] }).await;
    wait_for("the learner to go", || cluster.replica(FOURTH, RANGE).is_none()).await;
    // The leader knows no better; the store does, and says so.
    add_learner(&cluster, FOURTH, NEWCOMER).await;
    cluster.put(RANGE, "b", "2").await;
    let leader = cluster.leader(RANGE).await;
    wait_for("the learner to be let go", || leader.descriptor().replica(NEWCOMER).is_none()).await;
    assert!(cluster.replica(FOURTH, RANGE).is_none(), "an id that is gone never comes back");
    let next = ReplicaId(NEWCOMER.get() + 1);
    add_learner(&cluster, FOURTH, next).await;
    wait_for("the new learner's data", || holds(&cluster, FOURTH, "b")).await;
    assert_eq!(cluster.replica(FOURTH, RANGE).unwrap().replica_id(), next);
}

#[tokio::test]
async fn a_range_grows_from_one_replica_to_three() {
    let mut alone = descriptor();
    alone.replicas.truncate(1);
    let mut cluster = Cluster::start_on(stores()[0], alone).await;
    cluster.put(RANGE, "a", "1").await;
    for store in &stores()[1..] {
        cluster.boot(*store, MemoryEngine::new());
        let id = ReplicaId(store.get() + 300);
        add_learner(&cluster, *store, id).await;
        change(&cluster, ReplicaChange::Members { promote: vec![id], remove: vec![] }).await;
    }
    cluster.settle(RANGE).await;
    cluster.kill(stores()[0]);
    assert_eq!(cluster.get(RANGE, "a").await.as_deref(), Some(&b"1"[..]));
    cluster.put(RANGE, "b", "2").await;
}

#[tokio::test]
async fn what_never_fits_is_refused() {
    let cluster = four_nodes().await;
    let leader = cluster.leader(RANGE).await;
    let taken = leader.descriptor().replicas[0].id;
    let changes = [
        ReplicaChange::AddLearner { id: NEWCOMER, store: home(&leader) },
        ReplicaChange::AddLearner { id: ReplicaId(1), store: FOURTH },
        ReplicaChange::AddLearner { id: taken, store: FOURTH },
        ReplicaChange::Members { promote: vec![NEWCOMER], remove: vec![] },
        ReplicaChange::Members { promote: vec![], remove: vec![leader.replica_id()] },
    ];
    for change in changes {
        let refused = leader.change_replicas(change.clone()).await;
        assert!(matches!(refused, Err(RaftError::Refused { .. })), "{change:?}: {refused:?}");
    }
    assert_eq!(leader.descriptor().epoch.conf_ver, 1);
    put(&leader, "k", "v").await.unwrap();
}

#[tokio::test]
async fn a_learner_takes_part_in_a_split() {
    let cluster = four_nodes().await;
    cluster.put(RANGE, "a", "1").await;
    cluster.put(RANGE, "z", "2").await;
    add_learner(&cluster, FOURTH, NEWCOMER).await;
    let leader = cluster.leader(RANGE).await;
    let token = leader.token().await.unwrap();
    let mut new = new_range();
    new.replicas.push((FOURTH, ReplicaId(400)));
    leader.split(&token, bound("m"), new).await.unwrap();
    cluster.put(RIGHT, "y", "3").await;
    wait_for("the right side at the learner", || holds(&cluster, FOURTH, "y")).await;
    wait_for("the left side at the learner", || holds(&cluster, FOURTH, "a")).await;
    let roles = cluster.replica(FOURTH, RIGHT).unwrap().descriptor();
    assert_eq!(roles.replica_on(FOURTH).unwrap().role, ReplicaRole::Learner);
}

#[tokio::test]
async fn a_change_survives_a_power_cut_of_all() {
    let mut cluster = four_nodes().await;
    cluster.put(RANGE, "a", "1").await;
    let (leaving, old) = follower(&cluster).await;
    add_learner(&cluster, FOURTH, NEWCOMER).await;
    change(&cluster, ReplicaChange::Members { promote: vec![NEWCOMER], remove: vec![old] }).await;
    let all: Vec<StoreId> = cluster.nodes.keys().copied().collect();
    let engines: Vec<_> = all.into_iter().map(|store| (store, cluster.kill(store))).collect();
    for (store, engine) in engines {
        cluster.boot(store, engine);
    }
    assert_eq!(cluster.get(RANGE, "a").await.as_deref(), Some(&b"1"[..]));
    cluster.put(RANGE, "b", "2").await;
    let descriptor = cluster.leader(RANGE).await.descriptor();
    assert!(descriptor.replica_on(leaving).is_none() && !descriptor.is_joint());
    wait_for("the removed replica to go", || cluster.replica(leaving, RANGE).is_none()).await;
}

#[tokio::test]
async fn nobody_is_removed_while_those_that_stay_have_not_caught_up() {
    let mut cluster = Cluster::start().await;
    let (away, _) = follower(&cluster).await;
    let engine = cluster.kill(away);
    // The right side's replica on the store that is down does not exist yet.
    let leader = cluster.leader(RANGE).await;
    let token = leader.token().await.unwrap();
    leader.split(&token, bound("m"), new_range()).await.unwrap();
    let right = cluster.leader(RIGHT).await;
    let others = right.descriptor();
    let here = |store: StoreId| store == away || store == home(&right);
    let alive = others.replicas.iter().find(|member| !here(member.store)).unwrap().id;
    let remove = ReplicaChange::Members { promote: vec![], remove: vec![alive] };
    let refused = right.change_replicas(remove.clone()).await;
    assert!(matches!(refused, Err(RaftError::ChangeFailed { .. })), "{refused:?}");
    cluster.boot(away, engine);
    wait_for("the late member", || {
        cluster.replica(away, RIGHT).is_some_and(|replica| replica.applied_index() > 0)
    })
    .await;
    let mut removed = right.change_replicas(remove.clone()).await;
    while let Err(RaftError::ChangeFailed { .. }) = removed {
        removed = right.change_replicas(remove.clone()).await;
    }
    assert_eq!(removed.unwrap().replicas.len(), 2);
}
