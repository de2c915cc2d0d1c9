//! Merges: both promise, placement decides, nothing is lost, and what comes late has no effect.

use std::sync::Arc;

use bytes::Bytes;
use cribwork_multiraft::{MergePart, NewRange, RaftError, Replica, ReplicaChange};
use cribwork_types::{RangeDescriptor, RangeEpoch, RangeId, ReplicaId, StoreId};

use crate::harness::{Cluster, RANGE, bound, descriptor, one_put, put, stores, wait_for};
use crate::splits::{RIGHT, new_range};

const MERGE: u64 = 77;

/// Two neighbours, of which the right one holds `z`.
async fn neighbours() -> Cluster {
    neighbours_tuned(|_| {}).await
}

async fn neighbours_tuned(tune: fn(&mut cribwork_multiraft::MultiRaftOptions)) -> Cluster {
    let mut left = descriptor();
    left.span.end = bound("m");
    let mut right = descriptor();
    right.id = RIGHT;
    right.span.start = bound("m");
    for (replica, (_, id)) in right.replicas.iter_mut().zip(new_range().replicas) {
        replica.id = id;
    }
    let cluster = Cluster::start_with(tune, vec![left, right]).await;
    cluster.put(RANGE, "a", "left").await;
    cluster.put(RIGHT, "z", "right").await;
    cluster
}

/// The parts of target and source, as of now.
async fn plan(cluster: &Cluster) -> (MergePart, MergePart) {
    let target = cluster.leader(RANGE).await.descriptor().epoch;
    let source = cluster.leader(RIGHT).await.descriptor().epoch;
    let part = |planned: RangeEpoch, with, other: RangeEpoch| MergePart {
        merge: MERGE,
        planned,
        with,
        with_version: other.version,
    };
    (part(target, RIGHT, source), part(source, RANGE, target))
}

/// Both sides have promised, and every store is ready; the source as it is frozen.
async fn promise(cluster: &Cluster) -> Arc<RangeDescriptor> {
    let (target, source) = plan(cluster).await;
    let frozen = cluster.leader(RIGHT).await.freeze(source).await.unwrap();
    cluster.leader(RANGE).await.pin(target).await.unwrap();
    for store in stores() {
        ready(cluster, store, RANGE).await;
        ready(cluster, store, RIGHT).await;
    }
    frozen
}

async fn ready(cluster: &Cluster, store: StoreId, range: RangeId) {
    let replica = || cluster.replica(store, range);
    wait_for("a promise", || replica().is_some_and(|it| it.is_merging())).await;
    replica().unwrap().has_promised(MERGE).await.unwrap();
}

async fn absorb(cluster: &Cluster, frozen: &RangeDescriptor) -> Arc<RangeDescriptor> {
    let planned = RangeEpoch::INITIAL;
    cluster.leader(RANGE).await.absorb(MERGE, planned, frozen.clone()).await.unwrap()
}

async fn merged() -> Cluster {
    let cluster = neighbours().await;
    let frozen = promise(&cluster).await;
    absorb(&cluster, &frozen).await;
    cluster
}

/// Every store that is up holds one range, with all keys, and nothing of the other.
async fn check_one_range(cluster: &Cluster) {
    cluster.settle(RANGE).await;
    wait_for("the source to be gone everywhere", || {
        stores().iter().all(|store| cluster.replica(*store, RIGHT).is_none())
    })
    .await;
    for store in stores() {
        let multi = &cluster.nodes[&store].multi;
        assert_eq!(multi.replica_for_key(&bound("zz")).unwrap().range_id(), RANGE, "{store}");
    }
    assert_eq!(cluster.get(RANGE, "a").await.as_deref(), Some(&b"left"[..]));
    assert_eq!(cluster.get(RANGE, "z").await.as_deref(), Some(&b"right"[..]));
    cluster.put(RANGE, "z", "right").await;
}

fn short_logs(options: &mut cribwork_multiraft::MultiRaftOptions) {
    options.log_entries_max = 8;
    options.log_entries_kept = 2;
}

/// The store of the target's leader.
async fn home_of_target(cluster: &Cluster) -> StoreId {
    home(&cluster.leader(RANGE).await)
}

fn home(replica: &Arc<Replica>) -> StoreId {
    replica.descriptor().replica(replica.replica_id()).unwrap().store
}

#[tokio::test]
async fn a_range_absorbs_its_neighbour() {
    let cluster = merged().await;
    let now = cluster.leader(RANGE).await.descriptor();
    assert_eq!((now.span.end.clone(), now.epoch.version), (Bytes::new(), 3), "above both");
    check_one_range(&cluster).await;
    let again = absorb(&cluster, &RangeDescriptor { span: now.span.clone(), ..descriptor() }).await;
    assert_eq!(again.epoch.version, 3, "asked again, it is done already");
    // Also if it has lost those keys since.
    let leader = cluster.leader(RANGE).await;
    let token = leader.token().await.unwrap();
    let mut right = new_range();
    right.id.0 = 9;
    for (_, id) in &mut right.replicas {
        id.0 += 1000;
    }
    leader.split(&token, bound("c"), right).await.unwrap();
    assert_eq!(absorb(&cluster, &now).await.epoch.version, 4);
}

