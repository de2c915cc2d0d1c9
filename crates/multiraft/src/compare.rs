//! Whether stopped stores hold the same: replicas of one range, at one applied index, byte for byte.
//!
//! Stores that stopped at different moments, or lost their power, have applied different prefixes of the
//! same log. Who is behind is brought up to the others first, in memory and over a view that nobody else
//! sees, by the very code that a node applies with ([`crate::effect`]) and by entries that are certainly
//! committed: some store has applied them.
//!
//! Flow: [`Held`] of each store -> [`catch_up`] until nobody moves -> [`judge`] each range.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use cribwork_engine::EngineSnapshot;
use cribwork_types::{Cf, RangeId, StoreId, WriteBatch};

use crate::RaftError;
use crate::command::decode_payload;
use crate::effect::{Effect, RangeState};
use crate::fingerprint::{Fingerprint, applied, fingerprint, records};
use crate::keys;
use crate::overlay::{Overlay, Row};
use crate::position::Position;
use crate::records::{Payload, ReplicaRecord, decode_entry};
use crate::removal;
use crate::seed::put_record;
use crate::snapshot::parts;

/// A stopped store.
pub struct StoreView<'a> {
    /// Its id.
    pub store: StoreId,
    /// Everything in it.
    pub snapshot: &'a dyn EngineSnapshot,
}

/// What the comparison of some stores found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Every range of which a store holds data, by id. Range 0 is the placement group.
    pub ranges: Vec<RangeComparison>,
}

/// One range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeComparison {
    /// The range.
    pub range: RangeId,
    /// The newest index that a store has applied: that at which replicas are compared.
    pub index: u64,
    /// Its replicas on these stores.
    pub replicas: Vec<ReplicaComparison>,
    /// What came of it.
    pub outcome: Outcome,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaComparison {
    /// Its store.
    pub store: StoreId,
    /// How far it is applied on disk; none if the split that makes it is not applied there.
    pub applied_index: Option<u64>,
    /// Entries that were applied to it in memory, to bring it up to the others.
    pub replayed: u64,
    /// What it holds then.
    pub fingerprint: Fingerprint,
}

/// What comparing the replicas of a range showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All hold the same at the same index.
    Equal,
    /// Two do not, with the first difference.
    Different(String),
    /// Not all could be compared, for this reason; those that could be are equal.
    NotCompared(String),
}

/// Compares what `stores` hold. Reads everything: take your time.
///
/// # Errors
/// [`RaftError::Engine`] or [`RaftError::Codec`] if a store cannot be read or a record in it is damaged.
pub fn compare(stores: &[StoreView<'_>]) -> Result<Comparison, RaftError> {
    let held = stores.iter().map(|view| Held::new(view.store, view.snapshot));
    let mut held = held.collect::<Result<Vec<_>, RaftError>>()?;
    catch_up(&mut held)?;
    let ids: BTreeSet<RangeId> =
        held.iter().flat_map(|held| held.replicas.keys()).copied().collect();
    let ranges = ids.into_iter().map(|range| judge(&held, range));
    Ok(Comparison { ranges: ranges.collect::<Result<_, RaftError>>()? })
}

/// What one store holds, with what was applied meanwhile.
struct Held<'a> {
    store: StoreId,
    view: Overlay<'a>,
    replicas: BTreeMap<RangeId, Replica>,
}

struct Replica {
    record: ReplicaRecord,
    state: RangeState,
    /// On disk.
    applied_index: Option<u64>,
    replayed: u64,
    /// It applied something that is not in the log of the others.
    strayed: Option<String>,
}

impl Replica {
    fn next_index(&self) -> u64 {
        self.state.applied.position.map_or(0, |at| at.index + 1)
    }
}

type Entries = Vec<(Position, Payload)>;

impl<'a> Held<'a> {
    fn new(store: StoreId, snapshot: &'a dyn EngineSnapshot) -> Result<Self, RaftError> {
        let view = Overlay::over(snapshot);
        let mut held = Self { store, view, replicas: BTreeMap::new() };
        for record in records(&held.view)? {
            held.take(record, true)?;
        }
        Ok(held)
    }

    fn take(&mut self, record: ReplicaRecord, on_disk: bool) -> Result<(), RaftError> {
        let range = record.descriptor.id;
        let applied = applied(&self.view, range)?;
        let applied_index = on_disk.then(|| applied.position.map_or(0, |at| at.index));
        let state = RangeState { descriptor: Arc::new(record.descriptor.clone()), applied };
        let replica = Replica { record, state, applied_index, replayed: 0, strayed: None };
        self.replicas.insert(range, replica);
        Ok(())
    }

