//! From a key to its range, on a node and in a client.

#![forbid(unsafe_code)]

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use cribwork_router::{ClientCache, RangeMap, evenly_split_bounds};
use cribwork_types::{
    KeyRange, RangeDescriptor, RangeEpoch, RangeId, ReplicaDescriptor, ReplicaId, ReplicaRole,
    StoreId, key,
};
use criterion::{BenchmarkId, Throughput};

/// Keys asked for in turn, spread over the whole key space.
const KEYS: u32 = 4096;

fn main() {
    cribwork_benches::pure("router", |group| {
        group.throughput(Throughput::Elements(1));
        let keys = keys();
        for ranges in [10, 10_000] {
            let descriptors = descriptors(ranges);
            let mut map = RangeMap::new();
            let mut cache = ClientCache::default();
            for descriptor in descriptors {
                map.insert(descriptor.clone());
                cache.insert(descriptor.clone(), descriptor.replicas.first().copied());
            }
            let mut next = keys.iter().cycle();
            group.bench_function(BenchmarkId::new("lookup", ranges), |bencher| {
                bencher.iter(|| map.get(black_box(next.next()?)));
            });
            group.bench_function(BenchmarkId::new("client_route", ranges), |bencher| {
                bencher.iter(|| cache.route(black_box(next.next()?)));
            });
            assert!(keys.iter().all(|key| cache.route(key).is_some_and(|it| it.leader.is_some())));
        }
    });
}

/// Encoded keys in an order that jumps about.
fn keys() -> Vec<Vec<u8>> {
    let name = |number: u32| {
        // Odd multiples of an odd number visit all of 2^32 evenly.
        let spread = number.wrapping_mul(0x9E37_79B1);
        [&spread.to_be_bytes()[..], b"/account/bal"].concat()
    };
    (0..KEYS).map(|number| key::encode(&name(number))).collect()
}

/// Ranges that tile the key space, on three stores each.
fn descriptors(ranges: u32) -> Vec<Arc<RangeDescriptor>> {
    let mut ends = evenly_split_bounds(ranges).expect("a possible number of ranges");
    *ends.last_mut().expect("one bound a range") = Bytes::new();
    let mut start = Bytes::new();
    let descriptor = |(index, end): (usize, Bytes)| {
        let id = RangeId(index as u64 + 1);
        let replica = |store: u64| ReplicaDescriptor {
            id: ReplicaId(id.get() * 3 + store),
            store: StoreId(store),
            role: ReplicaRole::Voter,
        };
        let span = KeyRange { start: std::mem::replace(&mut start, end.clone()), end };
        let replicas = (1..=3).map(replica).collect();
        Arc::new(RangeDescriptor { id, span, epoch: RangeEpoch::INITIAL, replicas })
    };
    ends.into_iter().enumerate().map(descriptor).collect()
}