#[tokio::test]
async fn a_merge_survives_a_power_cut_of_all() {
    let mut cluster = merged().await;
    for (store, engine) in stores().map(|store| (store, cluster.kill(store))) {
        cluster.boot(store, engine);
    }
    check_one_range(&cluster).await;
}

#[tokio::test]
async fn promises_survive_a_power_cut_of_all() {
    let mut cluster = neighbours().await;
    let frozen = promise(&cluster).await;
    for (store, engine) in stores().map(|store| (store, cluster.kill(store))) {
        cluster.boot(store, engine);
    }
    assert!(matches!(
        cluster.leader(RIGHT).await.token().await,
        Err(RaftError::Merging { .. } | RaftError::NotLeader { .. })
    ));
    absorb(&cluster, &frozen).await;
    check_one_range(&cluster).await;
}

#[tokio::test]
async fn nothing_is_read_or_written_behind_the_freeze() {
    let cluster = neighbours().await;
    let leader = cluster.leader(RIGHT).await;
    let token = leader.token().await.unwrap();
    let (_, source) = plan(&cluster).await;
    leader.freeze(source).await.unwrap();
    let late = leader.propose(&token, one_put("z", "late")).await;
    assert!(matches!(late, Err(RaftError::EpochChanged { .. })), "{late:?}");
    assert!(leader.try_read().is_none() && leader.lease_term().is_none());
    assert!(matches!(leader.token().await, Err(RaftError::Merging { .. })));
    assert!(leader.read().await.is_err());
}

/// Who waits for a frozen range is sent to the one that absorbs it.
#[tokio::test]
async fn who_waits_is_told_where_the_keys_are() {
    let cluster = neighbours().await;
    let frozen = promise(&cluster).await;
    let leader = cluster.leader(RIGHT).await;
    let waits = tokio::spawn(async move { put(&leader, "z", "late").await });
    absorb(&cluster, &frozen).await;
    match waits.await.unwrap() {
        Err(RaftError::EpochChanged { current, .. }) => assert_eq!(current[0].id, RANGE),
        other => panic!("expected an epoch error, got {other:?}"),
    }
    check_one_range(&cluster).await;
}

#[tokio::test]
async fn an_abandoned_merge_leaves_both_as_they_were() {
    let cluster = neighbours().await;
    let (target, source) = plan(&cluster).await;
    promise(&cluster).await;
    let (left, right) = (cluster.leader(RANGE).await, cluster.leader(RIGHT).await);
    right.abandon_merge(MERGE, source.planned).await.unwrap();
    left.abandon_merge(MERGE, target.planned).await.unwrap();
    right.abandon_merge(MERGE, source.planned).await.unwrap();
    cluster.put(RIGHT, "z", "on").await;
    assert_eq!(cluster.get(RIGHT, "z").await.as_deref(), Some(&b"on"[..]));
    for (replica, part) in [(&right, source), (&left, target)] {
        let again = match part.with == RANGE {
            true => replica.freeze(part).await,
            false => replica.pin(part).await,
        };
        assert!(matches!(again, Err(RaftError::EpochChanged { .. })), "what comes late: {again:?}");
    }
}

/// The order to begin may still be under way when the merge is abandoned.
#[tokio::test]
async fn a_merge_that_was_abandoned_first_never_begins() {
    let cluster = neighbours().await;
    let (target, source) = plan(&cluster).await;
    let (left, right) = (cluster.leader(RANGE).await, cluster.leader(RIGHT).await);
    right.abandon_merge(MERGE, source.planned).await.unwrap();
    left.abandon_merge(MERGE, target.planned).await.unwrap();
    assert!(matches!(right.freeze(source).await, Err(RaftError::EpochChanged { .. })));
    assert!(matches!(left.pin(target).await, Err(RaftError::EpochChanged { .. })));
    let right_now = right.descriptor().as_ref().clone();
    let never = left.absorb(MERGE, left.descriptor().epoch, right_now).await;
    assert!(matches!(never, Err(RaftError::Refused { .. })), "{never:?}");
    cluster.put(RIGHT, "z", "on").await;
}

#[tokio::test]
async fn what_was_promised_keeps_its_bounds_and_members() {
    let cluster = neighbours().await;
    promise(&cluster).await;
    let left = cluster.leader(RANGE).await;
    let token = left.token().await.unwrap();
    let mut right = new_range();
    right.id.0 = 9;
    for (_, id) in &mut right.replicas {
        id.0 += 1000;
    }
    let split = left.split(&token, bound("c"), right).await;
    assert!(matches!(split, Err(RaftError::ChangeFailed { .. })), "{split:?}");
    for range in [RANGE, RIGHT] {
        let leader = cluster.leader(range).await;
        let learner = ReplicaChange::AddLearner { id: ReplicaId(900), store: StoreId(4) };
        let changed = leader.change_replicas(learner).await;
        let refused =
            matches!(changed, Err(RaftError::ChangeFailed { .. } | RaftError::Merging { .. }));
        assert!(refused, "{changed:?}");
    }
}

