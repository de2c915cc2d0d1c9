//! Hostile bytes for the list of stores that a node keeps.

use cribwork_fuzz::{Shape, target};

use super::*;

#[test]
fn store_lists() {
    let store = |id| StoreInfo {
        id: StoreId(id),
        address: "c:1".to_owned(),
        http: "c:2".to_owned(),
        zone: "zone".to_owned(),
        ..StoreInfo::default()
    };
    let seeds = [encode_stores(&[]), encode_stores(&[store(1), store(2)])];
    target("store_lists").seeds(seeds).words(["up", "draining", "down"]).run(|bytes| {
        let decoded = decode_stores(Bytes::copy_from_slice(bytes));
        if let Ok(stores) = &decoded {
            // A state that this build does not know becomes one that it knows, so bytes may differ.
            assert_eq!(decode_stores(encode_stores(stores)).as_ref(), Ok(stores));
        }
        Shape::decoded(&decoded, Vec::len)
    });
}
