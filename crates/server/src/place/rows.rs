//! Rows of the `meta` family: `kind u8 ++ id u64 BE` -> `version u8, fields`. RocksDB checks sums of
//! its blocks and its log; rows carry none of their own.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use cribwork_engine::EngineSnapshot;
use cribwork_placement::IdAllocator;
use cribwork_types::codec::{Reader, put_bytes};
use cribwork_types::{Cf, CodecError, KeyRange, RangeDescriptor, RangeId, StoreId};

use crate::{ServerError, StoreInfo};

#[cfg(test)]
mod fuzz;

const VERSION: u8 = 1;

const CLUSTER: u8 = b'c';
const IDS: u8 = b'i';
const WINDOW: u8 = b't';
const SAFE_POINT: u8 = b'g';
const SERVICE: u8 = b'p';
const STORE: u8 = b's';
const NEWCOMER: u8 = b'n';
const RANGE: u8 = b'r';
const SETTINGS: u8 = b'f';
const MERGE: u8 = b'm';

/// One row as it is written: key, and value; none to delete the row.
pub(super) type Row = (Vec<u8>, Option<Bytes>);

fn key(kind: u8, id: u64) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&id.to_be_bytes());
    key
}

fn number(value: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(9);
    out.put_u8(VERSION);
    out.put_u64(value);
    out.freeze()
}

fn read_number(bytes: Bytes) -> Result<u64, CodecError> {
    let mut reader = Reader::new("placement number", bytes);
    reader.version(VERSION)?;
    let value = reader.u64()?;
    reader.finish()?;
    Ok(value)
}

/// The cluster exists: its id.
pub(super) fn cluster(id: u64) -> Row {
    (key(CLUSTER, 0), Some(number(id)))
}

/// Id counters.
pub(super) fn ids(ids: &IdAllocator) -> Row {
    (key(IDS, 0), Some(ids.encode()))
}

/// End of the persisted timestamp window, Unix milliseconds.
pub(super) fn window(upper_ms: u64) -> Row {
    (key(WINDOW, 0), Some(number(upper_ms)))
}

/// The garbage collection safe point.
pub(super) fn safe_point(ts: u64) -> Row {
    (key(SAFE_POINT, 0), Some(number(ts)))
}

/// The process that registered as a new store: what tells a repeated request from a node that has
/// lost its data.
pub(super) fn newcomer(store: StoreId, instance: u64) -> Row {
    (key(NEWCOMER, store.get()), Some(number(instance)))
}

/// A range's descriptor.
pub(super) fn range(descriptor: &RangeDescriptor) -> Row {
    (key(RANGE, descriptor.id.get()), Some(descriptor.encode()))
}

/// A store's registration.
pub(super) fn store(info: &StoreInfo) -> Row {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    put_bytes(&mut out, info.address.as_bytes());
    put_bytes(&mut out, info.http.as_bytes());
    put_bytes(&mut out, info.zone.as_bytes());
    put_bytes(&mut out, info.state.name().as_bytes());
    (key(STORE, info.id.get()), Some(out.freeze()))
}

/// A merge of two ranges that is under way: a transaction of their groups, as far as it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MergeRow {
    /// Its name: an id of the ranges' counter, used for nothing else.
    pub(super) id: u64,
    pub(super) state: MergeState,
    /// The left one, as it was planned.
    pub(super) target: RangeDescriptor,
    /// The right one, as it was planned.
    pub(super) source: RangeDescriptor,
}

/// How far a merge has come. Once it has left the first state it never returns, nor changes between the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MergeState {
    /// Both are asked for their promises.
    Preparing,
    /// It takes place.
    Decided,
    /// It does not.
    Abandoned,
}

/// A merge.
pub(super) fn merge(row: &MergeRow) -> Row {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    out.put_u8(match row.state {
        MergeState::Preparing => 1,
        MergeState::Decided => 2,
        MergeState::Abandoned => 3,
    });
    put_bytes(&mut out, &row.target.encode());
    put_bytes(&mut out, &row.source.encode());
    (key(MERGE, row.id), Some(out.freeze()))
}

/// A merge is over.
pub(super) fn no_merge(id: u64) -> Row {
    (key(MERGE, id), None)
}

