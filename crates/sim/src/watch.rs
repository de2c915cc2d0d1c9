//! What must hold at every moment, seen from outside of the nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cribwork_checker::Op;
use cribwork_types::{RangeEpoch, RangeId, StoreId};

use crate::cluster::Cluster;
use crate::host::Host;
use crate::recorder::Recorder;
use crate::report::Found;

/// Time between two looks.
const PERIOD: Duration = Duration::from_millis(10);
/// Time between two entries of a number into the history.
const NOTE_PERIOD: Duration = Duration::from_secs(1);
/// Violations after which a run has shown enough.
const FOUND_MAX: usize = 20;

/// What a replica showed when it was looked at last, in one life of its node.
#[derive(Clone, Copy, Default)]
struct Seen {
    life: u64,
    applied: u64,
    epoch: RangeEpoch,
    term: u64,
}

/// Looks at all replicas every now and then.
#[derive(Default)]
pub(crate) struct Watch {
    next: Duration,
    next_note: Duration,
    /// Who led a range in a term.
    leaders: BTreeMap<(RangeId, u64), StoreId>,
    seen: BTreeMap<(usize, RangeId), Seen>,
    pub(crate) found: Vec<Found>,
}

impl Watch {
    /// Terms that had a leader.
    pub(crate) fn elections(&self) -> u64 {
        self.leaders.len() as u64
    }

    pub(crate) fn step(&mut self, cluster: &mut Cluster<'_>, recorder: &Recorder) {
        let now = cluster.now();
        if now < self.next {
            return;
        }
        self.next = now + PERIOD;
        let note = now >= self.next_note;
        if note {
            self.next_note = now + NOTE_PERIOD;
        }
        let up: Vec<usize> = (0..cluster.hosts.len()).filter(|host| cluster.is_up(*host)).collect();
        let mut leases: BTreeMap<RangeId, Vec<StoreId>> = BTreeMap::new();
        for number in up {
            let host = cluster.hosts[number].clone();
            self.look(number, &host, now, &mut leases, note.then_some(recorder));
        }
        for (range, stores) in leases {
            if stores.len() > 1 {
                let what = format!("{now:?}: stores {stores:?} would both read range {range}");
                self.found("lease-exclusivity", what);
            }
        }
    }

    fn look(
        &mut self,
        number: usize,
        host: &Arc<Host>,
        now: Duration,
        leases: &mut BTreeMap<RangeId, Vec<StoreId>>,
        note: Option<&Recorder>,
    ) {
        let Some(multi) = host.multi() else { return };
        let store = StoreId(number as u64 + 1);
        for replica in multi.replicas().iter() {
            let (range, view) = (replica.range_id(), replica.leader());
            if view.is_self {
                let first = *self.leaders.entry((range, view.term)).or_insert(store);
                if first != store {
                    let term = view.term;
                    let what = format!("{now:?}: stores {first} and {store}, {range}, term {term}");
                    self.found("one-leader-a-term", what);
                }
            }
            if replica.lease_term().is_some() {
                leases.entry(range).or_default().push(store);
            }
            let next = Seen {
                life: host.life(),
                applied: replica.applied_index(),
                epoch: replica.descriptor().epoch,
                term: view.term,
            };
            let before = self.seen.insert((number, range), next).unwrap_or_default();
            if before.life == next.life {
                self.compare(&format!("{now:?}: {range} on {store}"), before, next);
            }
            if let Some(recorder) = note {
                let of = format!("range {range} on store {store}");
                let process = 1_000_000 + number as u64 * 10_000 + next.life;
                let (name, value) = ("applied-index".to_owned(), next.applied);
                recorder.observed(now, process, Op::Watermark { name, of, value });
            }
        }
    }

    fn compare(&mut self, whose: &str, before: Seen, next: Seen) {
        let falls = [
            ("applied index", next.applied < before.applied),
            ("term", next.term < before.term),
            ("version", next.epoch.version < before.epoch.version),
        ];
        for (what, _) in falls.into_iter().filter(|(_, falls)| *falls) {
            self.found("monotonic", format!("{whose}: the {what} fell"));
        }
    }

    pub(crate) fn found(&mut self, checker: &str, what: String) {
        if self.found.len() < FOUND_MAX {
            self.found.push(Found { checker: checker.to_owned(), what });
        }
    }
}
