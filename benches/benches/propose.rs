//! Replicated writes: three nodes in one process with a RocksDB and a thread each, connected over TCP
//! on loopback; 64 proposers at the leaders, each with one command under way.

#![forbid(unsafe_code)]

use cribwork_benches::{Cluster, Leader, spread, system};
use criterion::{BenchmarkId, Throughput};

const GROUPS: u32 = 64;
const PROPOSERS: usize = 64;
const VALUE: &[u8] = &[b'v'; 128];

fn main() {
    system("propose", |group| {
        group.throughput(Throughput::Elements(1));
        // The same cluster for both: groups without work cost next to nothing.
        let cluster = Cluster::start(GROUPS);
        for busy in [1, GROUPS as usize] {
            let leaders: Vec<Leader> =
                cluster.leaders()[..busy].iter().cycle().take(PROPOSERS).cloned().collect();
            let workers: Vec<_> = leaders.iter().map(|leader| leader.handle.clone()).collect();
            group.bench_function(BenchmarkId::new("busy_groups", busy), |bencher| {
                bencher.iter_custom(|commands| {
                    let leaders = leaders.clone();
                    spread(&workers, commands, move |worker, number| {
                        let leader = leaders[worker].clone();
                        async move { leader.put(number, VALUE).await }
                    })
                });
            });
        }
    });
}
