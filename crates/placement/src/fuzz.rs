//! Hostile bytes for what placement stores and sends.

use bytes::Bytes;
use cribwork_fuzz::{Shape, target};
use cribwork_types::{ClusterId, StoreId};

use crate::{BootstrapPlan, IdAllocator, PlannedStore};

#[test]
fn bootstrap_plans() {
    let store = |id: u64| PlannedStore {
        id: StoreId(id),
        address: format!("10.0.0.{id}:20160"),
        http: format!("10.0.0.{id}:20180"),
    };
    let plan = |stores: u64, ranges| {
        let stores = (1..=stores).map(store).collect();
        BootstrapPlan::make(ClusterId(7), stores, ranges).unwrap().encode()
    };
    target("bootstrap_plans").seeds([plan(1, 1), plan(3, 2)]).run(|bytes| {
        let decoded = BootstrapPlan::decode(Bytes::copy_from_slice(bytes));
        if let Ok(plan) = &decoded {
            assert_eq!(plan.encode(), bytes, "a plan has one encoding");
        }
        Shape::decoded(&decoded, |plan| plan.ranges.len() + plan.stores.len())
    });
}

#[test]
fn id_counters() {
    target("id_counters").seed(IdAllocator::new().encode()).run(|bytes| {
        let decoded = IdAllocator::decode(Bytes::copy_from_slice(bytes));
        if let Ok(ids) = &decoded {
            assert_eq!(ids.encode(), bytes, "counters have one encoding");
        }
        Shape::decoded(&decoded, |_| 0)
    });
}
