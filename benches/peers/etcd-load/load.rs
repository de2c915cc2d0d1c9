//! The closed loop: workers, their histograms, and the report.

use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::etcd::{self, Client};
use crate::{Gets, Options};

/// Pause after a failed request, so that a member that refuses at once is not flooded.
const ERROR_PAUSE: Duration = Duration::from_millis(10);
/// Latencies are kept in microseconds up to this, with three significant digits.
const LATENCY_US_MAX: u64 = 60_000_000;

/// What the run did. Latencies are those of successful operations.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    ops: u64,
    ops_per_s: f64,
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    errors: u64,
    /// Gets that found a value.
    found: u64,
    duration_s: f64,
}

/// Runs the load and waits for its end. Requests in flight at the end count if they succeed; the rate
/// is over the time until the last one is answered.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Report> {
    let leader = etcd::find_leader(&options.endpoints).await?;
    eprintln!("etcd-load: leader {leader}");
    let to_leader = connect(std::slice::from_ref(&leader), options.connections).await?;
    let for_gets = match options.gets {
        Gets::Leader => to_leader.clone(),
        Gets::All => connect(&options.endpoints, options.connections).await?,
    };
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for index in 0..options.workers {
        let worker = Worker {
            put: to_leader[index as usize % to_leader.len()].clone(),
            get: for_gets[index as usize % for_gets.len()].clone(),
            // Unlike every other run: a repeated run must not meet the keys it has just written.
            rng: rand::make_rng(),
            until: start + options.duration,
            tally: Tally::new()?,
        };
        let plan = Plan::new(options);
        workers.spawn(worker.run(plan));
    }
    let mut total = Tally::new()?;
    while let Some(tally) = workers.join_next().await {
        total.merge(&tally.context("a worker panicked")?)?;
    }
    Ok(total.report(start.elapsed()))
}

/// `each` connections to every address, interleaved so that neighbours go to different members.
async fn connect(addresses: &[String], each: u32) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::new();
    for _ in 0..each {
        for address in addresses {
            clients.push(Client::connect(address).await?);
        }
    }
    Ok(clients)
}

/// What every worker needs to know of the options.
struct Plan {
    read_percent: u8,
    key_size: usize,
    value_size: usize,
    keys: u64,
}

impl Plan {
    fn new(options: &Options) -> Plan {
        Plan {
            read_percent: options.read_percent,
            key_size: usize::from(options.key_size),
            value_size: options.value_size as usize,
            keys: options.keys,
        }
    }

    /// Exactly `key_size` bytes: the lowest digits if the number has more.
    fn key(&self, number: u64) -> Bytes {
        let digits = format!("{number:0>width$}", width = self.key_size);
        Bytes::copy_from_slice(&digits.as_bytes()[digits.len() - self.key_size..])
    }
}

struct Worker {
    put: Client,
    get: Client,
    rng: SmallRng,
    until: Instant,
    tally: Tally,
}

impl Worker {
    async fn run(mut self, plan: Plan) -> Tally {
        let mut value = vec![0; plan.value_size];
        loop {
            let key = plan.key(self.rng.random_range(0..plan.keys));
            let is_get = self.rng.random_range(0..100) < plan.read_percent;
            if !is_get {
                self.rng.fill_bytes(&mut value);
            }
            let begin = Instant::now();
            if begin >= self.until {
                return self.tally;
            }
            let outcome = if is_get {
                self.get.get(key).await
            } else {
                self.put.put(key, Bytes::copy_from_slice(&value)).await.map(|()| false)
            };
            match outcome {
                Ok(found) => self.tally.record(begin.elapsed(), found),
                Err(_) => {
                    self.tally.errors += 1;
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
            }
        }
    }
}

/// Counts of one worker, or of all.
struct Tally {
    latency_us: Histogram<u64>,
    errors: u64,
    found: u64,
}

impl Tally {
    fn new() -> anyhow::Result<Tally> {
        let latency_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?;
        Ok(Tally { latency_us, errors: 0, found: 0 })
    }

    fn record(&mut self, latency: Duration, found: bool) {
        self.latency_us.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        self.found += u64::from(found);
    }

    fn merge(&mut self, other: &Tally) -> anyhow::Result<()> {
        self.latency_us.add(&other.latency_us)?;
        self.errors += other.errors;
        self.found += other.found;
        Ok(())
    }

    fn report(&self, elapsed: Duration) -> Report {
        let ms = |quantile: f64| self.latency_us.value_at_quantile(quantile) as f64 / 1e3;
        let ops = self.latency_us.len();
        Report {
            ops,
            ops_per_s: ops as f64 / elapsed.as_secs_f64(),
            p50_ms: ms(0.50),
            p95_ms: ms(0.95),
            p99_ms: ms(0.99),
            errors: self.errors,
            found: self.found,
            duration_s: elapsed.as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_size_asked_for() {
        let plan = |key_size| Plan { read_percent: 0, key_size, value_size: 0, keys: 1 };
        assert_eq!(plan(16).key(42), "0000000000000042");
        assert_eq!(plan(2).key(1234), "34");
    }

    #[test]
    fn tallies_add_up() {
        let mut total = Tally::new().expect("valid bounds");
        for latency_ms in [1, 2, 3, 100] {
            let mut one = Tally::new().expect("valid bounds");
            one.record(Duration::from_millis(latency_ms), latency_ms > 2);
            one.errors = 1;
            total.merge(&one).expect("equal bounds");
        }
        let report = total.report(Duration::from_secs(2));
        assert_eq!((report.ops, report.errors, report.found), (4, 4, 2));
        assert_eq!(report.ops_per_s, 2.0);
        assert!((1.9..2.1).contains(&report.p50_ms) && report.p99_ms > 99.0, "{report:?}");
    }
}
