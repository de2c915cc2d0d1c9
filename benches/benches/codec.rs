//! Memcomparable keys: what every request pays for each of its keys, several times.

#![forbid(unsafe_code)]

use std::hint::black_box;

use cribwork_types::{Timestamp, key};
use criterion::{BenchmarkId, Throughput};

const TS: Timestamp = Timestamp::new(1_700_000_000_000, 7);

fn main() {
    cribwork_benches::pure("codec", |group| {
        for length in [16_usize, 256] {
            let plain: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let encoded = key::encode(&plain);
            let versioned = key::encode_versioned(&plain, TS);
            group.throughput(Throughput::Bytes(length as u64));
            group.bench_function(BenchmarkId::new("encode", length), |bencher| {
                bencher.iter(|| key::encode(black_box(&plain)));
            });
            group.bench_function(BenchmarkId::new("decode", length), |bencher| {
                bencher.iter(|| key::decode(black_box(&encoded)).expect("it was encoded"));
            });
            group.bench_function(BenchmarkId::new("encode_versioned", length), |bencher| {
                bencher.iter(|| key::encode_versioned(black_box(&plain), black_box(TS)));
            });
            group.bench_function(BenchmarkId::new("decode_versioned", length), |bencher| {
                bencher.iter(|| {
                    let (encoded, ts) =
                        key::split_versioned(black_box(&versioned)).expect("it was encoded");
                    (key::decode(encoded).expect("it was encoded"), ts)
                });
            });
        }
    });
}
