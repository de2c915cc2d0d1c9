//! Changes of members: replicas come, go and change places, asked of the leader on its own machine.

use std::sync::Arc;
use std::time::Duration;

use cribwork_multiraft::{MultiRaft, Replica, ReplicaChange};
use cribwork_placement::IdKind;
use cribwork_server::place::Place;
use cribwork_types::{RangeDescriptor, ReplicaId, ReplicaRole, StoreId};

/// Replicas of a range that somebody has an eye on.
const VOTERS: usize = 3;
/// Times that one step is tried: leaders move meanwhile, and newcomers need time.
const ATTEMPTS: u32 = 4;
/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(300);

/// Changes the members of one range that this node leads, or of the placement group; `number` says of
/// which, and how.
pub(crate) async fn change_one(multi: MultiRaft, place: Place, number: u64, nodes: usize) {
    let leads = |it: &&Arc<Replica>| it.leader().is_self;
    let led: Vec<Arc<Replica>> = multi.replicas().iter().filter(leads).cloned().collect();
    if led.is_empty() {
        return;
    }
    let replica = &led[number as usize % led.len()];
    let descriptor = replica.descriptor();
    let learner = descriptor.replicas.iter().find(|it| it.role == ReplicaRole::Learner);
    if let Some(learner) = learner {
        // Left by a change that did not get to its end.
        let (promote, remove) = match number % 3 {
            0 => (vec![], vec![learner.id]),
            _ => (vec![learner.id], surplus(replica, &descriptor, number)),
        };
        return insist(replica, ReplicaChange::Members { promote, remove }).await;
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
    let crowded = descriptor.voters().count() >= VOTERS && !number.is_multiple_of(4);
    let remove = if crowded { surplus(replica, &descriptor, number) } else { Vec::new() };
    insist(replica, ReplicaChange::Members { promote: vec![id], remove }).await;
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
