//! Changing who holds a range: learners, promotion, removal.
//!
//! Raft's own membership entries are the record of truth: applying one changes the descriptor in the
//! same batch, and raises `conf_ver` by one. More than one voter changes in two steps, through a
//! *joint* membership in which both sets of voters have to agree (Ongaro's thesis, 4.3). A leader that
//! finds a joint membership, its own or another's, finishes it.
//!
//! Invariants:
//! * a learner is promoted only once its log has caught up, so that a change does not cost the range
//!   its majority;
//! * nobody is removed unless a majority of those that stay has caught up as well;
//! * a leader is never removed while it leads: leadership moves first;
//! * one change at a time, and none that is based on another leader's view.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cribwork_types::quirk::{Quirk, strikes};
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{
    RangeDescriptor, ReplicaDescriptor, ReplicaId, ReplicaRole, RuntimeExt, StoreId,
};

use crate::error::RaftError;
use crate::raft::{ChangeError, MembersChange, WriteError};
use crate::records::Members;
use crate::replica::{LiveInstance, Replica};

/// How long a change waits for a learner's log before it says that the learner is behind.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two looks at a learner's log.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(20);
/// Entries by which a member may be behind and count as caught up: those under way.
const MAJORITY_LAG_MAX: u64 = 64;
/// How long [`Quirk::LeaveJoint`] stays for a change at most, milliseconds: a round or two.
const STAY_MAX_MS: u64 = 30;
/// How long a change of members may take once it is proposed.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);

/// One change of a range's members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaChange {
    /// A new member that receives data but does not vote. Nothing changes if it is one already.
    AddLearner {
        /// Its id: never used before.
        id: ReplicaId,
        /// Where it shall live: a store without a replica of the range.
        store: StoreId,
    },
    /// Learners that become voters, and members that go, all at once. Those that are what they shall
    /// be already are left alone.
    Members {
        /// Learners that shall vote.
        promote: Vec<ReplicaId>,
        /// Members that shall go, learners or voters; never the leader itself.
        remove: Vec<ReplicaId>,
    },
}

/// The role of a member in `members`.
pub(crate) fn role(members: &Members, id: ReplicaId) -> ReplicaRole {
    let in_set = |at: usize| members.voter_sets.get(at).is_some_and(|set| set.contains(&id));
    let last = members.voter_sets.len().saturating_sub(1);
    match (in_set(0), in_set(last)) {
        (true, true) => ReplicaRole::Voter,
        (false, true) => ReplicaRole::Incoming,
        (true, false) => ReplicaRole::Outgoing,
        (false, false) => ReplicaRole::Learner,
    }
}

/// `old` with `members`: who was there before keeps its place, who is new comes last, by id.
pub(crate) fn with_members(old: &RangeDescriptor, members: &Members) -> RangeDescriptor {
    let stays = |replica: &ReplicaDescriptor| members.stores.contains_key(&replica.id);
    let mut ids: Vec<ReplicaId> =
        old.replicas.iter().filter(|it| stays(it)).map(|replica| replica.id).collect();
    ids.extend(members.stores.keys().filter(|id| old.replica(**id).is_none()));
    let replica = |id: ReplicaId| {
        let store = members.stores.get(&id).copied()?;
        Some(ReplicaDescriptor { id, store, role: role(members, id) })
    };
    let mut new = old.clone();
    new.epoch.conf_ver += u64::from(!has(Bug::ConfVerUnchanged));
    new.replicas = ids.into_iter().filter_map(replica).collect();
    new
}

impl Replica {
    /// Changes the members of this leader's range; gives the range as it is then. What is so already
    /// is no error, so a change may be asked for again.
    ///
    /// # Errors
    /// [`RaftError::NotLeader`]; [`RaftError::Refused`] for what never fits; and
    /// [`RaftError::ChangeFailed`], after which the change may be asked for again: nothing of it
    /// happened, or a first part, which the range's leader takes further by itself.
    pub async fn change_replicas(
        self: &Arc<Self>,
        change: ReplicaChange,
    ) -> Result<Arc<RangeDescriptor>, RaftError> {
        let range = self.range_id();
        let busy = RaftError::ChangeFailed { range, why: "another change is under way" };
        let _one_at_a_time = self.changing.try_lock().map_err(|_| busy)?;
        let term = self.token().await?.term();
        // Not before: by now it has applied everything of earlier leaders, and what it proposes itself
        // has to wait for this change.
        if self.is_merging() && !has(Bug::SplitWhilePinned) {
            return Err(RaftError::ChangeFailed { range, why: "it is about to be merged" });
        }
        if self.descriptor().is_joint() {
            self.flatten(term).await?;
        }
        match change {
            ReplicaChange::AddLearner { id, store } => self.add_learner(term, id, store).await?,
            ReplicaChange::Members { promote, remove } => {
                self.change_voters(term, promote, remove).await?;
            }
        }
        self.shared().metrics.membership_changes.inc();
        Ok(self.descriptor())
    }

