//! `store`: looks at what stopped nodes have left on disk, without changing it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use comfy_table::Table;
use cribwork_engine::{EngineError, EngineSnapshot, StoppedStore, StoreIdentity, TableFile};
use cribwork_multiraft::{
    Comparison, Fingerprint, Outcome, RangeComparison, StoreView, compare, fingerprints,
};
use cribwork_types::{Cf, CodedError, KeyRange, RangeId, StoreId};
use serde::Serialize;

use crate::args::{Format, Global, Store};
use crate::failure::{Failure, exit};
use crate::output::{print, table};
use crate::parse::hex;

/// Most differences that a message on stderr repeats; stdout has all.
const EVIDENCE_MAX: usize = 3;

pub(crate) fn store(global: &Global, asked: &Store) -> Result<(), Failure> {
    match asked {
        Store::Show { dir } => show(global.output, dir),
        Store::Compare { dirs } => compare_all(global.output, dirs),
    }
}

/// A store, open.
struct Opened {
    dir: PathBuf,
    identity: StoreIdentity,
    store: StoppedStore,
}

impl Opened {
    fn new(dir: &Path) -> Result<Self, Failure> {
        let store = StoppedStore::open(dir).map_err(|error| about(dir, &error))?;
        let identity = store.identity().map_err(|error| about(dir, &error))?;
        let identity = identity.ok_or_else(|| {
            let message = format!("{}: this store belongs to no cluster yet", dir.display());
            Failure::new("CW-CLI-STORES", message, "give the directory of a member of a cluster")
        })?;
        Ok(Self { dir: dir.to_owned(), identity, store })
    }
}

/// An error with the directory that it is about.
fn about(dir: &Path, error: &impl CodedError) -> Failure {
    let mut message = error.to_string();
    if !message.contains(&dir.display().to_string()) {
        message = format!("{}: {message}", dir.display());
    }
    Failure::new(error.code(), message, error.hint())
}

/// `store show`.
#[derive(Debug, Serialize)]
struct Shown {
    store: u64,
    cluster_id: u64,
    boot_count: u64,
    log_bytes: u64,
    families: Vec<Family>,
    ranges: Vec<ShownRange>,
}

#[derive(Debug, Serialize)]
struct Family {
    name: &'static str,
    rows: u64,
    bytes: u64,
    files: Vec<File>,
}

