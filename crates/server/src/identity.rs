//! What a node remembers of itself between starts, beside its ranges: who it is, the plan by which it
//! became a member, how far an initialisation that it conducts has come, and where the others are.
//!
//! All of it lives in [`Cf::State`] under keys that begin with `0xFF`, behind the keys of all ranges.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use cribwork_engine::{Engine, EngineError, IDENTITY_KEY, StoreIdentity, identity};
use cribwork_placement::BootstrapPlan;
use cribwork_types::codec::{Reader, put_bytes};
use cribwork_types::{Cf, CodecError, StoreId, WriteBatch};

use crate::{ServerError, StoreInfo};

#[cfg(test)]
mod fuzz;

/// The plan by which this node became, or is about to become, a member.
const PLAN_KEY: &[u8] = b"\xFFplan";
/// One byte, [`INIT_BEGUN`] or [`INIT_FINISHED`]: this node was told to initialise the cluster.
const INIT_KEY: &[u8] = b"\xFFinit";
/// Followed by a store's id, big endian; empty: of an initialisation that this node conducts, that store
/// has its part.
const HAS_PART_KEY: &[u8] = b"\xFFinit-has-part";
/// Empty: the ranges that the plan gives this node were made.
const RANGES_MADE_KEY: &[u8] = b"\xFFranges-made";
/// The other stores and their addresses.
const STORES_KEY: &[u8] = b"\xFFstores";

const INIT_BEGUN: u8 = 1;
const INIT_FINISHED: u8 = 2;
const STORES_VERSION: u8 = 1;
/// A store of empty texts: its id and four lengths.
const STORE_BYTES_MIN: usize = 24;

fn has_part_key(store: StoreId) -> Vec<u8> {
    [HAS_PART_KEY, &store.get().to_be_bytes()].concat()
}

/// How far an initialisation that this node conducts has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InitProgress {
    /// This node was never told to initialise.
    None,
    /// The plan is stored; some nodes may not have their part.
    Begun,
    /// Every node has acknowledged its part.
    Finished,
}

/// Reads and writes the records. Every write is durable when it returns.
pub(crate) struct NodeRecords {
    engine: Arc<dyn Engine>,
}

impl NodeRecords {
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine }
    }

    pub(crate) fn identity(&self) -> Result<Option<StoreIdentity>, ServerError> {
        Ok(identity(&*self.engine)?)
    }

    /// The plan that is stored, whether or not this node is a member yet.
    pub(crate) fn plan(&self) -> Result<Option<BootstrapPlan>, ServerError> {
        let bytes = self.engine.get(Cf::State, PLAN_KEY)?;
        Ok(bytes.map(BootstrapPlan::decode).transpose()?)
    }

    /// Makes this node a member: identity and plan in one write.
    pub(crate) fn join(
        &self,
        identity: &StoreIdentity,
        plan: &BootstrapPlan,
    ) -> Result<(), ServerError> {
        let mut batch = WriteBatch::new();
        batch.put(Cf::State, IDENTITY_KEY, identity.encode());
        batch.put(Cf::State, PLAN_KEY, plan.encode());
        self.write(&batch)
    }

    /// Counts a start of the process on this store.
    pub(crate) fn count_boot(&self, identity: &mut StoreIdentity) -> Result<(), ServerError> {
        identity.boot_count += 1;
        let mut batch = WriteBatch::new();
        batch.put(Cf::State, IDENTITY_KEY, identity.encode());
        self.write(&batch)
    }

    /// Stores the plan of an initialisation before anybody else hears of it.
    pub(crate) fn begin_init(&self, plan: &BootstrapPlan) -> Result<(), ServerError> {
        let mut batch = WriteBatch::new();
        batch.put(Cf::State, PLAN_KEY, plan.encode());
        batch.put(Cf::State, INIT_KEY, vec![INIT_BEGUN]);
        self.write(&batch)
    }

    /// Forgets a plan that no node has taken and none ever will.
    pub(crate) fn abandon_init(&self) -> Result<(), ServerError> {
        let mut batch = WriteBatch::new();
        batch.delete(Cf::State, PLAN_KEY);
        batch.delete(Cf::State, INIT_KEY);
        self.write(&batch)
    }

    pub(crate) fn finish_init(&self) -> Result<(), ServerError> {
        let mut batch = WriteBatch::new();
        batch.put(Cf::State, INIT_KEY, vec![INIT_FINISHED]);
        self.write(&batch)
    }

    /// Notes that a store has its part of the plan. Whoever says later that it has not has lost it, and is
    /// not that store any more.
    pub(crate) fn note_has_part(&self, store: StoreId) -> Result<(), ServerError> {
        let mut batch = WriteBatch::new();
        batch.put(Cf::State, has_part_key(store), Bytes::new());
        self.write(&batch)
    }

    pub(crate) fn has_part(&self, store: StoreId) -> Result<bool, ServerError> {
        Ok(self.engine.get(Cf::State, &has_part_key(store))?.is_some())
    }

    pub(crate) fn init_progress(&self) -> Result<InitProgress, ServerError> {
        let value = self.engine.get(Cf::State, INIT_KEY)?;
        match value.as_deref() {
            None => Ok(InitProgress::None),
            Some([INIT_BEGUN]) => Ok(InitProgress::Begun),
            Some([INIT_FINISHED]) => Ok(InitProgress::Finished),
            Some(_) => {
                Err(CodecError::Malformed { what: "init progress", why: "unknown value" }.into())
            }
        }
    }

    pub(crate) fn ranges_made(&self) -> Result<bool, ServerError> {
        Ok(self.engine.get(Cf::State, RANGES_MADE_KEY)?.is_some())
    }

    pub(crate) fn set_ranges_made(&self) -> Result<(), ServerError> {
        let mut batch = WriteBatch::new();
        batch.put(Cf::State, RANGES_MADE_KEY, Bytes::new());
        self.write(&batch)
    }

    /// The stores as last heard of.
    pub(crate) fn stores(&self) -> Result<Vec<StoreInfo>, ServerError> {
        let bytes = self.engine.get(Cf::State, STORES_KEY)?;
        Ok(bytes.map(decode_stores).transpose()?.unwrap_or_default())
    }

    /// Remembers the stores. Not synced: an older list is only a worse guess.
    pub(crate) fn save_stores(&self, stores: &[StoreInfo]) -> Result<(), EngineError> {
        let mut batch = WriteBatch::new();
        batch.put(Cf::State, STORES_KEY, encode_stores(stores));
        self.engine.write(&batch)
    }

    fn write(&self, batch: &WriteBatch) -> Result<(), ServerError> {
        self.engine.write(batch)?;
        Ok(self.engine.sync()?)
    }
}

