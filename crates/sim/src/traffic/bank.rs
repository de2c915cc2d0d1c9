//! Money that moves between accounts.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use cribwork_checker::{Blob, Op, Step};
use cribwork_client::{ClientError, Transaction};
use cribwork_types::Timestamp;

use super::append::{commit, transaction};
use super::{Worker, insist};

const ACCOUNTS: Range<u64> = 0..8;
const OPENING: i64 = 100;
/// All money.
pub(crate) const TOTAL: i64 = ACCOUNTS.end as i64 * OPENING;

pub(super) fn key(number: u64) -> Bytes {
    format!("acct{number:02}").into()
}

pub(super) fn keys() -> impl Iterator<Item = Bytes> {
    ACCOUNTS.map(key)
}

/// Puts the opening balances in.
pub(super) async fn open(worker: &mut Worker) {
    let shared = worker.shared.clone();
    let done = insist(&shared, async || {
        let begun = worker.begin();
        let mut steps = Vec::new();
        let transaction = worker.client.begin().await?;
        for key in keys() {
            set(&transaction, &key, OPENING, &mut steps)?;
        }
        let start_ts = transaction.start_ts();
        let result = commit(&transaction).await;
        let commit_ts = result.as_ref().ok().copied().flatten();
        worker.record(begun, &result, super::append::transaction(start_ts, commit_ts, steps));
        match result {
            // Opening twice does no harm: nothing has moved yet.
            Err(ClientError::Unknown { .. }) | Ok(_) => Ok(result.is_ok()),
            Err(error) => Err(error),
        }
    });
    done.await;
}

/// Moves some money from one account to another.
pub(super) async fn transfer(worker: &mut Worker) -> bool {
    let from = worker.random.below(ACCOUNTS.end);
    let to = (from + worker.random.within(1..ACCOUNTS.end)) % ACCOUNTS.end;
    let amount = worker.random.within(1..20) as i64;
    let begun = worker.begin();
    let mut done = Vec::new();
    let (start_ts, result) = attempt(worker, [key(from), key(to)], amount, &mut done).await;
    let op = transaction(start_ts, result.as_ref().ok().copied().flatten(), done);
    worker.record(begun, &result, op)
}

async fn attempt(
    worker: &Worker,
    [from, to]: [Bytes; 2],
    amount: i64,
    done: &mut Vec<Step>,
) -> (Timestamp, Result<Option<Timestamp>, ClientError>) {
    let transaction = match worker.client.begin().await {
        Ok(transaction) => transaction,
        Err(error) => return (Timestamp::ZERO, Err(error)),
    };
    let moved = async {
        let has = balance(&transaction, &from, done).await?;
        let amount = amount.min(has);
        let other = balance(&transaction, &to, done).await?;
        if amount > 0 {
            set(&transaction, &from, has - amount, done)?;
            set(&transaction, &to, other + amount, done)?;
        }
        commit(&transaction).await
    };
    let result = moved.await;
    (transaction.start_ts(), result)
}

async fn balance(
    transaction: &Transaction,
    key: &Bytes,
    done: &mut Vec<Step>,
) -> Result<i64, ClientError> {
    let value = transaction.get(key.clone()).await?;
    let amount = amount(value.as_ref());
    done.push(Step::Get { key: key.clone().into(), value: value.map(Blob::from) });
    Ok(amount)
}

/// A value that is no amount shows up as a total that is wrong.
fn amount(value: Option<&Bytes>) -> i64 {
    let text = value.and_then(|value| std::str::from_utf8(value).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(-1_000_000)
}

fn set(
    transaction: &Transaction,
    key: &Bytes,
    balance: i64,
    done: &mut Vec<Step>,
) -> Result<(), ClientError> {
    let value = Bytes::from(balance.to_string());
    transaction.put(key.clone(), value.clone())?;
    done.push(Step::Put { key: key.clone().into(), value: value.into() });
    Ok(())
}

/// Reads all balances at one timestamp.
pub(super) async fn read_all(worker: &mut Worker) -> bool {
    let begun = worker.begin();
    let read = async {
        let ts = worker.client.timestamp().await?;
        let rows = worker.client.snapshot(ts).batch_get(keys()).await?;
        Ok((ts, rows))
    };
    match read.await {
        Ok((ts, rows)) => {
            let rows: BTreeMap<Bytes, Bytes> = rows.into_iter().collect();
            let balances = keys().map(|key| (key.clone().into(), amount(rows.get(&key)))).collect();
            worker.record(begun, &Ok(()), Op::Bank { start_ts: ts.get(), balances })
        }
        Err(error) => {
            worker.shared.failed(&error);
            false
        }
    }
}
