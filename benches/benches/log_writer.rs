//! Group commit: many Raft groups append to one RocksDB, each with one durable append under way.

#![forbid(unsafe_code)]

use cribwork_benches::{Host, Store, spread, system};
use cribwork_types::{Cf, WriteBatch};
use criterion::{BenchmarkId, Throughput};

/// An entry with one small command.
const ENTRY: &[u8] = &[b'e'; 200];

fn main() {
    system("log_writer", |group| {
        group.throughput(Throughput::Elements(1));
        for groups in [1_usize, 16, 256] {
            let host = Host::start();
            let store = Store::open(host.runtime());
            let workers = vec![host.handle().clone(); groups];
            group.bench_function(BenchmarkId::new("durable_append", groups), |bencher| {
                bencher.iter_custom(|appends| {
                    let writer = store.writer.clone();
                    spread(&workers, appends, move |group, number| {
                        let (writer, batch) = (writer.clone(), entry(group as u64, number));
                        async move { writer.write_durable(batch).await.expect("the disk works") }
                    })
                });
            });
        }
    });
}

/// One entry as a group writes it: its log is a prefix of its own in the family of all logs.
fn entry(group: u64, index: u64) -> WriteBatch {
    let key = [&group.to_be_bytes()[..], &[1], &index.to_be_bytes()].concat();
    let mut batch = WriteBatch::new();
    batch.put(Cf::Raft, key, ENTRY);
    batch
}