#[derive(Debug, Serialize)]
struct File {
    name: String,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct ShownRange {
    id: u64,
    replica: u64,
    start_hex: String,
    end_hex: String,
    conf_ver: u64,
    version: u64,
    applied_index: u64,
    applied_term: u64,
    rows: u32,
    fingerprint: String,
}

impl From<Fingerprint> for ShownRange {
    fn from(print: Fingerprint) -> Self {
        Self {
            id: print.range().get(),
            replica: print.replica.get(),
            start_hex: hex(&print.descriptor.span.start),
            end_hex: hex(&print.descriptor.span.end),
            conf_ver: print.descriptor.epoch.conf_ver,
            version: print.descriptor.epoch.version,
            applied_index: print.applied_index,
            applied_term: print.applied_term,
            rows: print.rows(),
            fingerprint: format!("{:016x}", print.hash),
        }
    }
}

fn show(format: Format, dir: &Path) -> Result<(), Failure> {
    let Opened { identity, store, .. } = Opened::new(dir)?;
    let view = store.view();
    let mut files: BTreeMap<Cf, Vec<TableFile>> = BTreeMap::new();
    for file in store.table_files().map_err(|error| about(dir, &error))? {
        files.entry(file.cf).or_default().push(file);
    }
    let mut families = Vec::new();
    for cf in Cf::ALL {
        let files = files.remove(&cf).unwrap_or_default().into_iter();
        let (rows, bytes) = count(&*view, cf).map_err(|error| about(dir, &error))?;
        families.push(Family {
            name: cf.name(),
            rows,
            bytes,
            files: files.map(|file| File { name: file.name, bytes: file.bytes }).collect(),
        });
    }
    let prints = fingerprints(&*view).map_err(|error| about(dir, &error))?;
    let shown = Shown {
        store: identity.store.get(),
        cluster_id: identity.cluster.get(),
        boot_count: identity.boot_count,
        log_bytes: store.log_bytes(),
        families,
        ranges: prints.into_iter().map(ShownRange::from).collect(),
    };
    let (store, cluster) = (identity.store, identity.cluster);
    eprintln!("store {store} of cluster {cluster}, every row read and every checksum right");
    print(format, &shown, shown_table)
}

/// Reads a whole family: rows, and bytes of keys and values.
fn count(view: &dyn EngineSnapshot, cf: Cf) -> Result<(u64, u64), EngineError> {
    let mut cursor = view.cursor(cf, &KeyRange::all());
    let (mut rows, mut bytes) = (0, 0);
    let mut found = cursor.seek_to_first()?;
    while found {
        rows += 1;
        bytes += (cursor.key().len() + cursor.value().len()) as u64;
        found = cursor.next()?;
    }
    Ok((rows, bytes))
}

fn shown_table(shown: &Shown) -> Table {
    let mut rows = table(["WHAT", "APPLIED", "TERM", "ROWS", "BYTES", "FILES", "FINGERPRINT"]);
    for family in &shown.families {
        rows.add_row(vec![
            family.name.to_owned(),
            String::new(),
            String::new(),
            family.rows.to_string(),
            family.bytes.to_string(),
            family.files.len().to_string(),
        ]);
    }
    for range in &shown.ranges {
        rows.add_row(vec![
            name(RangeId(range.id)),
            range.applied_index.to_string(),
            range.applied_term.to_string(),
            range.rows.to_string(),
            String::new(),
            String::new(),
            range.fingerprint.clone(),
        ]);
    }
    rows
}

fn name(range: RangeId) -> String {
    match range {
        RangeId::PLACEMENT => "placement".to_owned(),
        range => format!("range {range}"),
    }
}

/// `store compare`.
#[derive(Debug, Serialize)]
struct Compared {
    verdict: &'static str,
    equal: usize,
    different: usize,
    not_compared: usize,
    stores: Vec<ComparedStore>,
    ranges: Vec<ComparedRange>,
}

#[derive(Debug, Serialize)]
struct ComparedStore {
    store: u64,
    dir: PathBuf,
}

#[derive(Debug, Serialize)]
struct ComparedRange {
    id: u64,
    /// At which its replicas are compared.
    index: u64,
    result: &'static str,
    /// What differs, or why it is not compared; null if all is equal.
    why: Option<String>,
    replicas: Vec<ComparedReplica>,
}

#[derive(Debug, Serialize)]
struct ComparedReplica {
    store: u64,
    /// On disk; null if the split that makes the replica is not applied there.
    applied_index: Option<u64>,
    /// Log entries that were applied in memory.
    replayed: u64,
    rows: u32,
    fingerprint: String,
}

impl From<&RangeComparison> for ComparedRange {
    fn from(range: &RangeComparison) -> Self {
        let (result, why) = match &range.outcome {
            Outcome::Equal => ("equal", None),
            Outcome::Different(why) => ("different", Some(why.clone())),
            Outcome::NotCompared(why) => ("not compared", Some(why.clone())),
        };
        let replicas = range.replicas.iter().map(|replica| ComparedReplica {
            store: replica.store.get(),
            applied_index: replica.applied_index,
            replayed: replica.replayed,
            rows: replica.fingerprint.rows(),
            fingerprint: format!("{:016x}", replica.fingerprint.hash),
        });
        let replicas = replicas.collect();
        Self { id: range.range.get(), index: range.index, result, why, replicas }
    }
}

impl Compared {
    fn new(comparison: &Comparison, stores: Vec<ComparedStore>) -> Self {
        let ranges: Vec<ComparedRange> =
            comparison.ranges.iter().map(ComparedRange::from).collect();
        let of = |result| ranges.iter().filter(|range| range.result == result).count();
        let (equal, different, not_compared) = (of("equal"), of("different"), of("not compared"));
        let verdict = match (equal, different, not_compared) {
            (_, 1.., _) => "different",
            (1.., 0, 0) => "equal",
            _ => "incomplete",
        };
        Self { verdict, equal, different, not_compared, stores, ranges }
    }

    /// What is wrong, in words.
    fn evidence(&self, result: &str) -> String {
        let wrong = self.ranges.iter().filter(|range| range.result == result);
        let told = wrong.take(EVIDENCE_MAX).map(|range| {
            let why = range.why.as_deref().unwrap_or_default();
            format!("{} at index {}: {why}", name(RangeId(range.id)), range.index)
        });
        told.collect::<Vec<_>>().join("; ")
    }

