//! What a fresh cluster looks like: computed once by the node that was told to initialise, stored
//! there, sent to all, and resumed as it is after a crash.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use cribwork_router::evenly_split_bounds;
use cribwork_types::codec::{Reader, put_bytes};
use cribwork_types::{
    ClusterId, CodecError, KeyRange, RangeDescriptor, RangeEpoch, RangeId, ReplicaDescriptor,
    ReplicaId, ReplicaRole, StoreId, key,
};

use crate::{IdAllocator, IdKind, PlacementError, replica_round_robin};

/// Most members of the placement group at the start.
pub const PLACEMENT_MEMBERS_MAX: usize = 3;
/// Replicas of each range at the start, or as many as there are stores.
pub const REPLICAS_PER_RANGE: usize = 3;

const VERSION: u8 = 1;

/// A store of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedStore {
    /// Its id.
    pub id: StoreId,
    /// gRPC address, `host:port`.
    pub address: String,
    /// HTTP address, `host:port`.
    pub http: String,
}

/// A fresh cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapPlan {
    /// The new cluster.
    pub cluster: ClusterId,
    /// All stores, as given.
    pub stores: Vec<PlannedStore>,
    /// The stores of the placement group; the first one leads first.
    pub placement_members: Vec<StoreId>,
    /// The placement group: [`RangeId::PLACEMENT`], with an empty span (start and end are `enc("")`),
    /// because it holds no part of the key space.
    pub placement: RangeDescriptor,
    /// The ranges of the key space from left to right; the first replica of each is meant to lead.
    pub ranges: Vec<RangeDescriptor>,
    /// Where ids go on.
    pub ids: IdAllocator,
}

impl BootstrapPlan {
    /// Plans `range_count` ranges and one empty range on top, over `stores` in the order given.
    /// Depends on nothing else, so that a repeated call gives the same plan.
    ///
    /// # Errors
    /// [`PlacementError`] if the cluster id is zero, there is no store, a store or an address is
    /// invalid or there twice, or `range_count` is out of bounds.
    pub fn make(
        cluster: ClusterId,
        stores: Vec<PlannedStore>,
        range_count: u32,
    ) -> Result<Self, PlacementError> {
        if cluster.get() == 0 {
            return Err(PlacementError::NoClusterId);
        }
        check_stores(&stores)?;
        let store_ids: Vec<StoreId> = stores.iter().map(|store| store.id).collect();
        let mut ids = IdAllocator::new();
        let highest = store_ids.iter().map(|store| store.get()).max().unwrap_or(0);
        ids.reserve(IdKind::Store, highest)?;

        let placement_members: Vec<StoreId> =
            store_ids.iter().take(PLACEMENT_MEMBERS_MAX).copied().collect();
        let nothing = Bytes::from(key::encode(b""));
        let placement = RangeDescriptor {
            id: RangeId::PLACEMENT,
            span: KeyRange { start: nothing.clone(), end: nothing },
            epoch: RangeEpoch::INITIAL,
            replicas: new_replicas(&mut ids, &placement_members)?,
        };

        let bounds = evenly_split_bounds(range_count)?;
        let starts = [Bytes::new()].into_iter().chain(bounds.iter().cloned());
        let ends = bounds.iter().cloned().chain([Bytes::new()]);
        let members = replica_round_robin(&store_ids, bounds.len() + 1, REPLICAS_PER_RANGE);
        let first = ids.reserve(IdKind::Range, members.len() as u64)?;
        let mut ranges = Vec::with_capacity(members.len());
        for (((start, end), members), id) in starts.zip(ends).zip(members).zip(first..) {
            ranges.push(RangeDescriptor {
                id: RangeId(id),
                span: KeyRange { start, end },
                epoch: RangeEpoch::INITIAL,
                replicas: new_replicas(&mut ids, &members)?,
            });
        }
        Ok(Self { cluster, stores, placement_members, placement, ranges, ids })
    }

    /// The bytes on disk and between nodes: version, cluster, stores, placement members, placement
    /// group, ranges, id counters.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        out.put_u64(self.cluster.get());
        out.put_u32(self.stores.len() as u32);
        for store in &self.stores {
            out.put_u64(store.id.get());
            put_bytes(&mut out, store.address.as_bytes());
            put_bytes(&mut out, store.http.as_bytes());
        }
        out.put_u32(self.placement_members.len() as u32);
        self.placement_members.iter().for_each(|store| out.put_u64(store.get()));
        put_bytes(&mut out, &self.placement.encode());
        out.put_u32(self.ranges.len() as u32);
        self.ranges.iter().for_each(|range| put_bytes(&mut out, &range.encode()));
        put_bytes(&mut out, &self.ids.encode());
        out.freeze()
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are not a plan of this version.
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut reader = Reader::new("bootstrap plan", bytes);
        reader.version(VERSION)?;
        let cluster = ClusterId(reader.u64()?);
        let stores = list(&mut reader, |reader| {
            Ok(PlannedStore {
                id: StoreId(reader.u64()?),
                address: text(reader)?,
                http: text(reader)?,
            })
        })?;
        let placement_members = list(&mut reader, |reader| Ok(StoreId(reader.u64()?)))?;
        let placement = RangeDescriptor::decode(reader.bytes()?)?;
        let ranges = list(&mut reader, |reader| RangeDescriptor::decode(reader.bytes()?))?;
        let ids = IdAllocator::decode(reader.bytes()?)?;
        reader.finish()?;
        Ok(Self { cluster, stores, placement_members, placement, ranges, ids })
    }
}

