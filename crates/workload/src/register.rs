//! Register: single keys are read, written, deleted and swapped by the raw API, and everything is
//! written down as a [`History`].
//!
//! Keys: `"wreg" ++ spread u32 ++ run u64 ++ number u32`. The run is a timestamp of the cluster, so that
//! every key is absent at first. Every value that is written is unique, so that a read says which write
//! it saw. Puts and deletes ask to wait for swaps ([`RawClient::atomic`](cribwork_client::RawClient)):
//! without that, a swap would not be atomic against them.
//!
//! After the load every key is read once more, and the checkers `linearizable` and `acknowledged` of
//! [`cribwork_checker`] judge the whole history.

mod clerk;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cribwork_checker::{History, Op, Operation, Outcome, acknowledged, linearizable};
use cribwork_client::Client;
use cribwork_types::{Runtime, Timestamp};
use futures::{StreamExt, stream};

use self::clerk::Clerk;
use crate::drive::drive;
use crate::judgement::{HistoryReport, checker_options, nanos};
use crate::keyspace::{KeySpace, spread_evenly};
use crate::options::{OPERATION_LIMIT, within};
use crate::setup::{prepare, retry};
use crate::{CommonOptions, WorkloadError};

const NAME: &str = "register";
const TAG: [u8; 4] = *b"wreg";
const KEYS_MAX: u32 = 100_000;
/// How long the last reads are tried: the cluster may only just have healed.
const FINAL_LIMIT: Duration = Duration::from_secs(60);
const FINAL_CONCURRENCY: usize = 8;

/// What register can be told.
#[derive(Clone, Debug)]
pub struct RegisterOptions {
    /// What every workload can be told.
    pub common: CommonOptions,
    /// Number of keys. Few keys make contention, and with it hard histories.
    pub keys: u32,
}

impl Default for RegisterOptions {
    /// 32 keys.
    fn default() -> Self {
        Self { common: CommonOptions::default(), keys: 32 }
    }
}

/// The keys of one run.
#[derive(Clone, Copy, Debug)]
struct Registers {
    space: KeySpace,
    run: Timestamp,
    keys: u32,
}

impl Registers {
    fn key(&self, number: u32) -> Bytes {
        let mut key = self.space.prefix(spread_evenly(number, self.keys), 12);
        key.extend_from_slice(&self.run.0.to_be_bytes());
        key.extend_from_slice(&number.to_be_bytes());
        key.into()
    }

    fn slot(&self, number: u32) -> usize {
        self.space.slot(spread_evenly(number, self.keys))
    }
}

/// Loads the keys for the time asked for, reads them once more, and judges what happened.
///
/// # Errors
/// [`WorkloadError`] if the load could not be run at all. What the checkers found is in the report.
pub async fn run_register(
    client: &Client,
    runtime: &Arc<dyn Runtime>,
    options: &RegisterOptions,
) -> Result<(HistoryReport, History), WorkloadError> {
    options.common.check()?;
    within("keys", options.keys, 1, KEYS_MAX)?;
    let space = KeySpace::new(TAG, options.common.ranges);
    prepare(client, runtime, &space).await?;
    let deadline = runtime.now() + OPERATION_LIMIT;
    let run = retry(runtime, deadline, || client.timestamp())
        .await
        .map_err(|source| WorkloadError::Setup { stage: "timestamp", source })?;
    let registers = Registers { space, run, keys: options.keys };
    let seed = options.common.seed.unwrap_or_else(|| runtime.random_u64());
    tracing::info!(seed, %run, "register begins");
    let clock_zero_unix_ms = runtime.wall_ms() as i64 - runtime.now().as_millis() as i64;

    let clerks = (0..options.common.workers)
        .map(|worker| Clerk::new(client, runtime, registers, worker, seed))
        .collect();
    let (clerks, summary) = drive(NAME, runtime, &options.common, space.slots(), clerks).await?;
    let mut operations: Vec<Operation> = clerks.into_iter().flat_map(Clerk::into_record).collect();
    tracing::info!(operations = operations.len(), "the load is over; reading every key");
    operations.extend(final_reads(client, runtime, &registers, options.common.workers).await);
    operations.sort_by_key(|operation| (operation.invoke, operation.process));
    let history = History::try_from(operations)
        .map_err(|error| WorkloadError::History { why: error.to_string() })?;

    let checks = checker_options(&history);
    let verdicts = vec![linearizable(&history, &checks), acknowledged(&history, &checks)];
    let report = HistoryReport::new(summary, clock_zero_unix_ms, &history, verdicts);
    Ok((report, history))
}

/// Reads every key. Each read is a process of its own, numbered from `first_process`.
async fn final_reads(
    client: &Client,
    runtime: &Arc<dyn Runtime>,
    registers: &Registers,
    first_process: u32,
) -> Vec<Operation> {
    let deadline = runtime.now() + FINAL_LIMIT;
    let reads = (0..registers.keys).map(|number| async move {
        let (raw, key) = (client.raw(), registers.key(number));
        let invoke = nanos(runtime.now());
        let read = retry(runtime, deadline, || raw.get(key.clone())).await;
        let outcome = match &read {
            Ok(_) => Outcome::Ok,
            Err(error) => {
                tracing::warn!(%error, number, "the last read of a key failed");
                Outcome::Failed
            }
        };
        let value = read.ok().flatten().map(Into::into);
        Operation {
            process: u64::from(first_process) + u64::from(number),
            invoke,
            complete: Some(nanos(runtime.now())),
            outcome,
            is_final: true,
            op: Op::Get { key: key.into(), value },
        }
    });
    stream::iter(reads).buffer_unordered(FINAL_CONCURRENCY).collect().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_run_lie_in_their_slots_and_in_no_other_run() {
        let registers = Registers { space: KeySpace::new(TAG, 4), run: Timestamp(9), keys: 32 };
        let bounds = registers.space.split_keys();
        let next = Registers { run: Timestamp(10), ..registers };
        for number in 0..32 {
            let (key, slot) = (registers.key(number), registers.slot(number));
            assert!(bounds[slot] <= key && bounds.get(slot + 1).is_none_or(|bound| *bound > key));
            assert_ne!(key, next.key(number));
        }
        assert_eq!(registers.slot(31), 3);
    }
}
