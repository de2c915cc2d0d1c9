//! About how many bytes each local range takes: looked at now and then, those that were written to first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cribwork_engine::{DiskUsage, Engine};
use cribwork_multiraft::{Replica, ReplicaState};
use cribwork_types::{Cf, KeyRange, RangeId};
use parking_lot::Mutex;

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// Looks between two looks at the disk: that lists the store's files.
const DISK_EVERY: u64 = 10;
/// Ranges that one look estimates whether they were written to or not, in turns.
const IN_TURN_MAX: usize = 8;
/// As many of those that were written to, the most written first.
const WRITTEN_MAX: usize = 8;
/// A range is reported again if its size moved by so much.
const NEWS_BYTES: u64 = 1 << 20;

/// Sizes of a store's ranges, and of its disk.
pub(crate) struct RangeSizes {
    engine: Arc<dyn Engine>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    looked: Option<Duration>,
    looks: u64,
    disk: DiskUsage,
    ranges: BTreeMap<RangeId, Size>,
    /// The range whose turn came last.
    turn: RangeId,
}

/// What is known of one range.
#[derive(Clone, Copy, Default)]
struct Size {
    size_bytes: u64,
    /// [`Replica::written_bytes`] at the last look.
    written_bytes: u64,
}

impl RangeSizes {
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Arc<Self> {
        Arc::new(Self { engine, known: Mutex::default() })
    }

    pub(crate) fn disk(&self) -> DiskUsage {
        self.known.lock().disk
    }

    /// Bytes of `range` at the last look; 0 before the first.
    pub(crate) fn of(&self, range: RangeId) -> u64 {
        self.known.lock().ranges.get(&range).map_or(0, |known| known.size_bytes)
    }

    /// Looks at some of `replicas`, which are in order, and at the disk, once a period. A range that
    /// `notable_bytes` were written to is looked at before its turn: not with every byte, because the
    /// estimate walks memtables. The ranges whose size moved.
    pub(crate) fn look(
        &self,
        replicas: &[Arc<Replica>],
        now: Duration,
        notable_bytes: u64,
    ) -> Vec<RangeId> {
        let mut known = self.known.lock();
        if known.looked.is_some_and(|looked| now < looked + PERIOD) {
            return Vec::new();
        }
        if known.looks.is_multiple_of(DISK_EVERY) {
            known.disk = self.engine.disk_usage();
        }
        known.looks += 1;
        known.looked = Some(now);
        let here: Vec<&Arc<Replica>> = replicas.iter().filter(|it| has_size(it)).collect();
        known.ranges.retain(|range, _| {
            here.binary_search_by_key(range, |replica| replica.range_id()).is_ok()
        });
        let due = due(&mut known, &here, notable_bytes);
        let moved = due.into_iter().filter(|replica| self.measure(&mut known, replica));
        moved.map(|replica| replica.range_id()).collect()
    }

    /// Looks at one range at once; its bytes.
    pub(crate) fn look_at(&self, replica: &Arc<Replica>) -> u64 {
        let mut known = self.known.lock();
        self.measure(&mut known, replica);
        known.ranges.get(&replica.range_id()).map_or(0, |known| known.size_bytes)
    }

    /// True if the size moved by much.
    fn measure(&self, known: &mut Known, replica: &Arc<Replica>) -> bool {
        let written_bytes = replica.written_bytes();
        let size_bytes = size_bytes(&*self.engine, &replica.descriptor().span);
        let now = Size { size_bytes, written_bytes };
        let before = known.ranges.insert(replica.range_id(), now).unwrap_or_default();
        before.size_bytes.abs_diff(size_bytes) >= NEWS_BYTES
    }
}

/// The placement group is no part of the key space; a replica without data has no bounds.
fn has_size(replica: &Replica) -> bool {
    replica.range_id() != RangeId::PLACEMENT && replica.state() != ReplicaState::Uninitialised
}

/// What one look estimates: what was written to most, and a few in turn.
fn due<'a>(known: &mut Known, here: &[&'a Arc<Replica>], notable: u64) -> Vec<&'a Arc<Replica>> {
    let written = |replica: &Replica| {
        let before = known.ranges.get(&replica.range_id()).map_or(0, |known| known.written_bytes);
        replica.written_bytes().saturating_sub(before)
    };
    let mut due: Vec<_> =
        here.iter().map(|it| (written(it), *it)).filter(|(bytes, _)| *bytes >= notable).collect();
    due.sort_by_key(|(bytes, replica)| (std::cmp::Reverse(*bytes), replica.range_id()));
    due.truncate(WRITTEN_MAX);
    let after = here.partition_point(|replica| replica.range_id() <= known.turn);
    let in_turn = here.iter().cycle().skip(after).take(IN_TURN_MAX.min(here.len()));
    let in_turn: Vec<_> = in_turn.copied().collect();
    if let Some(last) = in_turn.last() {
        known.turn = last.range_id();
    }
    due.into_iter().map(|(_, replica)| replica).chain(in_turn).collect()
}

/// Estimated bytes of everything in `span`.
fn size_bytes(engine: &dyn Engine, span: &KeyRange) -> u64 {
    Cf::DATA.iter().map(|cf| engine.approximate_size_bytes(*cf, span)).sum()
}
