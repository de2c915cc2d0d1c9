//! What must hold at the end: equal replicas, no locks, whole key space, and what the checkers say.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use bytes::Bytes;
use cribwork_checker::{Blob, Dump, History, Op, Options, Version, check_all};
use cribwork_engine::EngineSnapshot;
use cribwork_multiraft::fingerprints;
use cribwork_mvcc::{WriteKind, WriteRef};
use cribwork_types::{Cf, KeyRange, RangeDescriptor, RangeId, key};

use crate::cluster::Cluster;
use crate::recorder::Recorder;
use crate::report::Found;
use crate::traffic::BANK_TOTAL;

/// First of the process numbers under which the simulator records what it sees at the end.
const PROCESS: u64 = 2_000_000;

/// Whether all replicas of each range have applied the same, and no lock is left; why not.
pub(crate) fn unsettled(cluster: &Cluster<'_>) -> anyhow::Result<Option<String>> {
    let mut applied: BTreeMap<RangeId, Vec<u64>> = BTreeMap::new();
    let mut members: BTreeMap<RangeId, usize> = BTreeMap::new();
    for host in &cluster.hosts {
        let Some(multi) = host.multi() else {
            return Ok(Some(format!("{} is no member", host.name)));
        };
        for replica in multi.replicas().iter() {
            if replica.descriptor().is_joint() {
                let (range, name) = (replica.range_id(), &host.name);
                return Ok(Some(format!("range {range} is between two memberships on {name}")));
            }
            if replica.is_merging() {
                let (range, name) = (replica.range_id(), &host.name);
                return Ok(Some(format!("range {range} takes part in a merge on {name}")));
            }
            applied.entry(replica.range_id()).or_default().push(replica.applied_index());
            members.insert(replica.range_id(), replica.descriptor().replicas.len());
        }
        let locks = entries(&*host.disk.engine().snapshot(), Cf::Lock)?;
        if let Some((lock, _)) = locks.first() {
            let lock = lock.escape_ascii();
            return Ok(Some(format!("{} locks on {}, the first {lock}", locks.len(), host.name)));
        }
    }
    // Group 0 goes on writing its window.
    applied.remove(&RangeId::PLACEMENT);
    for (range, indexes) in applied {
        if indexes.len() != members[&range] {
            return Ok(Some(format!("range {range} has {} replicas", indexes.len())));
        }
        if indexes.iter().any(|index| *index != indexes[0]) {
            return Ok(Some(format!("range {range}: {}", whereabouts(cluster, range))));
        }
    }
    Ok(None)
}

/// How far each replica of a range has come, and whom it follows.
fn whereabouts(cluster: &Cluster<'_>, range: RangeId) -> String {
    let hosts = cluster.hosts.iter();
    let replicas = hosts.filter_map(|host| Some((host, host.multi()?.replica(range)?)));
    let told = replicas.map(|(host, replica)| {
        let (view, applied) = (replica.leader(), replica.applied_index());
        let (state, leader) = (replica.state().name(), view.leader.map(|it| it.store.get()));
        format!("{} applied {applied}, {state}, leader {leader:?} of term {}", host.name, view.term)
    });
    told.collect::<Vec<_>>().join("; ")
}

/// Records what every replica holds; the number of ranges, which must tile the key space.
pub(crate) fn inspect(
    cluster: &Cluster<'_>,
    recorder: &Recorder,
) -> anyhow::Result<(u64, Vec<Found>)> {
    let mut ranges: BTreeMap<RangeId, RangeDescriptor> = BTreeMap::new();
    let mut found = Vec::new();
    for host in &cluster.hosts {
        let snapshot = host.disk.engine().snapshot();
        let prints = fingerprints(&*snapshot)?;
        let held = prints.iter().filter(|print| print.range() != RangeId::PLACEMENT);
        let held: Vec<&KeyRange> = held.map(|print| &print.descriptor.span).collect();
        if let Some(what) = orphan(&*snapshot, &held)? {
            found.push(Found {
                checker: "orphans".to_owned(),
                what: format!("{}: {what}", host.name),
            });
        }
        for print in prints {
            let (range, index) = (print.range(), print.applied_index);
            let (store, hash) = (host.number as u64, print.hash);
            let op = Op::Fingerprint { range: range.get(), index, store, hash };
            recorder.observed(cluster.now(), PROCESS + store, op);
            if range == RangeId::PLACEMENT {
                continue;
            }
            let known = ranges.entry(range).or_insert_with(|| print.descriptor.clone());
            if *known != print.descriptor {
                let what = format!("{known:?}, and on {} {:?}", host.name, print.descriptor);
                found.push(Found { checker: "descriptors".to_owned(), what });
            }
        }
    }
    if let Some(what) = gap(ranges.values().map(|range| &range.span).collect()) {
        found.push(Found { checker: "ranges-tile".to_owned(), what });
    }
    Ok((ranges.len() as u64, found))
}

