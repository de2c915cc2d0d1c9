//! The node's liveness driver: one sweep a period over all replicas instead of a tick in each.
//!
//! It sends liveness messages, renews leases of leaders that serve reads but append nothing, makes
//! replicas without a live leader campaign, cuts logs, and restarts instances that died.
//!
//! Level-triggered: a sweep looks at the state as it is, so a lost event delays nothing by more than a
//! second. While nothing changes, most sweeps look at nothing at all: a thousand idle ranges cost
//! little. Candidates of one range go in order of rank, spread by range so that a dead node's
//! ranges do not all end up on one survivor, with jitter, and by pre-vote only. The first one goes
//! as soon as the promises to the dead leader end, and the driver wakes early for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cribwork_transport::{Class, Message};
use cribwork_types::quirk::{Quirk, at_work, strikes};
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{RangeId, ReplicaId, RuntimeExt, StoreId};

use crate::node::NodeShared;
use crate::raft::kind;
use crate::replica::{LiveInstance, Replica};

/// Pause between candidates of neighbouring rank.
const RANK_STEP_MS: u64 = 100;
/// Random part of every delay.
const JITTER_MS: u64 = 40;
/// Pause before a candidate tries again.
const RETRY_MS: u64 = 150;
/// The same where most of the voters are not alive, as far as is known.
const HOPELESS_RETRY_MS: u64 = 1000;
/// Least time between two looks for campaigns that are due.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// How much later than this replica the other voters may have heard the dead leader.
const PROMISE_SLACK_MS: u64 = 10;
/// Sweeps between two looks at every replica while nothing has changed.
const QUIET_SWEEPS: u64 = 10;
/// Sweeps between two looks at logs, dead instances and unanswered calls.
const SLOW_SWEEPS: u64 = 5;

/// Somebody waits for a leader.
const URGENT: u8 = 0;

/// Looks at logs and instances, among which each idle replica is looked at once.
const IDLE_LOOKS: u64 = 10;

/// When a replica without a leader campaigns next.
#[derive(Debug, Default)]
pub(crate) struct Campaigning {
    next_ms: Option<u64>,
}

/// Runs until the node stops.
pub(crate) async fn run(shared: Arc<NodeShared>) {
    let mut sweeps = 0;
    let mut last = shared.runtime.now();
    let mut peers = Vec::new();
    let mut due = None;
    while !shared.is_stopping() {
        let now = shared.runtime.now();
        shared.liveness.excuse(now.saturating_sub(last), shared.options.liveness_period);
        last = now;
        ping_peers(&shared);
        let before = std::mem::replace(&mut peers, lives(&shared));
        let quiet = before == peers
            && peers.iter().all(|(_, life)| life.is_some())
            && !shared.within_first_lease();
        ask_for_leaders(&shared, &before, &peers);
        let changed = shared.leaders_changed.swap(false, Ordering::AcqRel);
        if !quiet || changed || due.is_some() || sweeps % QUIET_SWEEPS == 0 {
            due = campaigns(&shared, &shared.replicas());
        }
        sweep(&shared, sweeps);
        sweeps += 1;
        let next = now + shared.options.liveness_period;
        // Campaigns that fall due before the next sweep are not kept waiting for it.
        while let Some(at) = due.filter(|at| *at + LOOK_PAUSE < next) {
            let pause = at.saturating_sub(shared.runtime.now()).max(LOOK_PAUSE);
            shared.runtime.sleep(pause).await;
            due = campaigns(&shared, &shared.replicas());
        }
        shared.runtime.sleep(next.saturating_sub(shared.runtime.now())).await;
    }
}

fn ping_peers(shared: &NodeShared) {
    for store in shared.peers() {
        let message = Message {
            range: RangeId::PLACEMENT,
            from: ReplicaId(0),
            to: ReplicaId(0),
            kind: kind::LIVENESS,
            call: 0,
            payload: shared.liveness.ping(),
        };
        shared.send(store, Class::Control, message);
    }
}

/// A peer that was dead, or lives a new life, or was never heard of, may lead what this node holds.
fn ask_for_leaders(
    shared: &NodeShared,
    before: &[(StoreId, Option<u64>)],
    peers: &[(StoreId, Option<u64>)],
) {
    for (store, life) in peers {
        if life.is_some() && !before.contains(&(*store, *life)) {
            shared.ask_who_leads(*store);
        }
    }
}

/// The peers, and which life each is in; none for one that is dead.
fn lives(shared: &NodeShared) -> Vec<(StoreId, Option<u64>)> {
    let life = |store| (store, shared.liveness.incarnation(store));
    shared.peers().into_iter().map(life).collect()
}

