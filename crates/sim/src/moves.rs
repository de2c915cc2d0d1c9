//! Changes of members: replicas come, go and change places, asked of the leader on its own machine. A leader
//! that goes hands over first, and whoever leads next removes it. Some ranges are split meanwhile.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cribwork_multiraft::{MultiRaft, NewRange, Replica, ReplicaChange};
use cribwork_placement::IdKind;
use cribwork_server::place::Place;
use cribwork_types::{RangeDescriptor, RangeId, ReplicaId, ReplicaRole, StoreId, key};
use parking_lot::Mutex;

use crate::traffic::split_key;

/// Replicas of a range that somebody has an eye on.
const VOTERS: usize = 3;
/// Times that one step is tried: leaders move meanwhile, and newcomers need time.
const ATTEMPTS: u32 = 4;
/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(300);

/// How long a split waits for its range to be between two memberships, and how often it looks.
const JOINT_PATIENCE: Duration = Duration::from_secs(3);
const JOINT_PAUSE: Duration = Duration::from_millis(2);

/// Replicas that led and have handed over: whoever leads their range is to remove them.
pub(crate) type Leaving = Arc<Mutex<Vec<(RangeId, ReplicaId)>>>;

/// Removes those that are leaving ranges that this node leads.
pub(crate) fn see_off(multi: &MultiRaft, leaving: &Leaving) {
    leaving.lock().retain(|(range, id)| {
        let leads = |it: &Arc<Replica>| it.leader().is_self && it.replica_id() != *id;
        let Some(replica) = multi.replica(*range).filter(leads) else { return true };
        let remove = match replica.descriptor().voters().count() {
            0..VOTERS => return false,
            _ => vec![*id],
        };
        tokio::spawn(async move {
            insist(&replica, ReplicaChange::Members { promote: vec![], remove }).await;
        });
        false
    });
}

/// Changes the members of one range that this node leads, or of the placement group; `number` says of
/// which, and how.
pub(crate) async fn change_one(
    multi: MultiRaft,
    place: Place,
    number: u64,
    nodes: usize,
    leaving: Leaving,
) {
    let leads = |it: &&Arc<Replica>| it.leader().is_self;
    let led: Vec<Arc<Replica>> = multi.replicas().iter().filter(leads).cloned().collect();
    if led.is_empty() {
        return;
    }
    let replica = &led[number as usize % led.len()];
    let descriptor = replica.descriptor();
    if (number / 11).is_multiple_of(4) {
        return leave(replica, &descriptor, number, &leaving).await;
    }
    let learner = descriptor.replicas.iter().find(|it| it.role == ReplicaRole::Learner);
    if let Some(learner) = learner {
        // Left by a change that did not get to its end.
        let (promote, remove) = match number % 3 {
            0 => (vec![], vec![learner.id]),
            _ => (vec![learner.id], surplus(replica, &descriptor, number)),
        };
        return change_and_split(replica, promote, remove, &place, number, nodes).await;
    }
    let free = (1..=nodes as u64).map(StoreId).filter(|it| descriptor.replica_on(*it).is_none());
    let free: Vec<StoreId> = free.collect();
    let shrink = free.is_empty() || descriptor.voters().count() > VOTERS;
    if shrink {
        let remove = surplus(replica, &descriptor, number);
        return insist(replica, ReplicaChange::Members { promote: vec![], remove }).await;
    }
    let Ok(id) = place.alloc_ids(IdKind::Replica, 1).await else { return };
    let (id, store) = (ReplicaId(id), free[number as usize / 7 % free.len()]);
    insist(replica, ReplicaChange::AddLearner { id, store }).await;
    if (number / 5).is_multiple_of(3) {
        // It stays a learner until the next change.
        return;
    }
    let crowded = descriptor.voters().count() >= VOTERS && !number.is_multiple_of(4);
    let remove = if crowded { surplus(replica, &descriptor, number) } else { Vec::new() };
    change_and_split(replica, vec![id], remove, &place, number, nodes).await;
}

/// Changes voters, and mostly splits the range as soon as it is between two memberships. Nothing may come
/// of either.
async fn change_and_split(
    replica: &Arc<Replica>,
    promote: Vec<ReplicaId>,
    remove: Vec<ReplicaId>,
    place: &Place,
    number: u64,
    nodes: usize,
) {
    let change = ReplicaChange::Members { promote, remove };
    let ids = async {
        let id = place.alloc_ids(IdKind::Range, 1).await.ok()?;
        Some((RangeId(id), place.alloc_ids(IdKind::Replica, nodes as u32).await.ok()?))
    };
    match ids.await.filter(|_| !number.is_multiple_of(4)) {
        None => insist(replica, change).await,
        Some((id, first)) => {
            let split = split_meanwhile(replica, id, ReplicaId(first), number);
            futures::join!(insist(replica, change), split);
        }
    }
}

/// The leader itself goes.
async fn leave(
    replica: &Arc<Replica>,
    descriptor: &RangeDescriptor,
    number: u64,
    leaving: &Leaving,
) {
    let own = replica.replica_id();
    let others: Vec<StoreId> =
        descriptor.voters().filter(|it| it.id != own).map(|it| it.store).collect();
    if others.is_empty() {
        return;
    }
    let to = others[number as usize / 3 % others.len()];
    match replica.transfer_leader(to).await {
        Ok(()) => leaving.lock().push((replica.range_id(), own)),
        Err(error) => tracing::info!(range = %replica.range_id(), %error, "the leader stays"),
    }
}

async fn split_meanwhile(replica: &Arc<Replica>, id: RangeId, first: ReplicaId, number: u64) {
    let keys = (0..20).map(|at| Bytes::from(key::encode(&split_key(number / 2 + at))));
    let inside = |bound: &Bytes| replica.descriptor().span.contains(bound);
    let Some(bound) = keys.into_iter().find(inside) else { return };
    let (mut patience, mut left) = (JOINT_PATIENCE, ATTEMPTS);
    while !patience.is_zero() && left > 0 {
        if replica.descriptor().is_joint()
            && let Ok(token) = replica.token().await
        {
            let stores =
                replica.descriptor().replicas.iter().map(|it| it.store).collect::<Vec<_>>();
            let replicas = stores.into_iter().zip((first.get()..).map(ReplicaId)).collect();
            let split = replica.split(&token, bound.clone(), NewRange { id, replicas }).await;
            tracing::info!(range = %replica.range_id(), ?split, "split meanwhile");
            left = if split.is_ok() { 0 } else { left - 1 };
        }
        patience = patience.saturating_sub(JOINT_PAUSE);
        tokio::time::sleep(JOINT_PAUSE).await;
    }
}

/// A follower, unless there are no two voters beside the leader.
fn surplus(leader: &Replica, descriptor: &RangeDescriptor, number: u64) -> Vec<ReplicaId> {
    let followers: Vec<ReplicaId> =
        descriptor.voters().map(|it| it.id).filter(|id| *id != leader.replica_id()).collect();
    match followers.len() {
        0 | 1 => Vec::new(),
        count => vec![followers[number as usize / 3 % count]],
    }
}

async fn insist(replica: &Arc<Replica>, change: ReplicaChange) {
    for _ in 0..ATTEMPTS {
        match replica.change_replicas(change.clone()).await {
            Ok(_) => return,
            Err(error) => {
                tracing::info!(range = %replica.range_id(), ?change, %error, "members stay");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
