//! What must hold at every moment, seen from outside of the nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cribwork_checker::Op;
use cribwork_multiraft::{Replica, SavedVote, has_open_split, stored_logs, tombstones};
use cribwork_types::{KeyRange, RangeEpoch, RangeId, ReplicaId, StoreId};

use crate::cluster::Cluster;
use crate::host::Host;
use crate::recorder::Recorder;
use crate::report::Found;

/// Time between two entries of a number into the history.
const NOTE_PERIOD: Duration = Duration::from_secs(1);
/// Time between two looks at the logs on the disks.
const LOG_PERIOD: Duration = Duration::from_millis(250);
/// Time between two looks for splits that are not applied where their range is read.
const SPLIT_PERIOD: Duration = Duration::from_millis(20);
/// Violations after which a run has shown enough.
const FOUND_MAX: usize = 20;

/// What a replica showed when it was looked at last, in one life of its node.
#[derive(Clone, Copy, Default)]
struct Seen {
    life: u64,
    applied: u64,
    epoch: RangeEpoch,
    joint: bool,
    /// It has the only vote.
    alone: bool,
    term: u64,
    /// The last vote made durable, in any life.
    vote: Option<SavedVote>,
    /// Term and index up to which its leader was told that its log is durable.
    acknowledged: Option<(u64, u64)>,
}

/// By how much one replica's term may lie above those of all the others. A candidate that asks first
/// whether it would be elected gets ahead by one or two; one that does not, while it is cut off, by one
/// with each attempt.
const TERMS_AHEAD_MAX: u64 = 5;

/// Who would read which keys by a lease.
type Leases = Vec<(StoreId, RangeId, KeyRange)>;

/// Looks at all replicas every now and then.
#[derive(Default)]
pub(crate) struct Watch {
    next_note: Duration,
    next_logs: Duration,
    next_splits: Duration,
    /// Number of the life of each host whose end was looked at.
    buried: BTreeMap<usize, u64>,
    /// What the entry of a range, a term and an index is, wherever it was seen first.
    entries: BTreeMap<(RangeId, u64, u64), (StoreId, u32)>,
    /// Who led a range in a term.
    leaders: BTreeMap<(RangeId, u64), StoreId>,
    seen: BTreeMap<(usize, RangeId, ReplicaId), Seen>,
    pub(crate) found: Vec<Found>,
}

impl Watch {
    /// Terms that had a leader.
    pub(crate) fn elections(&self) -> u64 {
        self.leaders.len() as u64
    }

    pub(crate) fn step(&mut self, cluster: &mut Cluster<'_>, recorder: &Recorder) {
        let now = cluster.now();
        let note = now >= self.next_note;
        if note {
            self.next_note = now + NOTE_PERIOD;
        }
        let logs = now >= self.next_logs;
        if logs {
            self.next_logs = now + LOG_PERIOD;
        }
        let splits = now >= self.next_splits;
        if splits {
            self.next_splits = now + SPLIT_PERIOD;
        }
        let mut leases = Leases::new();
        for number in 0..cluster.hosts.len() {
            let host = cluster.hosts[number].clone();
            if !cluster.is_up(number) {
                self.look_at_remains(number, &host, now);
                continue;
            }
            self.look(number, &host, now, &mut leases, note.then_some(recorder));
            if logs {
                self.look_at_logs(number, &host, now);
            }
            if splits {
                self.look_at_splits(number, &host, now, &leases);
            }
        }
        self.exclusive(now, &leases);
        if logs {
            self.terms_apart(now);
        }
    }

    /// What a replica told its leader to be durable outlives its node.
    fn look_at_remains(&mut self, number: usize, host: &Arc<Host>, now: Duration) {
        if self.buried.insert(number, host.life()) == Some(host.life()) {
            return;
        }
        let store = StoreId(number as u64 + 1);
        let snapshot = host.disk.engine().snapshot();
        let read = stored_logs(&*snapshot).and_then(|logs| Ok((logs, tombstones(&*snapshot)?)));
        let (logs, gone) = match read {
            Ok(read) => read,
            Err(error) => return self.found("log", format!("{now:?}: store {store}: {error}")),
        };
        let ends: BTreeMap<_, _> = logs.iter().map(|log| (log.range, log.end())).collect();
        let mut lost = Vec::new();
        for ((at, range, replica), seen) in &mut self.seen {
            let Some(acknowledged) = seen.acknowledged.take_if(|_| *at == number) else { continue };
            if gone.get(range).is_some_and(|gone| gone >= replica) {
                continue;
            }
            let end = ends.get(range).copied().flatten();
            if end < Some(acknowledged) {
                lost.push(format!("{now:?}: {range} on {store}: {acknowledged:?} became {end:?}"));
            }
        }
        lost.into_iter().for_each(|what| self.found("durability", what));
    }

    /// Who is not elected does not raise terms.
    fn terms_apart(&mut self, now: Duration) {
        let mut terms: BTreeMap<RangeId, Vec<(u64, bool)>> = BTreeMap::new();
        for ((_, range, _), seen) in &self.seen {
            terms.entry(*range).or_default().push((seen.term, seen.alone));
        }
        for (range, mut terms) in terms {
            terms.sort_unstable();
            // A sole voter elects itself whenever it starts; others may be gone, and are remembered.
            if let [.., (second, _), (first, false)] = terms[..]
                && first > second + TERMS_AHEAD_MAX
            {
                self.found("terms", format!("{now:?}: range {range}: {first} beside {second}"));
            }
        }
    }