fn check_stores(stores: &[PlannedStore]) -> Result<(), PlacementError> {
    if stores.is_empty() {
        return Err(PlacementError::NoStores);
    }
    let (mut ids, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for PlannedStore { id, address, .. } in stores {
        let bad = |why| Err(PlacementError::BadStore { store: *id, why });
        if id.get() == 0 {
            return bad("its id is zero");
        }
        if address.is_empty() {
            return bad("its address is empty");
        }
        if !ids.insert(*id) {
            return bad("its id is there twice");
        }
        if !addresses.insert(address) {
            return bad("its address is there twice");
        }
    }
    Ok(())
}

fn new_replicas(
    ids: &mut IdAllocator,
    stores: &[StoreId],
) -> Result<Vec<ReplicaDescriptor>, PlacementError> {
    let first = ids.reserve(IdKind::Replica, stores.len() as u64)?;
    let replica = |(store, id): (&StoreId, u64)| ReplicaDescriptor {
        id: ReplicaId(id),
        store: *store,
        role: ReplicaRole::Voter,
    };
    Ok(stores.iter().zip(first..).map(replica).collect())
}

fn list<T>(
    reader: &mut Reader,
    mut read: impl FnMut(&mut Reader) -> Result<T, CodecError>,
) -> Result<Vec<T>, CodecError> {
    let count = reader.u32()? as usize;
    if count > reader.remaining() {
        return Err(reader.malformed("more elements than bytes"));
    }
    (0..count).map(|_| read(reader)).collect()
}

fn text(reader: &mut Reader) -> Result<String, CodecError> {
    String::from_utf8(reader.bytes()?.to_vec())
        .map_err(|_| reader.malformed("an address is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use cribwork_router::{BoundsError, check_tiling};
    use cribwork_types::limits::ENTRY_BYTES_MAX;
    use proptest::prelude::*;

    use super::*;

    fn stores(n: u64) -> Vec<PlannedStore> {
        let store = |id| PlannedStore {
            id: StoreId(id),
            address: format!("10.0.0.{id}:20160"),
            http: format!("10.0.0.{id}:20180"),
        };
        (1..=n).map(store).collect()
    }

    #[test]
    fn a_plan_tiles_and_numbers_everything_once() {
        for n in [1, 2, 3, 5] {
            let mut plan = BootstrapPlan::make(ClusterId(9), stores(n), 16).unwrap();
            assert_eq!(check_tiling(&plan.ranges), Ok(()));
            assert_eq!(plan.ranges.len(), 17);
            assert_eq!(plan.ranges[16].span.start, key::top_bound());
            assert_eq!(plan.placement.id, RangeId::PLACEMENT);
            assert!(plan.placement.span.is_empty());
            let members: Vec<_> = plan.placement.replicas.iter().map(|r| r.store).collect();
            assert_eq!(members, plan.placement_members);
            assert_eq!(members.len() as u64, n.min(3));
            let groups = plan.ranges.iter().chain([&plan.placement]);
            let replicas: Vec<_> =
                groups.flat_map(|range| &range.replicas).map(|replica| replica.id.get()).collect();
            let distinct: BTreeSet<_> = replicas.iter().copied().collect();
            assert_eq!(distinct, (1..=replicas.len() as u64).collect());
            assert_eq!(plan.ids.reserve(IdKind::Store, 1), Ok(n + 1));
            assert_eq!(plan.ids.reserve(IdKind::Range, 1), Ok(18));
            assert_eq!(plan.ids.reserve(IdKind::Replica, 1), Ok(replicas.len() as u64 + 1));
        }
    }

    #[test]
    fn refuses_what_cannot_be_a_cluster() {
        let make =
            |cluster, stores, ranges| BootstrapPlan::make(ClusterId(cluster), stores, ranges);
        assert_eq!(make(0, stores(3), 1), Err(PlacementError::NoClusterId));
        assert_eq!(make(1, stores(0), 1), Err(PlacementError::NoStores));
        assert_eq!(make(1, stores(3), 0), Err(BoundsError { asked: 0 }.into()));
        let spoilt = |spoil: fn(&mut PlannedStore)| {
            let mut stores = stores(3);
            spoil(&mut stores[1]);
            make(1, stores, 1).unwrap_err()
        };
        let spoils: [fn(&mut PlannedStore); 4] = [
            |store| store.id = StoreId(0),
            |store| store.id = StoreId(1),
            |store| store.address.clear(),
            |store| store.address = "10.0.0.1:20160".to_owned(),
        ];
        for spoil in spoils {
            assert!(matches!(spoilt(spoil), PlacementError::BadStore { .. }));
        }
    }

    #[test]
    fn the_largest_plan_fits_into_one_entry() {
        let plan = BootstrapPlan::make(ClusterId(1), stores(9), 65_536).unwrap();
        let bytes = plan.encode();
        assert!(bytes.len() < ENTRY_BYTES_MAX, "{}", bytes.len());
        assert_eq!(BootstrapPlan::decode(bytes), Ok(plan));
    }

    /// Golden bytes: an unfinished bootstrap must be resumable by a later build.
    #[test]
    fn format_version_1_is_frozen() {
        let store =
            PlannedStore { id: StoreId(1), address: "a:1".to_owned(), http: "a:2".to_owned() };
        let plan = BootstrapPlan::make(ClusterId(7), vec![store], 1).unwrap();
        let bytes = plan.encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, include_str!("bootstrap/plan_v1.hex").trim());
        for length in 0..bytes.len() {
            assert!(BootstrapPlan::decode(bytes.slice(..length)).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn decoding_garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = bytes;
            if let Some(version) = bytes.first_mut() {
                *version = VERSION;
            }
            let _ = BootstrapPlan::decode(Bytes::from(bytes));
        }
    }
}