    fn judge(&self) -> Result<(), Failure> {
        let all = self.ranges.len();
        match self.verdict {
            "equal" => Ok(()),
            "different" => Err(Failure {
                exit: exit::VIOLATED,
                ..Failure::new(
                    "CW-CLI-VIOLATED",
                    format!(
                        "{} of {all} ranges differ: {}",
                        self.different,
                        self.evidence("different")
                    ),
                    "start none of these nodes; keep their directories and logs, and report this",
                )
            }),
            _ => Err(Failure::new(
                "CW-CLI-UNCHECKED",
                format!(
                    "{} of {all} ranges are not compared, the others are equal: {}",
                    self.not_compared,
                    self.evidence("not compared")
                ),
                "give the directories of all nodes; or start them, wait until they have caught up, \
                 and stop them again",
            )),
        }
    }
}

fn compare_all(format: Format, dirs: &[PathBuf]) -> Result<(), Failure> {
    let opened = dirs.iter().map(|dir| Opened::new(dir)).collect::<Result<Vec<_>, _>>()?;
    check_mix(&opened)?;
    let views: Vec<_> = opened.iter().map(|it| it.store.view()).collect();
    let stores: Vec<_> = opened
        .iter()
        .zip(&views)
        .map(|(it, view)| StoreView { store: it.identity.store, snapshot: &**view })
        .collect();
    let comparison = compare(&stores).map_err(|error| {
        Failure::new(error.code(), error.to_string(), "find the store: cribwork store show DIR")
    })?;
    let stores = opened
        .iter()
        .map(|it| ComparedStore { store: it.identity.store.get(), dir: it.dir.clone() });
    let compared = Compared::new(&comparison, stores.collect());
    print(format, &compared, compared_table)?;
    compared.judge()?;
    let replayed: u64 =
        compared.ranges.iter().flat_map(|it| &it.replicas).map(|it| it.replayed).sum();
    eprintln!(
        "{} ranges are equal on all stores ({replayed} log entries replayed in memory)",
        compared.equal
    );
    Ok(())
}

/// Different stores of one cluster.
fn check_mix(opened: &[Opened]) -> Result<(), Failure> {
    let refuse = |message| Err(Failure::new("CW-CLI-STORES", message, "give each store once"));
    let mut seen: BTreeMap<StoreId, &Path> = BTreeMap::new();
    for it in opened {
        let (first, dir) = (&opened[0], it.dir.display());
        if it.identity.cluster != first.identity.cluster {
            let (ours, theirs) = (first.identity.cluster, it.identity.cluster);
            return refuse(format!(
                "{} belongs to cluster {ours}, {dir} to cluster {theirs}",
                first.dir.display()
            ));
        }
        if let Some(other) = seen.insert(it.identity.store, &it.dir) {
            let (store, other) = (it.identity.store, other.display());
            return refuse(format!("{other} and {dir} are both store {store}"));
        }
    }
    Ok(())
}

fn compared_table(compared: &Compared) -> Table {
    let mut rows = table(["RANGE", "INDEX", "ON DISK", "ROWS", "FINGERPRINT", "RESULT", "WHY"]);
    for range in &compared.ranges {
        let replicas = range.replicas.iter().map(|replica| {
            let on_disk = replica.applied_index.map_or("-".to_owned(), |index| index.to_string());
            format!("{}:{on_disk}", replica.store)
        });
        let replicas: Vec<String> = replicas.collect();
        let first = range.replicas.first();
        let same = first.filter(|first| {
            range.replicas.iter().all(|replica| replica.fingerprint == first.fingerprint)
        });
        rows.add_row(vec![
            name(RangeId(range.id)).trim_start_matches("range ").to_owned(),
            range.index.to_string(),
            replicas.join(" "),
            same.map_or("-".to_owned(), |replica| replica.rows.to_string()),
            same.map_or("-".to_owned(), |replica| replica.fingerprint.clone()),
            range.result.to_owned(),
            range.why.clone().unwrap_or_default(),
        ]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use cribwork_types::RangeDescriptor;

    use super::*;

    fn range(outcome: Outcome) -> RangeComparison {
        RangeComparison { range: RangeId(7), index: 12, replicas: Vec::new(), outcome }
    }

    fn compared(outcomes: &[Outcome]) -> Compared {
        let ranges = outcomes.iter().cloned().map(range).collect();
        Compared::new(&Comparison { ranges }, Vec::new())
    }

    #[test]
    fn only_what_was_compared_in_full_and_is_equal_is_a_success() {
        let different = || Outcome::Different("key 0x61".to_owned());
        let skipped = || Outcome::NotCompared("store 2 is late".to_owned());
        assert_eq!(compared(&[Outcome::Equal]).judge(), Ok(()));
        let failure = compared(&[Outcome::Equal, skipped(), different()]).judge().unwrap_err();
        assert_eq!(failure.exit, exit::VIOLATED);
        assert!(failure.message.contains("range 7 at index 12: key 0x61"), "{failure:?}");
        for outcomes in [&[Outcome::Equal, skipped()][..], &[]] {
            assert_eq!(compared(outcomes).judge().unwrap_err().exit, exit::FAILED);
        }
    }

    #[test]
    fn the_json_has_the_documented_shape() {
        let fingerprint = Fingerprint {
            descriptor: RangeDescriptor::default(),
            replica: cribwork_types::ReplicaId(9),
            applied_index: 12,
            applied_term: 2,
            hash: 3 << 32 | 0xab,
        };
        let replica = cribwork_multiraft::ReplicaComparison {
            store: StoreId(1),
            applied_index: None,
            replayed: 2,
            fingerprint,
        };
        let range = RangeComparison { replicas: vec![replica], ..range(Outcome::Equal) };
        assert_eq!(
            serde_json::to_string(&Compared::new(&Comparison { ranges: vec![range] }, Vec::new()))
                .unwrap(),
            r#"{"verdict":"equal","equal":1,"different":0,"not_compared":0,"stores":[],"ranges":[{"id":7,"index":12,"result":"equal","why":null,"replicas":[{"store":1,"applied_index":null,"replayed":2,"rows":3,"fingerprint":"00000003000000ab"}]}]}"#
        );
    }
}