    async fn add_learner(
        self: &Arc<Self>,
        term: u64,
        id: ReplicaId,
        store: StoreId,
    ) -> Result<(), RaftError> {
        let range = self.range_id();
        let descriptor = self.descriptor();
        match (descriptor.replica(id), descriptor.replica_on(store)) {
            (Some(known), _) if known.store == store => return Ok(()),
            (None, None) => {}
            _ => {
                let why = format!("store {store} or replica {id} is a member already");
                return Err(RaftError::Refused { range, why });
            }
        }
        if descriptor.replicas.iter().any(|member| member.id > id) {
            // A store remembers the highest id that it was rid of, and takes none below.
            let why = format!("replica {id} is no new id");
            return Err(RaftError::Refused { range, why });
        }
        self.shared().note_peer(store);
        self.write_members(term, MembersChange::AddLearner(id, store)).await
    }

    async fn change_voters(
        self: &Arc<Self>,
        term: u64,
        promote: Vec<ReplicaId>,
        remove: Vec<ReplicaId>,
    ) -> Result<(), RaftError> {
        let range = self.range_id();
        let descriptor = self.descriptor();
        let refused = |why: String| RaftError::Refused { range, why };
        if remove.contains(&self.replica_id()) {
            return Err(refused("a leader is not removed: transfer leadership first".into()));
        }
        let (mut incoming, mut outgoing, mut learners) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for id in promote {
            match descriptor.replica(id).map(|member| member.role) {
                Some(ReplicaRole::Learner) if !remove.contains(&id) => drop(incoming.insert(id)),
                Some(role) if role.votes() => {}
                _ => return Err(refused(format!("replica {id} is no learner of the range"))),
            }
        }
        for id in remove {
            match descriptor.replica(id).map(|member| member.role) {
                Some(ReplicaRole::Learner) => drop(learners.insert(id)),
                Some(_) => drop(outgoing.insert(id)),
                None => {}
            }
        }
        if incoming.is_empty() && outgoing.is_empty() && learners.is_empty() {
            return Ok(());
        }
        for id in &incoming {
            self.wait_for_learner(term, *id).await?;
        }
        if !outgoing.is_empty() {
            let goes = |id: &ReplicaId| outgoing.contains(id);
            let stay = descriptor.voters().map(|voter| voter.id).filter(|id| !goes(id));
            self.check_majority(stay.chain(incoming.iter().copied()).collect()).await?;
        }
        self.write_members(term, MembersChange::Voters { incoming, outgoing, learners }).await
    }

    /// Of those that shall vote, a majority holds what this leader has applied. Else the change could
    /// not be committed, and nobody could be elected in its place: a member that slept through the
    /// split that made it has nothing to vote with.
    async fn check_majority(self: &Arc<Self>, voters: Vec<ReplicaId>) -> Result<(), RaftError> {
        let range = self.range_id();
        let live = self.instance().await?;
        let wanted = self.applied_index().saturating_sub(MAJORITY_LAG_MAX);
        let has_it = |id: &&ReplicaId| {
            **id == self.replica_id()
                || live.raft.matched(**id).is_some_and(|index| index >= wanted)
        };
        let enough = || voters.iter().filter(has_it).count() > voters.len() / 2;
        if enough() {
            return Ok(());
        }
        // A leader that was cold a moment ago has not asked its members yet.
        let _ = self.confirm(&live, self.shared().options.transfer_timeout).await;
        if enough() {
            return Ok(());
        }
        Err(RaftError::ChangeFailed { range, why: "too few of those that stay have caught up" })
    }

    /// Until the learner's log is as long as this leader's was a moment ago.
    async fn wait_for_learner(
        self: &Arc<Self>,
        term: u64,
        learner: ReplicaId,
    ) -> Result<(), RaftError> {
        let range = self.range_id();
        let runtime = self.shared().runtime.clone();
        let deadline = runtime.now() + CATCH_UP_PATIENCE;
        let live = self.instance().await?;
        let wanted = self.applied_index();
        while live.raft.matched(learner).is_none_or(|index| index < wanted) {
            if !self.still_leads(term, Duration::MAX) {
                return Err(self.not_leader());
            }
            if runtime.now() >= deadline {
                return Err(RaftError::ChangeFailed { range, why: "the new member is behind" });
            }
            runtime.sleep(CATCH_UP_PAUSE).await;
        }
        Ok(())
    }

    /// Leaves a joint membership for its later set of voters.
    async fn flatten(self: &Arc<Self>, term: u64) -> Result<(), RaftError> {
        let range = self.range_id();
        let descriptor = self.descriptor();
        let me = descriptor.replica(self.replica_id());
        if me.is_none_or(|me| me.role == ReplicaRole::Outgoing) {
            // Who goes with the old set hands over to one who stays, which then finishes.
            self.hand_to_a_stayer(&descriptor).await?;
            return Err(RaftError::ChangeFailed { range, why: "its leader has just moved" });
        }
        self.write_members(term, MembersChange::Flatten).await
    }

