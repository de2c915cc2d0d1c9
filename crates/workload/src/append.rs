//! Append: transactions read lists and append to them, and everything is written down as a [`History`].
//!
//! Keys: `"wapp" ++ spread u32 ++ run u64 ++ list u32 ++ generation u32`. A list is one value. The run is a
//! timestamp of the cluster, so that every list is empty at first; every element is unique. Since a read
//! gives a whole list, lists must not grow for ever: after some transactions all workers go on to the next
//! generation of lists.
//!
//! After the load every list is read once more, and the checkers `append` (snapshot isolation in real
//! time) and `acknowledged` of [`cribwork_checker`] judge the whole history.

mod scribe;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cribwork_checker::{
    History, Isolation, Op, Operation, Outcome, Step, Txn, acknowledged, append,
};
use cribwork_client::{Client, ClientError};
use cribwork_types::{Runtime, Timestamp};
use futures::{StreamExt, stream};

use self::scribe::Scribe;
use crate::drive::drive;
use crate::judgement::{HistoryReport, checker_options, nanos};
use crate::keyspace::{KeySpace, spread_evenly};
use crate::options::{OPERATION_LIMIT, within};
use crate::setup::{prepare, retry};
use crate::{CommonOptions, WorkloadError};

const NAME: &str = "append";
const TAG: [u8; 4] = *b"wapp";
const KEYS_MAX: u32 = 100_000;
/// Transactions, for each list, after which the next generation begins.
const GENERATION_LENGTH: u64 = 50;
/// How long the last reads are tried: the cluster may only just have healed.
const FINAL_LIMIT: Duration = Duration::from_secs(60);
const FINAL_CONCURRENCY: usize = 8;

/// What append can be told.
#[derive(Clone, Debug)]
pub struct AppendOptions {
    /// What every workload can be told.
    pub common: CommonOptions,
    /// Number of lists in use at a time. Few make conflicts.
    pub keys: u32,
}

impl Default for AppendOptions {
    /// 32 lists.
    fn default() -> Self {
        Self { common: CommonOptions::default(), keys: 32 }
    }
}

/// The lists of one run.
#[derive(Debug)]
struct Lists {
    space: KeySpace,
    run: Timestamp,
    keys: u32,
    /// Attempts of all workers so far.
    begun: AtomicU64,
}

impl Lists {
    fn key(&self, list: u32, generation: u32) -> Bytes {
        let mut key = self.space.prefix(spread_evenly(list, self.keys), 16);
        key.extend_from_slice(&self.run.0.to_be_bytes());
        key.extend_from_slice(&list.to_be_bytes());
        key.extend_from_slice(&generation.to_be_bytes());
        key.into()
    }

    fn slot(&self, list: u32) -> usize {
        self.space.slot(spread_evenly(list, self.keys))
    }

    /// The generation of an attempt that begins now.
    fn begin(&self) -> u32 {
        self.generation(self.begun.fetch_add(1, Ordering::Relaxed))
    }

    fn generation(&self, attempts: u64) -> u32 {
        (attempts / (GENERATION_LENGTH * u64::from(self.keys))) as u32
    }

    /// Every list that may have been written.
    fn all(&self) -> Vec<Bytes> {
        let generations = 0..=self.generation(self.begun.load(Ordering::Relaxed));
        let keys = generations
            .flat_map(|generation| (0..self.keys).map(move |list| self.key(list, generation)));
        keys.collect()
    }
}