    /// Ranges that another store has applied further.
    fn behind(&self, newest: &BTreeMap<RangeId, Position>) -> Vec<(RangeId, Position)> {
        let behind = newest.iter().filter(|(range, target)| {
            let replica = self.replicas.get(range);
            replica.is_some_and(|it| it.strayed.is_none() && it.next_index() <= target.index)
        });
        behind.map(|(range, target)| (*range, *target)).collect()
    }

    /// The term of one entry, if it is in the log.
    fn term_at(&self, range: RangeId, index: u64) -> Result<Option<u64>, RaftError> {
        let entry = self.view.get(Cf::Raft, &keys::entry(range, index))?;
        Ok(entry.map(decode_entry).transpose()?.map(|(term, _)| term))
    }

    /// Entries from `first` to `target`, if this log has all of them and ends in that very entry: two logs
    /// with the same entry at one index are the same up to it.
    fn entries(
        &self,
        range: RangeId,
        first: u64,
        target: Position,
    ) -> Result<Option<Entries>, RaftError> {
        if self.term_at(range, target.index)? != Some(target.term) {
            return Ok(None);
        }
        let mut entries = Vec::new();
        let mut rows = self.view.rows(Cf::Raft, &keys::entries(range, first, target.index + 1));
        for index in first..=target.index {
            match rows.next()? {
                Some((key, value)) if key == keys::entry(range, index) => {
                    let (term, payload) = decode_entry(Bytes::copy_from_slice(value))?;
                    entries.push((Position { term, index }, payload));
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(entries))
    }

    /// Applies entries that follow what is applied.
    fn replay(&mut self, range: RangeId, entries: Entries) -> Result<(), RaftError> {
        let Some(replica) = self.replicas.get(&range) else { return Ok(()) };
        let mut state = replica.state.clone();
        let count = entries.len() as u64;
        let (mut made, mut strayed) = (Vec::new(), None);
        for (position, payload) in entries {
            let mut batch = WriteBatch::new();
            match payload {
                Payload::Blank => {}
                Payload::Members(members) => state.members(position, members),
                Payload::Commands(bytes) => {
                    for command in decode_payload(bytes)?.1 {
                        match state.command(position, command) {
                            Ok(Effect::Write(write)) => batch.append(write),
                            Ok(Effect::Split(split)) => {
                                let exists = self.replicas.contains_key(&split.right.id);
                                let seed = split.seed(self.store, false).filter(|_| !exists);
                                if let Some(seed) = seed {
                                    seed.write(&mut batch);
                                    made.push(seed.record);
                                }
                            }
                            Ok(Effect::Absorbed(right)) => {
                                let gone = self.replicas.remove(&right.id);
                                match gone.filter(|it| it.state.applied.is_frozen()) {
                                    Some(gone) => {
                                        removal::bury(&mut batch, right.id, gone.record.id);
                                    }
                                    None => {
                                        let lost = format!("range {} is not here", right.id);
                                        strayed = Some(format!("it absorbs a range: {lost}"));
                                    }
                                }
                            }
                            Ok(Effect::Nothing | Effect::Changed | Effect::Fingerprint)
                            | Err(_) => {}
                        }
                    }
                }
            }
            state.advance(position);
            self.view.write(batch)?;
        }
        let Some(replica) = self.replicas.get_mut(&range) else { return Ok(()) };
        if state.descriptor.replica(replica.record.id).is_none() {
            // One of the entries removed it: started again, its store would forget it.
            self.replicas.remove(&range);
            return made.into_iter().try_for_each(|record| self.take(record, false));
        }
        replica.record.descriptor = state.descriptor.as_ref().clone();
        replica.state = state;
        replica.replayed += count;
        replica.strayed = strayed;
        let mut batch = WriteBatch::new();
        batch.put(Cf::State, keys::applied(range), replica.state.applied.encode());
        put_record(&mut batch, &replica.record);
        self.view.write(batch)?;
        made.into_iter().try_for_each(|record| self.take(record, false))
    }
}

/// The furthest position that any store has applied of each range. All up to it is committed.
fn newest(held: &[Held<'_>]) -> BTreeMap<RangeId, Position> {
    let mut newest: BTreeMap<RangeId, Position> = BTreeMap::new();
    for (range, replica) in held.iter().flat_map(|held| &held.replicas) {
        if let Some(at) = replica.state.applied.position {
            let known = newest.entry(*range).or_insert(at);
            if known.index < at.index {
                *known = at;
            }
        }
    }
    newest
}

/// Brings every replica as far as the logs allow. A split that is applied on the way makes replicas, which
/// are brought up in the next round.
fn catch_up(held: &mut [Held<'_>]) -> Result<(), RaftError> {
    loop {
        let newest = newest(held);
        let mut moved = false;
        for number in 0..held.len() {
            for (range, target) in held[number].behind(&newest) {
                moved |= bring_up(held, number, range, target)?;
            }
        }
        if !moved {
            return Ok(());
        }
    }
}

/// Brings one replica up to `target`; false if no log has what it takes.
fn bring_up(
    held: &mut [Held<'_>],
    number: usize,
    range: RangeId,
    target: Position,
) -> Result<bool, RaftError> {
    let Some(replica) = held[number].replicas.get(&range) else { return Ok(false) };
    let (first, at) = (replica.next_index(), replica.state.applied.position);
    // Its own log first: that is what it would apply once it is started.
    let mut sources: Vec<usize> = (0..held.len()).collect();
    sources.sort_by_key(|source| *source != number);
    for source in sources {
        let Some(entries) = held[source].entries(range, first, target)? else { continue };
        let before = at.map(|at| held[source].term_at(range, at.index)).transpose()?.flatten();
        if let (Some(at), Some(term)) = (at, before)
            && at.term != term
        {
            let said = format!(
                "store {} has applied an entry of term {} at index {}, where the log of store {} has one \
                 of term {term}",
                held[number].store, at.term, at.index, held[source].store
            );
            if let Some(replica) = held[number].replicas.get_mut(&range) {
                replica.strayed = Some(said);
            }
            return Ok(false);
        }
        held[number].replay(range, entries)?;
        return Ok(true);
    }
    Ok(false)
}

fn judge(held: &[Held<'_>], range: RangeId) -> Result<RangeComparison, RaftError> {
    let mut holders: Vec<(&Held<'_>, &Replica)> =
        held.iter().filter_map(|held| Some((held, held.replicas.get(&range)?))).collect();
    if let Some((_, newest)) = holders.iter().max_by_key(|(_, replica)| replica.next_index()) {
        // Who was removed while it was away, and has not heard of it, is no member to compare.
        let members = newest.state.descriptor.clone();
        holders.retain(|(_, replica)| members.replica(replica.record.id).is_some());
    }
    let mut replicas = Vec::new();
    for (held, replica) in &holders {
        replicas.push(ReplicaComparison {
            store: held.store,
            applied_index: replica.applied_index,
            replayed: replica.replayed,
            fingerprint: fingerprint(&held.view, replica.record.clone())?,
        });
    }
    let index = replicas.iter().map(|it| it.fingerprint.applied_index).max().unwrap_or_default();
    let strayed = holders.iter().find_map(|(_, replica)| replica.strayed.clone());
    let outcome = match strayed {
        Some(said) => Outcome::Different(said),
        None => match difference(&holders, &replicas, index)? {
            Some(said) => Outcome::Different(said),
            None => missing(held, &replicas, index).map_or(Outcome::Equal, Outcome::NotCompared),
        },
    };
    Ok(RangeComparison { range, index, replicas, outcome })
}

/// Why not all replicas that there should be were compared.
fn missing(held: &[Held<'_>], replicas: &[ReplicaComparison], index: u64) -> Option<String> {
    let newest = replicas.iter().max_by_key(|it| it.fingerprint.applied_index)?;
    let descriptor = &newest.fingerprint.descriptor;
    if let Some(late) = replicas.iter().find(|it| it.fingerprint.applied_index != index) {
        let (store, at) = (late.store, late.fingerprint.applied_index);
        return Some(format!(
            "store {store} stands at index {at}, and no log has all that follows up to {index}"
        ));
    }
    let holds = |store| replicas.iter().any(|it| it.store == store);
    let absent = held.iter().map(|held| held.store);
    let mut absent =
        absent.filter(|store| descriptor.replica_on(*store).is_some() && !holds(*store));
    if let Some(store) = absent.next() {
        return Some(format!("store {store} is a member and holds nothing of it yet"));
    }
    (replicas.len() == 1).then(|| format!("only store {} of these holds it", newest.store))
}

/// The first difference between replicas that stand at `index`.
fn difference(
    holders: &[(&Held<'_>, &Replica)],
    replicas: &[ReplicaComparison],
    index: u64,
) -> Result<Option<String>, RaftError> {
    let both = holders.iter().zip(replicas);
    let mut level = both.filter(|(_, it)| it.fingerprint.applied_index == index);
    let Some(((first_held, _), first)) = level.next() else { return Ok(None) };
    for ((held, _), other) in level {
        let (a, b) = (&first.fingerprint, &other.fingerprint);
        let stores = format!("store {} and store {}", first.store, other.store);
        if a.applied_term != b.applied_term {
            let (a, b) = (a.applied_term, b.applied_term);
            return Ok(Some(format!("{stores} have applied entries of terms {a} and {b}")));
        }
        if a.descriptor != b.descriptor {
            let (a, b) = (&a.descriptor, &b.descriptor);
            return Ok(Some(format!("{stores} disagree on bounds or members: {a:?}, {b:?}")));
        }
        if a.hash != b.hash {
            let row = differing_row(&first_held.view, &held.view, a)?;
            return Ok(Some(format!("{stores} differ: {row}")));
        }
    }
    Ok(None)
}

/// The first row that is not the same in both, in words.
fn differing_row(a: &Overlay<'_>, b: &Overlay<'_>, of: &Fingerprint) -> Result<String, RaftError> {
    for (cf, span) in parts(&of.descriptor) {
        let (mut a, mut b) = (a.rows(cf, &span), b.rows(cf, &span));
        loop {
            let (left, right) = (a.next()?, b.next()?);
            if left.is_none() && right.is_none() {
                break;
            }
            if left == right {
                continue;
            }
            // The smaller key is the one that the other lacks.
            let key = match (left, right) {
                (Some((left, _)), Some((right, _))) => left.min(right),
                (Some((key, _)), None) | (None, Some((key, _))) => key,
                (None, None) => &[],
            };
            let has = |row: Option<Row<'_>>| match row {
                Some((other, value)) if other == key => format!("{} bytes", value.len()),
                _ => "nothing".to_owned(),
            };
            let (left, right, family) = (has(left), has(right), cf.name());
            let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            return Ok(format!("family {family}, key 0x{key}: {left} against {right}"));
        }
    }
    Ok("their fingerprints".to_owned())
}

#[cfg(test)]
mod tests {
    use cribwork_engine::{Engine, MemoryEngine};
    use cribwork_types::{KeyRange, RangeDescriptor, ReplicaDescriptor, ReplicaId, ReplicaRole};

    use super::*;
    use crate::records::encode_entry;
    use crate::seed::Seed;

    const RANGE: RangeId = RangeId(4);

    /// A replica of a range on `store`, applied to the last of `terms`, which are those of its log from index
    /// 1 on; only those from `logged` on are in the log.
    fn stopped(store: u64, terms: &[u64], logged: u64) -> Arc<MemoryEngine> {
        let replicas = [1, 2].map(|store| ReplicaDescriptor {
            id: ReplicaId(store),
            store: StoreId(store),
            role: ReplicaRole::Voter,
        });
        let descriptor = RangeDescriptor {
            id: RANGE,
            span: KeyRange::all(),
            replicas: replicas.to_vec(),
            ..RangeDescriptor::default()
        };
        let record = ReplicaRecord { id: ReplicaId(store), initialised: true, descriptor };
        let seed = Seed { record, leader: ReplicaId(1), term: 1, keep_vote: false };
        let mut batch = WriteBatch::new();
        let mut applied = seed.write(&mut batch);
        for (term, index) in terms.iter().copied().zip(1..) {
            if index >= logged {
                let entry = encode_entry(term, &Payload::Blank);
                batch.put(Cf::Raft, keys::entry(RANGE, index), entry);
            }
            applied.position = Some(Position { term, index });
        }
        batch.put(Cf::State, keys::applied(RANGE), applied.encode());
        let engine = MemoryEngine::new();
        engine.write(&batch).unwrap();
        engine
    }

    fn outcome(one: &MemoryEngine, other: &MemoryEngine) -> Outcome {
        let (one, other) = (one.snapshot(), other.snapshot());
        let views = [(1, &one), (2, &other)]
            .map(|(store, view)| StoreView { store: StoreId(store), snapshot: &**view });
        let ranges = compare(&views).unwrap().ranges;
        assert_eq!(ranges.len(), 1);
        ranges[0].outcome.clone()
    }

    #[test]
    fn who_applied_what_was_never_committed_is_found_out() {
        assert_eq!(outcome(&stopped(1, &[1, 1, 1], 1), &stopped(2, &[1, 1], 1)), Outcome::Equal);
        for (one, other) in [(&[1, 2][..], &[1, 1][..]), (&[1, 2, 2], &[1, 1])] {
            let outcome = outcome(&stopped(1, one, 1), &stopped(2, other, 1));
            assert!(matches!(outcome, Outcome::Different(_)), "{outcome:?}");
        }
    }

    /// Entry 2 is in no log: nobody knows what it did.
    #[test]
    fn a_log_with_a_hole_brings_nobody_up() {
        let outcome = outcome(&stopped(1, &[1, 1, 1], 3), &stopped(2, &[1], 1));
        assert!(matches!(outcome, Outcome::NotCompared(_)), "{outcome:?}");
    }
}