/// `version u8, count u32`, then of each store `id u64` and, with their lengths, address, HTTP
/// address, zone and name of the state.
fn encode_stores(stores: &[StoreInfo]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(STORES_VERSION);
    out.put_u32(stores.len() as u32);
    for store in stores {
        out.put_u64(store.id.get());
        for text in [&*store.address, &*store.http, &*store.zone, store.state.name()] {
            put_bytes(&mut out, text.as_bytes());
        }
    }
    out.freeze()
}

fn decode_stores(bytes: Bytes) -> Result<Vec<StoreInfo>, CodecError> {
    let mut reader = Reader::new("list of stores", bytes);
    reader.version(STORES_VERSION)?;
    let count = reader.count(STORE_BYTES_MIN)?;
    let mut stores = Vec::with_capacity(count);
    for _ in 0..count {
        let id = StoreId(reader.u64()?);
        let mut text = || {
            let bytes = reader.bytes()?;
            String::from_utf8(bytes.to_vec()).map_err(|_| reader.malformed("text is not UTF-8"))
        };
        let (address, http, zone, state) = (text()?, text()?, text()?, text()?);
        let state = StoreInfo::state_named(&state);
        stores.push(StoreInfo { id, address, http, zone, state });
    }
    reader.finish()?;
    Ok(stores)
}

#[cfg(test)]
mod tests {
    use cribwork_engine::MemoryEngine;
    use cribwork_placement::{PlannedStore, StoreState};
    use cribwork_types::ClusterId;

    use super::*;

    fn plan() -> BootstrapPlan {
        let store =
            PlannedStore { id: StoreId(1), address: "a:1".to_owned(), http: "a:2".to_owned() };
        BootstrapPlan::make(ClusterId(7), vec![store], 2).unwrap()
    }

    #[test]
    fn what_was_written_survives_a_crash() {
        let engine = MemoryEngine::new();
        let records = NodeRecords::new(engine.clone());
        assert_eq!(records.identity().unwrap(), None);
        assert_eq!(records.init_progress().unwrap(), InitProgress::None);
        records.begin_init(&plan()).unwrap();
        let mut identity =
            StoreIdentity { cluster: ClusterId(7), store: StoreId(1), boot_count: 1 };
        let crashed = NodeRecords::new(engine.crash());
        assert_eq!(crashed.plan().unwrap(), Some(plan()));
        assert_eq!(crashed.init_progress().unwrap(), InitProgress::Begun);
        assert_eq!(crashed.identity().unwrap(), None, "a plan makes no member");

        records.join(&identity, &plan()).unwrap();
        records.count_boot(&mut identity).unwrap();
        records.set_ranges_made().unwrap();
        records.finish_init().unwrap();
        let crashed = NodeRecords::new(engine.crash());
        assert_eq!(crashed.identity().unwrap().map(|identity| identity.boot_count), Some(2));
        assert_eq!(crashed.init_progress().unwrap(), InitProgress::Finished);
        assert!(crashed.ranges_made().unwrap());
        assert!(!crashed.has_part(StoreId(2)).unwrap());
        crashed.note_has_part(StoreId(2)).unwrap();
        assert!(crashed.has_part(StoreId(2)).unwrap() && !crashed.has_part(StoreId(3)).unwrap());
    }

    #[test]
    fn an_abandoned_plan_leaves_a_fresh_node() {
        let records = NodeRecords::new(MemoryEngine::new());
        records.begin_init(&plan()).unwrap();
        records.abandon_init().unwrap();
        assert_eq!(records.plan().unwrap(), None);
        assert_eq!(records.init_progress().unwrap(), InitProgress::None);
    }

    #[test]
    fn stores_round_trip_and_truncations_are_errors() {
        let records = NodeRecords::new(MemoryEngine::new());
        let store = StoreInfo {
            id: StoreId(3),
            address: "c:1".to_owned(),
            http: "c:2".to_owned(),
            zone: "z".to_owned(),
            state: StoreState::Draining,
        };
        assert_eq!(records.stores().unwrap(), []);
        records.save_stores(std::slice::from_ref(&store)).unwrap();
        assert_eq!(records.stores().unwrap(), std::slice::from_ref(&store));
        let bytes = encode_stores(&[store]);
        for length in 0..bytes.len() {
            assert!(decode_stores(bytes.slice(..length)).is_err(), "{length}");
        }
    }
}
