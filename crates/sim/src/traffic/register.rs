//! Transactions on registers, and timestamps.

use std::ops::Range;

use bytes::Bytes;
use cribwork_checker::{Blob, Op, Step};
use cribwork_client::{ClientError, Transaction};
use cribwork_types::Timestamp;

use super::Worker;
use super::append::{commit, transaction};

pub(super) const KEYS: Range<u64> = 0..12;

pub(super) fn key(number: u64) -> Bytes {
    format!("reg{number:02}").into()
}

/// One transaction of one to five steps.
pub(super) async fn once(worker: &mut Worker) -> bool {
    let count = worker.random.within(1..6);
    let steps: Vec<(Bytes, u64, u64)> = (0..count)
        .map(|_| {
            let key = key(worker.random.below(KEYS.end));
            (key, worker.random.below(10), worker.unique())
        })
        .collect();
    let begun = worker.begin();
    let mut done = Vec::new();
    let (start_ts, result) = attempt(worker, &steps, &mut done).await;
    let op = transaction(start_ts, result.as_ref().ok().copied().flatten(), done);
    worker.record(begun, &result, op)
}

async fn attempt(
    worker: &Worker,
    steps: &[(Bytes, u64, u64)],
    done: &mut Vec<Step>,
) -> (Timestamp, Result<Option<Timestamp>, ClientError>) {
    let transaction = match worker.client.begin().await {
        Ok(transaction) => transaction,
        Err(error) => return (Timestamp::ZERO, Err(error)),
    };
    let start_ts = transaction.start_ts();
    for (key, what, unique) in steps {
        let result = match what {
            0..5 => get(&transaction, key, done).await,
            5..9 => put(&transaction, key, *unique, done),
            _ => delete(&transaction, key, done),
        };
        if let Err(error) = result {
            return (start_ts, Err(error));
        }
    }
    (start_ts, commit(&transaction).await)
}

/// Reads one register.
pub(super) async fn get(
    transaction: &Transaction,
    key: &Bytes,
    done: &mut Vec<Step>,
) -> Result<(), ClientError> {
    let value = transaction.get(key.clone()).await?.map(Blob::from);
    done.push(Step::Get { key: key.clone().into(), value });
    Ok(())
}

fn put(
    transaction: &Transaction,
    key: &Bytes,
    unique: u64,
    done: &mut Vec<Step>,
) -> Result<(), ClientError> {
    // Some values are too long to lie in the commit record.
    let width = if unique.is_multiple_of(4) { 300 } else { 1 };
    let value = Bytes::from(format!("{unique:0width$}"));
    transaction.put(key.clone(), value.clone())?;
    done.push(Step::Put { key: key.clone().into(), value: value.into() });
    Ok(())
}

fn delete(transaction: &Transaction, key: &Bytes, done: &mut Vec<Step>) -> Result<(), ClientError> {
    transaction.delete(key.clone())?;
    done.push(Step::Delete { key: key.clone().into() });
    Ok(())
}

/// Takes one timestamp.
pub(super) async fn timestamp(worker: &mut Worker) -> bool {
    let begun = worker.begin();
    let result = worker.client.timestamp().await;
    match result {
        Ok(ts) => worker.record(begun, &result, Op::Timestamps { first: ts.get(), count: 1 }),
        Err(error) => {
            worker.shared.failed(&error);
            false
        }
    }
}
