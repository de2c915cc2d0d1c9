//! Evaluation of transactional commands over a store in memory: the pure part of a transaction,
//! without disk, log or network.

#![forbid(unsafe_code)]

use std::hint::black_box;

use bytes::Bytes;
use cribwork_mvcc::memory_view::MemoryView;
use cribwork_mvcc::{
    Assertion, AssertionLevel, PrewriteMutation, PrewriteOp, PrewriteOutcome, PrewriteParams,
    ReadOptions, Reader, commit, prewrite,
};
use cribwork_types::{Timestamp, WriteBatch};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Throughput};

const KEYS: usize = 10_000;
/// Coprime to `KEYS`: steps of it visit every key, far from the one before.
const STRIDE: usize = 7919;
const LOADED: (Timestamp, Timestamp) = (Timestamp(10), Timestamp(20));
const MEASURED: (Timestamp, Timestamp) = (Timestamp(30), Timestamp(40));

fn main() {
    let keys: Vec<Bytes> = (0..KEYS).map(name).collect();
    let mut view = MemoryView::new();
    view.apply(&prewritten(&view, &params(&keys, LOADED.0)));
    let committed = commit(&view, &keys, LOADED.0, LOADED.1).expect("all keys are locked");
    view.apply(&committed.batch);
    let mut locked = view.clone();
    locked.apply(&prewritten(&view, &params(&keys, MEASURED.0)));
    cribwork_benches::pure("mvcc", |group| {
        get(group, &view, &keys);
        for count in [1, 16] {
            group.throughput(Throughput::Elements(count as u64));
            let transactions = transactions(&keys, count);
            let mut next = transactions.iter().cycle();
            group.bench_function(BenchmarkId::new("prewrite", count), |bencher| {
                bencher.iter(|| prewritten(&view, black_box(next.next().expect("a cycle"))));
            });
            let writes: Vec<Vec<Bytes>> = transactions
                .iter()
                .map(|params| params.mutations.iter().map(|it| it.key.clone()).collect())
                .collect();
            let mut next = writes.iter().cycle();
            group.bench_function(BenchmarkId::new("commit", count), |bencher| {
                bencher.iter(|| {
                    let keys = black_box(next.next().expect("a cycle"));
                    commit(&locked, keys, MEASURED.0, MEASURED.1).expect("all keys are locked")
                });
            });
        }
    });
}

fn get(group: &mut BenchmarkGroup<'_, WallTime>, view: &MemoryView, keys: &[Bytes]) {
    group.throughput(Throughput::Elements(1));
    let (reader, options) = (Reader::new(view), ReadOptions::default());
    let mut at = 0;
    group.bench_function("get", |bencher| {
        bencher.iter(|| {
            at = (at + STRIDE) % KEYS;
            let value = reader.get(black_box(&keys[at]), MEASURED.0, &options);
            value.expect("nothing is locked").expect("every key has a value")
        });
    });
}

fn name(number: usize) -> Bytes {
    Bytes::from(format!("account/{number:08}"))
}

/// Transactions of `count` keys each that lie far apart.
fn transactions(keys: &[Bytes], count: usize) -> Vec<PrewriteParams> {
    let order: Vec<Bytes> = (0..KEYS).map(|step| keys[step * STRIDE % KEYS].clone()).collect();
    order.chunks_exact(count).map(|keys| params(keys, MEASURED.0)).collect()
}

fn params(keys: &[Bytes], start_ts: Timestamp) -> PrewriteParams {
    let put = |key: &Bytes| PrewriteMutation {
        op: PrewriteOp::Put,
        key: key.clone(),
        value: Bytes::from_static(&[b'v'; 128]),
        assertion: Assertion::None,
    };
    PrewriteParams {
        mutations: keys.iter().map(put).collect(),
        primary: keys[0].clone(),
        start_ts,
        lock_ttl_ms: 3000,
        txn_size: keys.len() as u64,
        min_commit_ts: start_ts.next(),
        assertion_level: AssertionLevel::Off,
        skip_constraint_check: false,
    }
}

fn prewritten(view: &MemoryView, params: &PrewriteParams) -> WriteBatch {
    match prewrite(view, params).expect("memory does not fail") {
        PrewriteOutcome::Done { batch, .. } => batch,
        PrewriteOutcome::Refused(errors) => panic!("refused: {errors:?}"),
    }
}
