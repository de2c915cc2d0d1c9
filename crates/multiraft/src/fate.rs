//! What becomes of a proposal.
//!
//! openraft may lose the answer to a proposal that entered the log: the leader was deposed, its
//! instance was rebuilt. Such a proposal is not lost for the caller: every entry names its proposal,
//! and this replica goes on applying the log, so the fate shows up here. An entry of a later term
//! that is applied first proves that an earlier proposal will never be applied.

use std::collections::HashMap;

use cribwork_types::RangeDescriptor;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// A proposal took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Index of its entry.
    pub index: u64,
}

/// What apply, or its absence, says about one command.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    Applied(Applied),
    /// Applied, and it split the range: left and right.
    Split(Box<(RangeDescriptor, RangeDescriptor)>),
    /// Without effect: evaluated under another epoch. The range as it is now.
    StaleEpoch(Box<RangeDescriptor>),
    /// Without effect: evaluated under another leader.
    StaleLeader,
    /// Without effect: the command does not fit the range.
    Refused(&'static str),
    /// Never entered the log.
    NotProposed,
    /// The log went on without it.
    Superseded,
    /// Nobody knows.
    Lost(&'static str),
}

pub(crate) type FateSender = oneshot::Sender<Fate>;

struct Waiting {
    term: u64,
    callers: Vec<FateSender>,
}

/// Proposals of this replica that entered the log (or may have) and are not yet decided.
#[derive(Default)]
pub(crate) struct FateTable {
    waiting: Mutex<HashMap<u64, Waiting>>,
}

impl FateTable {
    /// Registers proposal `number`, made in `term`, with one caller for each of its commands.
    pub(crate) fn register(&self, number: u64, term: u64, callers: Vec<FateSender>) {
        self.waiting.lock().insert(number, Waiting { term, callers });
    }

    /// True if the fate of every proposal is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.lock().is_empty()
    }

    /// The entry of proposal `number` was applied with these fates, in the order of its commands.
    pub(crate) fn decide(&self, number: u64, fates: Vec<Fate>) {
        let Some(waiting) = self.waiting.lock().remove(&number) else {
            return;
        };
        for (caller, fate) in waiting.callers.into_iter().zip(fates) {
            let _ = caller.send(fate);
        }
    }

    /// All commands of proposal `number` share one fate.
    pub(crate) fn decide_all(&self, number: u64, fate: Fate) {
        let Some(waiting) = self.waiting.lock().remove(&number) else {
            return;
        };
        for caller in waiting.callers {
            let _ = caller.send(fate.clone());
        }
    }

    /// Everything that has no fate yet has this one.
    pub(crate) fn decide_rest(&self, fate: &Fate) {
        let rest = std::mem::take(&mut *self.waiting.lock());
        for caller in rest.into_values().flat_map(|waiting| waiting.callers) {
            let _ = caller.send(fate.clone());
        }
    }

    /// An entry of `term` was applied: what was proposed in earlier terms and is still here is not
    /// in the log before it, and can never come after it.
    pub(crate) fn supersede(&self, term: u64) {
        self.drop_before(term, Fate::Superseded);
    }

    /// A snapshot of `term` replaced the log: earlier proposals may or may not be in it.
    pub(crate) fn lose(&self, term: u64, why: &'static str) {
        self.drop_before(term, Fate::Lost(why));
    }

    fn drop_before(&self, term: u64, fate: Fate) {
        let mut waiting = self.waiting.lock();
        if waiting.values().all(|entry| entry.term >= term) {
            return;
        }
        let old: Vec<u64> =
            waiting.iter().filter(|(_, entry)| entry.term < term).map(|(id, _)| *id).collect();
        for id in old {
            for caller in waiting.remove(&id).map(|entry| entry.callers).unwrap_or_default() {
                let _ = caller.send(fate.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(table: &FateTable, number: u64, term: u64) -> oneshot::Receiver<Fate> {
        let (sender, receiver) = oneshot::channel();
        table.register(number, term, vec![sender]);
        receiver
    }

    #[test]
    fn a_later_term_settles_only_earlier_proposals() {
        let table = FateTable::default();
        let mut old = caller(&table, 1, 3);
        let mut new = caller(&table, 2, 4);
        table.supersede(4);
        assert!(matches!(old.try_recv(), Ok(Fate::Superseded)));
        assert!(new.try_recv().is_err());
        table.decide(2, vec![Fate::Applied(Applied { index: 9 })]);
        assert!(matches!(new.try_recv(), Ok(Fate::Applied(Applied { index: 9 }))));
    }

    #[test]
    fn a_snapshot_leaves_the_outcome_unknown() {
        let table = FateTable::default();
        let mut old = caller(&table, 1, 3);
        table.lose(5, "snapshot");
        assert!(matches!(old.try_recv(), Ok(Fate::Lost("snapshot"))));
    }
}