/// A range is no more.
pub(super) fn no_range(id: RangeId) -> Row {
    (key(RANGE, id.get()), None)
}

fn read_merge(id: u64, bytes: Bytes) -> Result<MergeRow, CodecError> {
    let mut reader = Reader::new("merge row", bytes);
    reader.version(VERSION)?;
    let state = match reader.u8()? {
        1 => MergeState::Preparing,
        2 => MergeState::Decided,
        3 => MergeState::Abandoned,
        _ => return Err(reader.malformed("unknown state of a merge")),
    };
    let target = RangeDescriptor::decode(reader.bytes()?)?;
    let source = RangeDescriptor::decode(reader.bytes()?)?;
    reader.finish()?;
    Ok(MergeRow { id, state, target, source })
}

/// What was set for the cluster: names and values as text.
pub(super) fn settings(set: &BTreeMap<String, String>) -> Row {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    out.put_u32(set.len() as u32);
    for (name, value) in set {
        put_bytes(&mut out, name.as_bytes());
        put_bytes(&mut out, value.as_bytes());
    }
    (key(SETTINGS, 0), Some(out.freeze()))
}

fn read_settings(bytes: Bytes) -> Result<BTreeMap<String, String>, CodecError> {
    let mut reader = Reader::new("cluster settings", bytes);
    reader.version(VERSION)?;
    let mut set = BTreeMap::new();
    for _ in 0..reader.u32()? {
        let (name, value) = (text(&mut reader)?, text(&mut reader)?);
        if set.last_key_value().is_some_and(|(last, _)| *last >= name) {
            return Err(reader.malformed("settings out of order"));
        }
        set.insert(name, value);
    }
    reader.finish()?;
    Ok(set)
}

/// A service's own safe point: holds the cluster's back until it expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServicePoint {
    pub(super) service: Bytes,
    /// Unix milliseconds.
    pub(super) expires_ms: u64,
    pub(super) safe_point: u64,
}

fn service_key(service: &[u8]) -> Vec<u8> {
    [&[SERVICE], service].concat()
}

/// A service's safe point is gone.
pub(super) fn no_service(service: &[u8]) -> Row {
    (service_key(service), None)
}

/// A service's safe point.
pub(super) fn service(point: &ServicePoint) -> Row {
    let mut out = BytesMut::with_capacity(17);
    out.put_u8(VERSION);
    out.put_u64(point.expires_ms);
    out.put_u64(point.safe_point);
    (service_key(&point.service), Some(out.freeze()))
}

fn read_service(key: &[u8], bytes: Bytes) -> Result<ServicePoint, CodecError> {
    let mut reader = Reader::new("service safe point", bytes);
    reader.version(VERSION)?;
    let (expires_ms, safe_point) = (reader.u64()?, reader.u64()?);
    reader.finish()?;
    Ok(ServicePoint { service: Bytes::copy_from_slice(&key[1..]), expires_ms, safe_point })
}

fn text(reader: &mut Reader) -> Result<String, CodecError> {
    String::from_utf8(reader.bytes()?.to_vec()).map_err(|_| reader.malformed("not UTF-8"))
}

fn read_store(id: u64, bytes: Bytes) -> Result<StoreInfo, CodecError> {
    let mut reader = Reader::new("store row", bytes);
    reader.version(VERSION)?;
    let (address, http) = (text(&mut reader)?, text(&mut reader)?);
    let (zone, state) = (text(&mut reader)?, text(&mut reader)?);
    reader.finish()?;
    Ok(StoreInfo { id: StoreId(id), address, http, zone, state: StoreInfo::state_named(&state) })
}

/// Everything that is stored.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) cluster: Option<u64>,
    pub(super) ids: Option<IdAllocator>,
    pub(super) window_ms: Option<u64>,
    pub(super) safe_point: u64,
    pub(super) services: Vec<ServicePoint>,
    pub(super) stores: Vec<StoreInfo>,
    /// By store: the process that registered it.
    pub(super) newcomers: BTreeMap<StoreId, u64>,
    pub(super) ranges: Vec<RangeDescriptor>,
    /// Merges that are under way.
    pub(super) merges: Vec<MergeRow>,
    /// What was set for the cluster, by name.
    pub(super) settings: BTreeMap<String, String>,
}