/// Loads the lists for the time asked for, reads them once more, and judges what happened.
///
/// # Errors
/// [`WorkloadError`] if the load could not be run at all. What the checkers found is in the report.
pub async fn run_append(
    client: &Client,
    runtime: &Arc<dyn Runtime>,
    options: &AppendOptions,
) -> Result<(HistoryReport, History), WorkloadError> {
    options.common.check()?;
    within("keys", options.keys, 1, KEYS_MAX)?;
    let space = KeySpace::new(TAG, options.common.ranges);
    prepare(client, runtime, &space).await?;
    let deadline = runtime.now() + OPERATION_LIMIT;
    let run = retry(runtime, deadline, || client.timestamp())
        .await
        .map_err(|source| WorkloadError::Setup { stage: "timestamp", source })?;
    let lists = Arc::new(Lists { space, run, keys: options.keys, begun: AtomicU64::new(0) });
    let seed = options.common.seed.unwrap_or_else(|| runtime.random_u64());
    tracing::info!(seed, %run, "append begins");
    let clock_zero_unix_ms = runtime.wall_ms() as i64 - runtime.now().as_millis() as i64;

    let scribes = (0..options.common.workers)
        .map(|worker| Scribe::new(client, runtime, &lists, worker, seed))
        .collect();
    let (scribes, summary) = drive(NAME, runtime, &options.common, space.slots(), scribes).await?;
    let mut operations: Vec<_> = scribes.into_iter().flat_map(Scribe::into_record).collect();
    tracing::info!(operations = operations.len(), "the load is over; reading every list");
    operations.extend(final_reads(client, runtime, &lists, options.common.workers).await);
    operations.sort_by_key(|operation| (operation.invoke, operation.process));
    let history = History::try_from(operations)
        .map_err(|error| WorkloadError::History { why: error.to_string() })?;

    let checks = checker_options(&history);
    let verdicts = vec![append(&history, &checks), acknowledged(&history, &checks)];
    Ok((HistoryReport::new(summary, clock_zero_unix_ms, &history, verdicts), history))
}

/// Reads every list, each in a transaction and as a process of its own, numbered from `first_process`.
async fn final_reads(
    client: &Client,
    runtime: &Arc<dyn Runtime>,
    lists: &Lists,
    first_process: u32,
) -> Vec<Operation> {
    let deadline = runtime.now() + FINAL_LIMIT;
    let reads = (u64::from(first_process)..).zip(lists.all()).map(|(process, key)| async move {
        let invoke = nanos(runtime.now());
        let read = retry(runtime, deadline, || final_read(client, key.clone())).await;
        let (outcome, txn) = match read {
            Ok(txn) => (Outcome::Ok, txn),
            Err(error) => {
                tracing::warn!(%error, process, "the last read of a list failed");
                (Outcome::Failed, transaction(Timestamp::ZERO, None, Vec::new()))
            }
        };
        let complete = Some(nanos(runtime.now()));
        Operation { process, invoke, complete, outcome, is_final: true, op: Op::Txn(txn) }
    });
    stream::iter(reads).buffer_unordered(FINAL_CONCURRENCY).collect().await
}

async fn final_read(client: &Client, key: Bytes) -> Result<Txn, ClientError> {
    let reader = client.begin().await?;
    let mut steps = Vec::new();
    scribe::list(&reader, &key, &mut steps).await?;
    reader.commit().await?;
    Ok(transaction(reader.start_ts(), None, steps))
}

fn transaction(start: Timestamp, commit: Option<Timestamp>, steps: Vec<Step>) -> Txn {
    let commit_ts = commit.map(|commit| commit.0);
    Txn { start_ts: start.0, commit_ts, steps, isolation: Isolation::Snapshot }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_follow_each_other_and_all_are_read() {
        let space = KeySpace::new(TAG, 4);
        let lists = Lists { space, run: Timestamp(9), keys: 2, begun: AtomicU64::new(0) };
        let begun: Vec<_> = (0..150).map(|_| lists.begin()).collect();
        assert_eq!((begun[0], begun[99], begun[100], begun[149]), (0, 0, 1, 1));
        let mut all = lists.all();
        assert!(all.contains(&lists.key(1, 1)) && all.contains(&lists.key(0, 0)));
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!((count, all.len()), (4, 4));
        assert_eq!((lists.slot(0), lists.slot(1)), (0, 2));
    }
}
