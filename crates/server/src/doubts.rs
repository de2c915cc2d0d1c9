//! Which replicas a store asks placement about: is this still a member?
//!
//! A member that was removed hears of it from its leader, once; that message may be lost, and a replica
//! of an idle range is sent nothing for hours, one that leads no more included. So what has no leader or no
//! data is asked about with every heartbeat from the second on (elections are quicker), and of all others a
//! few with each heartbeat, in turns.

use std::collections::BTreeSet;
use std::ops::Bound;

use cribwork_types::RangeId;

/// Replicas without a leader or without data that one heartbeat asks about; the others' turn comes when
/// these are gone or led.
pub(crate) const LOST_MAX: usize = 1024;
/// Other replicas that one heartbeat asks about: ten thousand take under three minutes.
pub(crate) const QUIET_PER_HEARTBEAT: usize = 64;

/// What was asked about so far.
#[derive(Debug)]
pub(crate) struct Doubts {
    /// Without a leader or without data a heartbeat ago.
    lost: BTreeSet<RangeId>,
    /// The last of the others that was asked about.
    turn: RangeId,
}

impl Default for Doubts {
    fn default() -> Self {
        Self { lost: BTreeSet::new(), turn: RangeId(0) }
    }
}

impl Doubts {
    /// What the next heartbeat asks about. `lost` are the replicas without a leader or without data now,
    /// `quiet` those that have one.
    pub(crate) fn next(
        &mut self,
        lost: BTreeSet<RangeId>,
        quiet: &BTreeSet<RangeId>,
    ) -> BTreeSet<RangeId> {
        let before = std::mem::replace(&mut self.lost, lost);
        let long = self.lost.intersection(&before).copied().take(LOST_MAX);
        let after = quiet.range((Bound::Excluded(self.turn), Bound::Unbounded));
        let turns: Vec<RangeId> = after.take(QUIET_PER_HEARTBEAT).copied().collect();
        // Fewer than could be asked about: the round is over.
        self.turn = match turns.len() == QUIET_PER_HEARTBEAT {
            true => turns.last().copied().unwrap_or(RangeId(0)),
            false => RangeId(0),
        };
        long.chain(turns).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: impl IntoIterator<Item = u64>) -> BTreeSet<RangeId> {
        ids.into_iter().map(RangeId).collect()
    }

    #[test]
    fn what_is_lost_for_two_heartbeats_is_asked_about_each_time() {
        let mut doubts = Doubts::default();
        assert_eq!(doubts.next(ids([1, 2]), &ids([])), ids([]));
        assert_eq!(doubts.next(ids([2, 3]), &ids([])), ids([2]));
        assert_eq!(doubts.next(ids([2, 3]), &ids([])), ids([2, 3]));
        assert_eq!(doubts.next(ids([]), &ids([])), ids([]));
    }

    #[test]
    fn every_follower_has_its_turn() {
        let mut doubts = Doubts::default();
        let all = ids(1..=150);
        assert_eq!(doubts.next(ids([]), &all), ids(1..=64));
        assert_eq!(doubts.next(ids([]), &all), ids(65..=128));
        assert_eq!(doubts.next(ids([]), &all), ids(129..=150));
        assert_eq!(doubts.next(ids([]), &all), ids(1..=64));
    }
}