/// Renews leases and looks after logs and instances, when it is time.
fn sweep(shared: &Arc<NodeShared>, number: u64) {
    let renewal = shared.options.lease_renewal.as_millis() as u64;
    let period = shared.options.liveness_period.as_millis().max(1) as u64;
    let renew = number.is_multiple_of((renewal / period).max(1)) && shared.served_reads_lately();
    let slow = number.is_multiple_of(SLOW_SWEEPS);
    if slow {
        shared.calls.expire(shared.runtime.now());
    }
    if !renew && !slow {
        return;
    }
    for replica in shared.replicas().iter() {
        if renew {
            renew_lease(replica);
        }
        let turn = replica.range_id().get() % IDLE_LOOKS == number / SLOW_SWEEPS % IDLE_LOOKS
            || at_work(Quirk::EagerCold);
        if slow && (turn || replica.has_news()) {
            maintain(replica);
        }
    }
}

/// Starts the campaigns that are due, a bounded number at once; when the next one is.
fn campaigns(shared: &Arc<NodeShared>, replicas: &[Arc<Replica>]) -> Option<Duration> {
    let (mut candidates, mut next) = (Vec::new(), None);
    for replica in replicas {
        match wants_to_campaign(shared, replica) {
            None => {}
            Some(Wish::Now(urgency, due)) => {
                candidates.push(((urgency, due, replica.range_id()), replica));
            }
            Some(Wish::Later(at)) => next = Some(next.map_or(at, |next: u64| next.min(at))),
        }
    }
    // Ranges with waiting requests first, then recently used ones, then the rest; of those, who has waited
    // longest, so that ranges without a majority do not stand before all others.
    candidates.sort_unstable_by_key(|(order, _)| *order);
    let now = shared.runtime.now();
    // Elections that are not over yet leave less room for more: begun all at once, none would end in time,
    // nor would those that somebody waits for.
    let under_way = shared.elections.load(Ordering::Relaxed);
    let room = shared.options.elections_max.saturating_sub(under_way).max(1);
    let urgent = candidates.iter().take_while(|((urgency, ..), _)| *urgency == URGENT).count();
    let at_once = urgent.min(shared.options.campaigns_per_sweep).max(room);
    let left = candidates.split_off(at_once.min(candidates.len()));
    candidates.into_iter().for_each(|(_, replica)| campaign(replica));
    match left.is_empty() {
        true => next.map(Duration::from_millis),
        false => Some(now),
    }
}

fn renew_lease(replica: &Arc<Replica>) {
    let options = &replica.shared().options;
    if replica.serving_term.load(Ordering::Acquire) == 0
        || !replica.within(&replica.last_read_ms, options.read_activity)
    {
        return;
    }
    let Some(live) = replica.live() else { return };
    // Appends renew the lease by themselves.
    let term = replica.serving_term.load(Ordering::Acquire);
    if replica.quorum_age(term).is_some_and(|age| age < options.lease_renewal / 2) {
        return;
    }
    replica.shared().metrics.lease_renewals.inc();
    replica.shared().runtime.spawn(Box::pin(async move { live.raft.heartbeat().await }));
}

/// What a replica without a leader wants.
enum Wish {
    /// To campaign: the lower, the more urgent, and since when; runtime clock, milliseconds.
    Now(u8, u64),
    /// To be looked at again at this time, runtime clock, milliseconds.
    Later(u64),
}

/// Whether this replica wants to lead, and when.
fn wants_to_campaign(shared: &Arc<NodeShared>, replica: &Arc<Replica>) -> Option<Wish> {
    let mut campaigning = replica.campaigning.lock();
    if strikes(Quirk::Campaign) && votes(replica) {
        return Some(Wish::Now(2, replica.now_ms()));
    }
    if !is_leaderless(replica) || shared.within_first_lease() {
        campaigning.next_ms = None;
        return None;
    }
    let now = replica.now_ms();
    // Nobody grants a vote earlier, so that asking would only cost a round and a pause.
    let promised = replica.promised_until_ms() + PROMISE_SLACK_MS;
    let due = *campaigning.next_ms.get_or_insert_with(|| now.max(promised) + delay_ms(replica));
    if now < due {
        return Some(Wish::Later(due));
    }
    let recently = shared.options.read_activity;
    let used = replica.within(&replica.last_read_ms, recently)
        || replica.within(&replica.last_write_ms, recently);
    let waited_for = replica.within(&replica.last_wait_ms, Duration::from_secs(2));
    // Nothing can be found without placement.
    let urgency = match waited_for || replica.range_id() == RangeId::PLACEMENT {
        true => URGENT,
        false if used => 1,
        false => 2,
    };
    Some(Wish::Now(urgency, due))
}

/// True if this voter sees no leader that lives in the life in which it was last heard from.
fn is_leaderless(replica: &Arc<Replica>) -> bool {
    !replica.has_live_leader() && votes(replica)
}

/// By the newest membership in its log, which may not be applied yet. A cold member is built to find
/// out: an entry that it has not applied may have promoted it.
fn votes(replica: &Arc<Replica>) -> bool {
    let is_member = || replica.descriptor().replica(replica.replica_id()).is_some();
    let cold = || is_member() && !has(Bug::ColdSleepsOn);
    replica.is_initialised() && replica.live().map_or_else(cold, |live| live.raft.votes())
}

