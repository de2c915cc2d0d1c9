//! Transactions that read lists and append to them.

use std::ops::Range;

use bytes::Bytes;
use cribwork_checker::{Isolation, Op, Step, Txn, decode_list, encode_list};
use cribwork_client::{ClientError, Transaction};
use cribwork_types::Timestamp;

use super::Worker;

pub(super) const KEYS: Range<u64> = 0..10;

pub(super) fn key(number: u64) -> Bytes {
    format!("list{number:02}").into()
}

/// One transaction of one to four steps on different lists.
pub(super) async fn once(worker: &mut Worker) -> bool {
    let mut numbers: Vec<u64> = KEYS.collect();
    let count = worker.random.within(1..5);
    let steps: Vec<(Bytes, Option<u64>)> = (0..count)
        .map(|_| {
            let at = worker.random.below(numbers.len() as u64) as usize;
            let key = key(numbers.swap_remove(at));
            let element = worker.random.chance(60).then(|| worker.unique());
            (key, element)
        })
        .collect();
    let begun = worker.begin();
    let mut done = Vec::new();
    let (start_ts, result) = attempt(worker, &steps, &mut done).await;
    let op = transaction(start_ts, result.as_ref().ok().copied().flatten(), done);
    worker.record(begun, &result, op)
}

/// The record of a transaction.
pub(super) fn transaction(
    start_ts: Timestamp,
    commit_ts: Option<Timestamp>,
    steps: Vec<Step>,
) -> Op {
    Op::Txn(Txn {
        start_ts: start_ts.get(),
        commit_ts: commit_ts.map(Timestamp::get),
        steps,
        isolation: Isolation::Snapshot,
    })
}

/// Commits; the timestamp, if anything was written.
pub(super) async fn commit(transaction: &Transaction) -> Result<Option<Timestamp>, ClientError> {
    let writes = transaction.writes() > 0;
    let commit_ts = transaction.commit().await?;
    Ok(writes.then_some(commit_ts))
}

async fn attempt(
    worker: &Worker,
    steps: &[(Bytes, Option<u64>)],
    done: &mut Vec<Step>,
) -> (Timestamp, Result<Option<Timestamp>, ClientError>) {
    let transaction = match worker.client.begin().await {
        Ok(transaction) => transaction,
        Err(error) => return (Timestamp::ZERO, Err(error)),
    };
    let start_ts = transaction.start_ts();
    for (key, element) in steps {
        if let Err(error) = step(&transaction, key, *element, done).await {
            return (start_ts, Err(error));
        }
    }
    (start_ts, commit(&transaction).await)
}

async fn step(
    transaction: &Transaction,
    key: &Bytes,
    element: Option<u64>,
    done: &mut Vec<Step>,
) -> Result<(), ClientError> {
    let mut elements = list(transaction, key, done).await?;
    if let Some(element) = element {
        elements.push(element);
        transaction.put(key.clone(), encode_list(&elements))?;
        done.push(Step::Append { key: key.clone().into(), element });
    }
    Ok(())
}

/// Reads one list.
pub(super) async fn list(
    transaction: &Transaction,
    key: &Bytes,
    done: &mut Vec<Step>,
) -> Result<Vec<u64>, ClientError> {
    let value = transaction.get(key.clone()).await?.unwrap_or_default();
    // What is no list shows up as one that nobody wrote.
    let elements = decode_list(&value).unwrap_or_else(|| vec![u64::MAX]);
    done.push(Step::List { key: key.clone().into(), elements: elements.clone() });
    Ok(elements)
}