/// Data on a store that belongs to none of its replicas, if there is any.
fn orphan(snapshot: &dyn EngineSnapshot, held: &[&KeyRange]) -> anyhow::Result<Option<String>> {
    for cf in Cf::DATA {
        for (key, _) in entries(snapshot, cf)? {
            if !held.iter().any(|span| span.contains(&key)) {
                return Ok(Some(format!("{cf:?} holds {}", key.escape_ascii())));
            }
        }
    }
    Ok(None)
}

/// What is wrong with spans that should cover every key once.
fn gap(mut spans: Vec<&KeyRange>) -> Option<String> {
    spans.sort_by(|a, b| a.start.cmp(&b.start));
    let mut at = Bytes::new();
    for (number, span) in spans.iter().enumerate() {
        if span.start != at {
            return Some(format!("{} is followed by {span:?}", at.escape_ascii()));
        }
        if span.end.is_empty() {
            let left = spans.len() - number - 1;
            return (left > 0).then(|| format!("{left} ranges lie behind the last key"));
        }
        at = span.end.clone();
    }
    Some(format!("nothing from {} on", at.escape_ascii()))
}

/// What the checkers find in the history, and how much each looked at.
pub(crate) fn judge(history: &History, dump: Option<&Dump>) -> (BTreeMap<String, u64>, Vec<Found>) {
    let options = Options { bank_total: Some(BANK_TOTAL), ..Options::default() };
    let report = check_all(history, dump, &options);
    let mut found = Vec::new();
    for verdict in &report.verdicts {
        let checker = verdict.checker.to_owned();
        let violations = verdict.violations.iter().take(3).map(|violation| violation.what.clone());
        let gave_up = verdict.exhausted.then(|| "gave up for lack of budget".to_owned());
        let whats = violations.chain(gave_up);
        found.extend(whats.map(|what| Found { checker: checker.clone(), what }));
    }
    let checked = report.verdicts.iter();
    (checked.map(|verdict| (verdict.checker.to_owned(), verdict.checked)).collect(), found)
}

/// All committed versions of all transactional keys on all nodes. Where replicas differ, both sides'
/// versions are there.
pub(crate) fn dump(cluster: &Cluster<'_>) -> anyhow::Result<Dump> {
    let mut keys: BTreeMap<Blob, BTreeSet<Version>> = BTreeMap::new();
    for host in &cluster.hosts {
        versions(&*host.disk.engine().snapshot(), &mut keys)?;
    }
    let mut dump = Dump::default();
    for (key, versions) in keys {
        dump.insert(key, versions.into_iter().collect());
    }
    Ok(dump)
}

fn versions(
    snapshot: &dyn EngineSnapshot,
    keys: &mut BTreeMap<Blob, BTreeSet<Version>>,
) -> anyhow::Result<()> {
    for (stored, record) in entries(snapshot, Cf::Write)? {
        let (encoded, commit_ts) = key::split_versioned(&stored)?;
        let plain = key::decode(encoded)?;
        let record = WriteRef::decode(&record)?;
        let value = match record.kind {
            WriteKind::Lock | WriteKind::Rollback => continue,
            WriteKind::Delete => None,
            WriteKind::Put => match record.short_value {
                Some(value) => Some(Blob::from(value)),
                None => {
                    let at = key::encode_versioned(&plain, record.start_ts);
                    let value = snapshot.get(Cf::Default, &at)?;
                    Some(Blob::from(value.context("a commit record without its value")?))
                }
            },
        };
        let (commit_ts, start_ts) = (commit_ts.get(), record.start_ts.get());
        keys.entry(plain.into()).or_default().insert(Version { commit_ts, start_ts, value });
    }
    Ok(())
}

fn entries(snapshot: &dyn EngineSnapshot, cf: Cf) -> anyhow::Result<Vec<(Bytes, Bytes)>> {
    let mut cursor = snapshot.cursor(cf, &KeyRange::all());
    let mut entries = Vec::new();
    let mut found = cursor.seek_to_first()?;
    while found {
        let copy = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        entries.push((copy(cursor.key()), copy(cursor.value())));
        found = cursor.next()?;
    }
    Ok(entries)
}
