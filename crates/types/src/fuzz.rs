//! Hostile bytes for keys, descriptors and batches.

use bytes::{Bytes, BytesMut};
use cribwork_fuzz::{Shape, target};

use crate::codec::Reader;
use crate::{
    Cf, KeyRange, RangeDescriptor, RangeEpoch, RangeId, ReplicaDescriptor, ReplicaId, ReplicaRole,
    StoreId, Timestamp, WriteBatch, key,
};

#[test]
fn memcomparable_keys() {
    let keys = [&b""[..], b"abc", b"12345678", &[0; 9], &[0xFF; 17]];
    let versioned = keys.map(|it| key::encode_versioned(it, Timestamp(7)));
    target("memcomparable_keys").seeds(keys.map(key::encode)).seeds(versioned).run(|bytes| {
        let decoded = key::decode(bytes);
        if let Ok(plain) = &decoded {
            assert_eq!(key::encode(plain), bytes, "a key has one encoding");
        }
        assert_eq!(key::is_bound(bytes), bytes.is_empty() || decoded.is_ok());
        if let Ok((plain, used)) = key::decode_prefix(bytes) {
            assert_eq!(key::encode(&plain), bytes[..used]);
        }
        if let Ok((encoded, ts)) = key::split_versioned(bytes)
            && let Ok(plain) = key::decode(encoded)
        {
            assert_eq!(key::encode_versioned(&plain, ts), bytes);
        }
        Shape::decoded(&decoded, Vec::len)
    });
}

#[test]
fn range_descriptors() {
    let replica = |id, store, role| ReplicaDescriptor { id, store, role };
    let descriptor = RangeDescriptor {
        id: RangeId(7),
        span: KeyRange::new(key::encode(b"a"), key::encode(b"m")),
        epoch: RangeEpoch { conf_ver: 3, version: 9 },
        replicas: vec![
            replica(ReplicaId(1), StoreId(1), ReplicaRole::Voter),
            replica(ReplicaId(5), StoreId(2), ReplicaRole::Learner),
            replica(ReplicaId(6), StoreId(3), ReplicaRole::Incoming),
            replica(ReplicaId(7), StoreId(4), ReplicaRole::Outgoing),
        ],
    };
    let seeds = [RangeDescriptor::default().encode(), descriptor.encode()];
    target("range_descriptors").seeds(seeds).run(|bytes| {
        let decoded = RangeDescriptor::decode(Bytes::copy_from_slice(bytes));
        if let Ok(descriptor) = &decoded {
            assert_eq!(descriptor.encode(), bytes, "a descriptor has one encoding");
        }
        Shape::decoded(&decoded, |descriptor| descriptor.replicas.len())
    });
}

#[test]
fn write_batches() {
    let mut batch = WriteBatch::new();
    for cf in Cf::ALL {
        batch.put(cf, "key", "value");
        batch.delete(cf, "gone");
        batch.delete_range(cf, KeyRange::new("a", ""));
    }
    let mut seed = BytesMut::new();
    batch.encode_into(&mut seed);
    target("write_batches").seed(&seed).seed([0; 4]).run(|bytes| {
        let mut reader = Reader::new("batch", Bytes::copy_from_slice(bytes));
        let decoded = WriteBatch::decode(&mut reader);
        if let Ok(batch) = &decoded {
            let mut encoded = BytesMut::new();
            batch.encode_into(&mut encoded);
            assert_eq!(encoded, bytes[..bytes.len() - reader.remaining()], "one encoding");
        }
        Shape::decoded(&decoded, |batch| batch.mutations.len())
    });
}
