//! Hostile bytes for what a store keeps of itself.

use bytes::Bytes;
use cribwork_fuzz::{Shape, target};
use cribwork_types::{ClusterId, StoreId};

use crate::StoreIdentity;

#[test]
fn store_identities() {
    let identity = StoreIdentity { cluster: ClusterId(9), store: StoreId(3), boot_count: 4 };
    let seed = identity.encode();
    target("store_identities").seed(seed).repair(sum).run(|bytes| {
        let decoded = StoreIdentity::decode(Bytes::copy_from_slice(bytes));
        if let Ok(identity) = &decoded {
            assert_eq!(identity.encode(), bytes, "an identity has one encoding");
        }
        Shape::decoded(&decoded, |_| 0)
    });
}

/// The checksum of everything before it.
fn sum(bytes: &mut [u8]) {
    if let Some(at) = bytes.len().checked_sub(4) {
        let sum = crc32c::crc32c(&bytes[..at]);
        bytes[at..].copy_from_slice(&sum.to_be_bytes());
    }
}