    /// No key may be read by lease on two stores, whatever ranges they take it to belong to.
    fn exclusive(&mut self, now: Duration, leases: &Leases) {
        for (at, (store, range, span)) in leases.iter().enumerate() {
            for (other, its_range, its_span) in &leases[at + 1..] {
                if store != other && (range == its_range || span.overlaps(its_span)) {
                    let what = format!(
                        "{now:?}: store {store} would read range {range}, and {other} {its_range}"
                    );
                    self.found("lease-exclusivity", what);
                }
            }
        }
    }

    /// What lies on a disk is a log, and agrees with those of the other replicas.
    fn look_at_logs(&mut self, number: usize, host: &Arc<Host>, now: Duration) {
        let store = StoreId(number as u64 + 1);
        let logs = match stored_logs(&*host.disk.engine().snapshot()) {
            Ok(logs) => logs,
            Err(error) => return self.found("log", format!("{now:?}: store {store}: {error}")),
        };
        for log in logs {
            let range = log.range;
            if let Some(flaw) = log.flaw() {
                self.found("log", format!("{now:?}: range {range} on store {store}: {flaw}"));
            }
            if let Some(flaw) = log.members {
                self.found("members", format!("{now:?}: range {range} on store {store}: {flaw}"));
            }
            for entry in log.entries {
                let at = (range, entry.term, entry.index);
                let (first, sum) = *self.entries.entry(at).or_insert((store, entry.sum));
                if sum != entry.sum {
                    let (index, term) = (entry.index, entry.term);
                    let which = format!("entry {index} of term {term}, range {range}");
                    let what = format!("{now:?}: stores {first} and {store} differ in {which}");
                    self.found("log-matching", what);
                }
            }
        }
    }

    /// Nobody reads by a lease what a split may have taken away already.
    fn look_at_splits(&mut self, number: usize, host: &Host, now: Duration, leases: &Leases) {
        let here = StoreId(number as u64 + 1);
        let snapshot = host.disk.engine().snapshot();
        for (_, range, _) in leases.iter().filter(|(store, _, _)| *store == here) {
            match has_open_split(&*snapshot, *range) {
                Ok(false) => {}
                Ok(true) => {
                    let what = format!("{now:?}: store {here} would read range {range} meanwhile");
                    self.found("split-fence", what);
                }
                Err(error) => self.found("log", format!("{now:?}: store {here}: {error}")),
            }
        }
    }

    fn look(
        &mut self,
        number: usize,
        host: &Arc<Host>,
        now: Duration,
        leases: &mut Leases,
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
                let span = match range {
                    // Of no part of the key space.
                    RangeId::PLACEMENT => KeyRange::new("a", "a"),
                    _ => replica.descriptor().span.clone(),
                };
                leases.push((store, range, span));
            }
            let next = self.see(number, host.life(), replica);
            let before =
                self.seen.insert((number, range, replica.replica_id()), next).unwrap_or_default();
            let whose = || format!("{now:?}: {range} on {store}");
            if before.life == next.life {
                self.compare(&whose(), before, next);
            }
            self.compare_votes(&whose(), before, next);
            if let Some(recorder) = note {
                let id = replica.replica_id();
                let of = format!("replica {id} of range {range} on store {store}");
                let process = 1_000_000 + number as u64 * 10_000 + next.life;
                let (name, value) = ("applied-index".to_owned(), next.applied);
                recorder.observed(now, process, Op::Watermark { name, of, value });
            }
        }
    }

    fn see(&self, number: usize, life: u64, replica: &Replica) -> Seen {
        let before = self.seen.get(&(number, replica.range_id(), replica.replica_id()));
        Seen {
            life,
            applied: replica.applied_index(),
            epoch: replica.descriptor().epoch,
            joint: replica.descriptor().is_joint(),
            alone: replica.descriptor().voters().count() == 1,
            term: replica.leader().term,
            vote: replica.saved_vote().or(before.and_then(|before| before.vote)),
            acknowledged: replica
                .acknowledged_log()
                .or(before.filter(|before| before.life == life).and_then(|it| it.acknowledged)),
        }
    }

    /// A vote that was made durable is there in the next life, and nobody gets another one in its term.
    fn compare_votes(&mut self, whose: &str, before: Seen, next: Seen) {
        let Some(SavedVote { term, candidate, leads }) = before.vote else { return };
        if before.life != next.life && next.term < term {
            self.found("votes", format!("{whose}: a vote of term {term} is forgotten"));
        }
        let another = |vote: &SavedVote| vote.term == term && vote.candidate != candidate;
        if next.vote.is_some_and(|vote| another(&vote) && (leads || !vote.leads)) {
            self.found("votes", format!("{whose}: two candidates got its vote in term {term}"));
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
        let same_members = next.epoch.conf_ver == before.epoch.conf_ver;
        if next.epoch.version > before.epoch.version && same_members && next.joint {
            let what = format!("{whose}: it was split between two memberships");
            self.found("split-while-joint", what);
        }
    }

    pub(crate) fn found(&mut self, checker: &str, what: String) {
        if self.found.len() < FOUND_MAX {
            self.found.push(Found { checker: checker.to_owned(), what });
        }
    }
}