impl Stored {
    /// Reads all rows of a snapshot.
    pub(super) fn load(snapshot: &dyn EngineSnapshot) -> Result<Self, ServerError> {
        let mut stored = Stored::default();
        let mut cursor = snapshot.cursor(Cf::Meta, &KeyRange::all());
        let mut found = cursor.seek_to_first()?;
        while found {
            stored.row(cursor.key(), Bytes::copy_from_slice(cursor.value()))?;
            found = cursor.next()?;
        }
        Ok(stored)
    }

    fn row(&mut self, key: &[u8], value: Bytes) -> Result<(), CodecError> {
        const WHAT: &str = "placement row";
        let kind = *key.first().ok_or(CodecError::Truncated { what: WHAT })?;
        if kind == SERVICE {
            self.services.push(read_service(key, value)?);
            return Ok(());
        }
        let id = key.get(1..9).ok_or(CodecError::Truncated { what: WHAT })?;
        let id = id.iter().fold(0, |id, byte| id << 8 | u64::from(*byte));
        match kind {
            CLUSTER => self.cluster = Some(read_number(value)?),
            IDS => self.ids = Some(IdAllocator::decode(value)?),
            WINDOW => self.window_ms = Some(read_number(value)?),
            SAFE_POINT => self.safe_point = read_number(value)?,
            NEWCOMER => drop(self.newcomers.insert(StoreId(id), read_number(value)?)),
            STORE => self.stores.push(read_store(id, value)?),
            SETTINGS => self.settings = read_settings(value)?,
            RANGE => self.ranges.push(RangeDescriptor::decode(value)?),
            MERGE => self.merges.push(read_merge(id, value)?),
            _ => return Err(CodecError::Malformed { what: WHAT, why: "unknown kind" }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip() {
        let info = StoreInfo {
            id: StoreId(7),
            address: "a:1".into(),
            http: "a:2".into(),
            zone: "z".into(),
            state: cribwork_placement::StoreState::Draining,
        };
        let point =
            ServicePoint { service: Bytes::from_static(b"backup"), expires_ms: 5, safe_point: 6 };
        let mut stored = Stored::default();
        let newcomer = newcomer(StoreId(7), 99);
        let merging = MergeRow {
            id: 12,
            state: MergeState::Decided,
            target: RangeDescriptor { id: RangeId(3), ..RangeDescriptor::default() },
            source: RangeDescriptor { id: RangeId(4), ..RangeDescriptor::default() },
        };
        assert_eq!(no_merge(12), (merge(&merging).0, None), "of the same row");
        let set = BTreeMap::from([("repair_after".to_owned(), "10s".to_owned())]);
        let rows = [
            store(&info),
            window(9),
            cluster(3),
            safe_point(4),
            service(&point),
            newcomer,
            settings(&set),
            merge(&merging),
        ];
        for (key, value) in rows {
            stored.row(&key, value.unwrap()).unwrap();
        }
        assert_eq!(stored.settings, set);
        assert_eq!(stored.merges, [merging]);
        assert_eq!(stored.newcomers, BTreeMap::from([(StoreId(7), 99)]));
        assert_eq!(no_service(b"backup"), (service(&point).0, None), "of the same row");
        assert_eq!((stored.stores, stored.services), (vec![info], vec![point]));
        assert_eq!((stored.window_ms, stored.cluster, stored.safe_point), (Some(9), Some(3), 4));
        assert!(Stored::default().row(b"?", Bytes::new()).is_err());
    }
    #[test]
    fn settings_come_in_order_and_once() {
        let read = |names: [&str; 2]| {
            let mut out = BytesMut::new();
            out.put_u8(VERSION);
            out.put_u32(2);
            for name in names {
                put_bytes(&mut out, name.as_bytes());
                put_bytes(&mut out, b"1");
            }
            read_settings(out.freeze())
        };
        assert!(read(["a", "b"]).is_ok());
        assert!(read(["b", "a"]).is_err() && read(["a", "a"]).is_err());
    }
}