/// Leaders of both move in the middle; the next ones know.
#[tokio::test]
async fn promises_outlive_their_leaders() {
    let cluster = neighbours().await;
    let frozen = promise(&cluster).await;
    for range in [RIGHT, RANGE] {
        cluster.settle(range).await;
        let leader = cluster.leader(range).await;
        let home = home(&leader);
        let other = stores().into_iter().find(|store| *store != home).unwrap();
        let multi = &cluster.nodes[&home].multi;
        wait_for("the other store to be heard of", || multi.store_is_live(other)).await;
        leader.transfer_leader(other).await.unwrap();
    }
    let right = cluster.leader(RIGHT).await;
    assert!(right.try_read().is_none());
    absorb(&cluster, &frozen).await;
    check_one_range(&cluster).await;
}

/// A store that promised and was away when it was decided absorbs when it returns.
#[tokio::test]
async fn a_member_that_slept_through_a_merge_catches_up() {
    let mut cluster = neighbours().await;
    let frozen = promise(&cluster).await;
    let leader = cluster.leader(RANGE).await;
    let behind = stores().into_iter().find(|store| *store != home(&leader)).unwrap();
    let engine = cluster.kill(behind);
    absorb(&cluster, &frozen).await;
    cluster.put(RANGE, "a", "left").await;
    cluster.boot(behind, engine);
    check_one_range(&cluster).await;
}

/// The same with a log that is cut: the snapshot of the target takes the place of both.
#[tokio::test]
async fn a_snapshot_past_a_merge_buries_what_it_covers() {
    let mut cluster = neighbours_tuned(short_logs).await;
    let frozen = promise(&cluster).await;
    let leader = cluster.leader(RANGE).await;
    let behind = stores().into_iter().find(|store| *store != home(&leader)).unwrap();
    let engine = cluster.kill(behind);
    absorb(&cluster, &frozen).await;
    for number in 0..40 {
        cluster.put(RANGE, "b", &number.to_string()).await;
    }
    let home = home(&cluster.leader(RANGE).await);
    cluster.wait_for_cut_log(home, RANGE).await;
    cluster.boot(behind, engine);
    check_one_range(&cluster).await;
    assert!(cluster.nodes[&behind].multi.snapshots_installed() > 0);
}

/// Simulator, seed 45 of that build: a store that had a promise by snapshot did not know of it, and went
/// its own way when the merge was abandoned.
#[tokio::test]
async fn promises_come_with_snapshots() {
    let mut cluster = neighbours_tuned(short_logs).await;
    let leads = [home(&cluster.leader(RANGE).await), home(&cluster.leader(RIGHT).await)];
    let behind = stores().into_iter().find(|store| !leads.contains(store)).unwrap();
    let engine = cluster.kill(behind);
    for number in 0..40 {
        cluster.put(RANGE, "b", &number.to_string()).await;
        cluster.put(RIGHT, "y", &number.to_string()).await;
    }
    for (store, range) in leads.into_iter().zip([RANGE, RIGHT]) {
        cluster.wait_for_cut_log(store, range).await;
    }
    let (target, source) = plan(&cluster).await;
    cluster.leader(RIGHT).await.freeze(source).await.unwrap();
    cluster.leader(RANGE).await.pin(target).await.unwrap();
    cluster.boot(behind, engine);
    ready(&cluster, behind, RANGE).await;
    ready(&cluster, behind, RIGHT).await;
    assert!(cluster.nodes[&behind].multi.snapshots_installed() > 1);
}

/// The target was split inside of what it had absorbed before the late store came to it.
#[tokio::test]
async fn what_was_absorbed_may_be_split_before_everybody_knows() {
    let mut cluster = neighbours_tuned(short_logs).await;
    let frozen = promise(&cluster).await;
    let leader = home_of_target(&cluster).await;
    let behind = stores().into_iter().find(|store| *store != leader).unwrap();
    let engine = cluster.kill(behind);
    absorb(&cluster, &frozen).await;
    let leader = cluster.leader(RANGE).await;
    let token = leader.token().await.unwrap();
    let third = RangeId(9);
    let replicas = stores().map(|store| (store, ReplicaId(store.get() + 900))).to_vec();
    leader.split(&token, bound("t"), NewRange { id: third, replicas }).await.unwrap();
    for number in 0..40 {
        cluster.put(RANGE, "b", &number.to_string()).await;
    }
    cluster.wait_for_cut_log(home_of_target(&cluster).await, RANGE).await;
    cluster.boot(behind, engine);
    wait_for("the late store to hold all of it", || {
        let multi = &cluster.nodes[&behind].multi;
        [("n", RANGE), ("z", third)].iter().all(|(key, range)| {
            multi.replica_for_key(&bound(key)).is_some_and(|it| it.range_id() == *range)
        })
    })
    .await;
    cluster.settle(RANGE).await;
    cluster.settle(third).await;
    assert_eq!(cluster.get(third, "z").await.as_deref(), Some(&b"right"[..]));
}