/// This replica's place among the live voters that may succeed the leader, rotated by range.
fn rank(replica: &Arc<Replica>) -> u64 {
    let descriptor = replica.descriptor();
    let shared = replica.shared();
    let mut stores: Vec<StoreId> = descriptor
        .voters()
        .map(|voter| voter.store)
        .filter(|store| shared.liveness.is_live(*store))
        .collect();
    stores.sort_unstable();
    let here = shared.options.store;
    let at = stores.iter().position(|store| *store == here).unwrap_or(0) as u64;
    let count = stores.len().max(1) as u64;
    (at + count - replica.range_id().get() % count) % count
}

/// By how much the candidates of a range are kept apart.
fn delay_ms(replica: &Arc<Replica>) -> u64 {
    rank(replica) * RANK_STEP_MS + replica.shared().runtime.random_u64() % JITTER_MS
}

/// As far as this replica's descriptor tells, which may be out of date.
fn majority_lives(replica: &Arc<Replica>) -> bool {
    let (descriptor, shared) = (replica.descriptor(), replica.shared());
    let live = descriptor.voters().filter(|it| shared.liveness.is_live(it.store)).count();
    live > descriptor.voters().count() / 2
}

fn campaign(replica: &Arc<Replica>) {
    let shared = replica.shared().clone();
    // Where a majority seems to be gone, there is less of a hurry.
    let retry = if majority_lives(replica) { RETRY_MS } else { HOPELESS_RETRY_MS };
    let again = replica.now_ms() + retry + delay_ms(replica);
    let again = if has(Bug::CampaignOnce) { u64::MAX } else { again };
    replica.campaigning.lock().next_ms = Some(again);
    shared.metrics.campaigns.inc();
    let replica = replica.clone();
    shared.elections.fetch_add(1, Ordering::Relaxed);
    shared.runtime.clone().spawn(Box::pin(async move {
        match replica.instance().await {
            Ok(live) => {
                let decided = replica.changed.notified();
                live.raft.campaign().await;
                let limit = Duration::from_millis(RETRY_MS);
                let _ = shared.runtime.timeout(limit, decided).await;
            }
            Err(error) => {
                tracing::warn!(range = %replica.range_id(), %error, "cannot campaign");
            }
        }
        shared.elections.fetch_sub(1, Ordering::Relaxed);
    }));
}

/// Cuts a log that is long, restarts an instance that died.
fn maintain(replica: &Arc<Replica>) {
    let Some(live) = replica.live() else { return };
    let shared = replica.shared();
    if let Some(why) = live.raft.fatal() {
        if shared.is_stopping() {
            return;
        }
        tracing::error!(range = %replica.range_id(), why, "raft stopped, restarting it");
        shared.metrics.rebuilt.inc();
        let replica = replica.clone();
        shared.runtime.spawn(Box::pin(async move { replica.restart(&live).await }));
        return;
    }
    if strikes(Quirk::Rebuild) {
        let (replica, live) = (replica.clone(), live.clone());
        shared.runtime.spawn(Box::pin(async move { replica.restart(&live).await }));
        return;
    }
    replica.finish_joint();
    replica.ask_if_behind(&live);
    replica.rest(&live);
    let (purged, _) = live.log.bounds();
    let applied = replica.applied_index();
    let held = applied.saturating_sub(purged.map_or(0, |purged| purged.index));
    let options = &shared.options;
    let entries_max = options.log_entries_max + options.log_entries_kept;
    let long = held > entries_max;
    let heavy = live.log.unpurged_bytes() > options.log_bytes_max;
    let far = held > 2 * entries_max || live.log.unpurged_bytes() > 2 * options.log_bytes_max;
    // openraft cuts nothing that is on its way to a member. One that is so slow that the log grows to
    // twice its bound has to give way, and gets a snapshot.
    replica.shrink_to.store(if far { applied - held / 2 } else { 0 }, Ordering::Relaxed);
    // What a snapshot under way ends at is needed behind it: cut further, it would be followed by
    // another one, and so for ever. Up to a bound.
    let snapshot_needs_it = replica.sending.load(Ordering::Relaxed) > 0 && !far;
    if (long || heavy) && !snapshot_needs_it {
        shared.metrics.log_cuts.inc();
        // A heavy log of few entries is cut down to a few.
        let keep = if long { options.log_entries_kept } else { (held / 4).max(1) };
        shared.runtime.spawn(Box::pin(async move { live.raft.cut_log(keep).await }));
    }
}

impl Replica {
    /// Builds the instance anew, unless somebody has done so since `dead` was found to be dead.
    async fn restart(self: &Arc<Self>, dead: &Arc<LiveInstance>) {
        let restarted = match self.close_if(|live| Arc::ptr_eq(live, dead)).await {
            Ok(()) => self.build(false).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = restarted {
            tracing::error!(range = %self.range_id(), %error, "cannot restart the replica");
        }
    }
}