    async fn hand_to_a_stayer(
        self: &Arc<Self>,
        descriptor: &RangeDescriptor,
    ) -> Result<(), RaftError> {
        let stays = |member: &ReplicaDescriptor| member.role != ReplicaRole::Outgoing;
        let mut last = self.not_leader();
        for voter in descriptor.voters().filter(stays) {
            match self.transfer_leader(voter.store).await {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Proposes a change under `term` and waits until it is applied here.
    async fn write_members(
        self: &Arc<Self>,
        term: u64,
        change: MembersChange,
    ) -> Result<(), RaftError> {
        let range = self.range_id();
        let runtime = self.shared().runtime.clone();
        let deadline = runtime.now() + CHANGE_TIMEOUT;
        loop {
            let live = self.instance().await?;
            let left = deadline.saturating_sub(runtime.now());
            let late = RaftError::ChangeFailed { range, why: "no majority agreed in time" };
            let stay = match strikes(Quirk::LeaveJoint) {
                true => Duration::from_millis(runtime.random_u64() % STAY_MAX_MS),
                false => left,
            };
            let written = live.raft.change_members(term, change.clone());
            let written = runtime.timeout(stay.min(left), written);
            match written.await.map_err(|_| late)? {
                Ok(()) => return Ok(()),
                Err(ChangeError::Refused(why)) => {
                    return Err(RaftError::ChangeFailed { range, why });
                }
                Err(ChangeError::Write(WriteError::LeaseExpired)) => {
                    self.prove_or_fail(&live, left).await?;
                }
                Err(ChangeError::Write(WriteError::Fatal(why))) => {
                    return Err(RaftError::Fatal { range, why });
                }
                Err(ChangeError::Write(WriteError::NotLeader | WriteError::Discarded)) => {
                    return Err(self.not_leader());
                }
            }
        }
    }

    async fn prove_or_fail(
        self: &Arc<Self>,
        live: &LiveInstance,
        left: Duration,
    ) -> Result<(), RaftError> {
        match self.confirm(live, left.min(Duration::from_millis(500))).await {
            Ok(_) => Ok(()),
            Err(_) if !left.is_zero() && self.leader().is_self => Ok(()),
            Err(_) => Err(self.not_leader()),
        }
    }

    /// Finishes a joint membership that this leader finds, in the background. Called by the driver
    /// for as long as there is one.
    pub(crate) fn finish_joint(self: &Arc<Self>) {
        let term = self.serving_term.load(Ordering::Acquire);
        if term == 0 || !self.descriptor().is_joint() || has(Bug::JointLeft) {
            return;
        }
        let replica = self.clone();
        self.shared().runtime.spawn(Box::pin(async move {
            let Ok(_one_at_a_time) = replica.changing.try_lock() else { return };
            if replica.descriptor().is_joint()
                && let Err(error) = replica.flatten(term).await
            {
                tracing::info!(range = %replica.range_id(), %error, "still between two memberships");
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use cribwork_types::{KeyRange, RangeEpoch, RangeId};

    use super::*;

    fn members(sets: &[&[u64]], all: &[u64]) -> Members {
        Members {
            voter_sets: sets
                .iter()
                .map(|set| set.iter().copied().map(ReplicaId).collect())
                .collect(),
            stores: all.iter().map(|id| (ReplicaId(*id), StoreId(*id))).collect(),
        }
    }

    fn shown(descriptor: &RangeDescriptor) -> String {
        let one = |it: &ReplicaDescriptor| format!("{}{}", it.id.get(), &it.role.name()[..1]);
        descriptor.replicas.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_descriptor_follows_its_members() {
        let start = RangeDescriptor {
            id: RangeId(1),
            span: KeyRange::all(),
            epoch: RangeEpoch::INITIAL,
            replicas: Vec::new(),
        };
        let three = with_members(&start, &members(&[&[1, 2, 3]], &[1, 2, 3]));
        assert_eq!(shown(&three), "1v 2v 3v");
        let learner = with_members(&three, &members(&[&[1, 2, 3]], &[1, 2, 3, 4]));
        assert_eq!(shown(&learner), "1v 2v 3v 4l");
        let joint = with_members(&learner, &members(&[&[1, 2, 3], &[2, 3, 4]], &[1, 2, 3, 4]));
        assert_eq!(shown(&joint), "1o 2v 3v 4i");
        assert!(joint.is_joint());
        let done = with_members(&joint, &members(&[&[2, 3, 4]], &[2, 3, 4]));
        assert_eq!((shown(&done), done.epoch.conf_ver), ("2v 3v 4v".to_owned(), 5));
        assert!(!done.is_joint());
    }
}
