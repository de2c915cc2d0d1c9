//! Which members acknowledged this leader, and when what they acknowledged was SENT: what a lease and
//! a read index rest on.
//!
//! openraft keeps such a time too (`last_quorum_acked`), but stamps a request when it makes it, before
//! it leaves, and lets the late answer to an earlier request count for it. A leader that was paused
//! would take answers from before its pause for fresh ones.
//!
//! Invariant: a time in this table is the runtime clock before the request was handed to the
//! transport, and the request carried this leader's vote in this term.

use std::collections::BTreeSet;
use std::time::Duration;

use cribwork_types::ReplicaId;
use cribwork_types::seeded::{Bug, has};
use parking_lot::Mutex;
use tokio::sync::Notify;

#[derive(Default)]
struct Table {
    term: u64,
    sent: Vec<(ReplicaId, Duration)>,
}

/// The acknowledgements of one replica's leadership.
#[derive(Default)]
pub(crate) struct Acks {
    table: Mutex<Table>,
    news: Notify,
}

impl Acks {
    /// `member` accepted something that this leader sent at `sent` under its vote of `term`.
    pub(crate) fn record(&self, term: u64, member: ReplicaId, sent: Duration) {
        {
            let mut table = self.table.lock();
            if term < table.term {
                return;
            }
            if term > table.term {
                *table = Table { term, sent: Vec::new() };
            }
            match table.sent.iter_mut().find(|(known, _)| *known == member) {
                Some((_, newest)) => *newest = sent.max(*newest),
                None => table.sent.push((member, sent)),
            }
        }
        self.news.notify_waiters();
    }

    /// The latest time such that a majority of each of `voter_sets` accepted something sent then or
    /// later in `term`. `me` is no vote that has to be asked for. `None` if there is no such time.
    pub(crate) fn quorum_sent(
        &self,
        term: u64,
        me: ReplicaId,
        now: Duration,
        voter_sets: &[BTreeSet<ReplicaId>],
    ) -> Option<Duration> {
        let table = self.table.lock();
        let of = |member: &ReplicaId| match *member == me {
            true => Some(now),
            false if table.term != term => None,
            false => table.sent.iter().find(|(known, _)| known == member).map(|(_, at)| *at),
        };
        let agreed = |voters: &BTreeSet<ReplicaId>| {
            let mut times: Vec<Duration> = match has(Bug::LeaseOfLearners) && table.term == term {
                true => table.sent.iter().map(|(_, at)| *at).chain([now]).collect(),
                false => voters.iter().filter_map(of).collect(),
            };
            times.sort_unstable_by(|one, other| other.cmp(one));
            times.get(voters.len() / 2).copied()
        };
        // The oldest of all sets; none if a set has none, or if there is no set.
        let mut oldest: Option<Duration> = None;
        for voters in voter_sets {
            let at = agreed(voters)?;
            oldest = Some(oldest.map_or(at, |oldest| oldest.min(at)));
        }
        oldest
    }

    /// Completes at the next acknowledgement after this call.
    pub(crate) fn next(&self) -> tokio::sync::futures::Notified<'_> {
        self.news.notified()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[u64]) -> BTreeSet<ReplicaId> {
        ids.iter().copied().map(ReplicaId).collect()
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_majority_counts_by_when_it_was_asked() {
        let acks = Acks::default();
        let quorum = |term, sets: &[BTreeSet<ReplicaId>]| {
            acks.quorum_sent(term, ReplicaId(1), at(100), sets)
        };
        let three = [set(&[1, 2, 3])];
        assert_eq!(quorum(4, &three), None);
        acks.record(4, ReplicaId(2), at(10));
        assert_eq!(quorum(4, &three), Some(at(10)), "this member and one other");
        acks.record(4, ReplicaId(3), at(30));
        acks.record(4, ReplicaId(3), at(20));
        assert_eq!(quorum(4, &three), Some(at(30)), "an older answer takes nothing back");
        let five = [set(&[1, 2, 3, 4, 5])];
        assert_eq!(quorum(4, &five), Some(at(10)));
        assert_eq!(quorum(4, &[set(&[1])]), Some(at(100)), "alone it needs nobody");
        assert_eq!(quorum(4, &[set(&[2, 3, 4])]), Some(at(10)), "a leader that does not vote");
        assert_eq!(quorum(4, &[set(&[1, 2, 3]), set(&[1, 4, 5])]), None, "each set must agree");
        assert_eq!(quorum(4, &[set(&[1, 2, 3]), set(&[1, 2, 9])]), Some(at(10)));
        assert_eq!(quorum(4, &[]), None);
    }

    #[test]
    fn terms_do_not_mix() {
        let acks = Acks::default();
        let three = [set(&[1, 2, 3])];
        acks.record(4, ReplicaId(2), at(10));
        acks.record(6, ReplicaId(3), at(20));
        acks.record(4, ReplicaId(2), at(90));
        assert_eq!(acks.quorum_sent(4, ReplicaId(1), at(100), &three), None);
        assert_eq!(acks.quorum_sent(6, ReplicaId(1), at(100), &three), Some(at(20)));
    }
}
