//! The workers of bank: they move money and write down how every attempt ended.

use std::sync::Arc;

use cribwork_client::{Client, ClientError};
use cribwork_types::Runtime;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::ledger::{AttemptId, Ledger, Transfer, balance_value, receipt_value};
use crate::drive::{Outcome, Pauses, Worker};
use crate::gaps::Touched;
use crate::keyspace::scramble;
use crate::options::OPERATION_LIMIT;
use crate::setup::passes;

/// Most money that one transfer asks for.
const AMOUNT_MAX: i64 = 100;

/// What a worker knows about one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The cluster said yes.
    Acknowledged,
    /// The cluster said no, or the attempt was never committed.
    Aborted,
    /// No answer came: either may be true.
    Unknown,
}

/// One worker's record, a byte an attempt: attempt `n` is `attempts[n]`.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) attempts: Vec<Known>,
    /// Attempts that lost to another transaction.
    pub(super) conflicts: u64,
}

/// A worker.
pub(super) struct Teller {
    client: Client,
    runtime: Arc<dyn Runtime>,
    ledger: Arc<Ledger>,
    worker: u32,
    receipts: bool,
    random: StdRng,
    record: Record,
}

/// Why an attempt failed, and whether the cluster had been asked to commit by then.
struct Failure {
    error: ClientError,
    committing: bool,
}

impl Failure {
    fn known(&self) -> Known {
        match self.error {
            ClientError::Unknown { .. } if self.committing => Known::Unknown,
            _ => Known::Aborted,
        }
    }
}

impl Teller {
    pub(super) fn new(
        client: &Client,
        runtime: &Arc<dyn Runtime>,
        ledger: &Arc<Ledger>,
        worker: u32,
        seed: u64,
        receipts: bool,
    ) -> Self {
        Self {
            client: client.clone(),
            runtime: runtime.clone(),
            ledger: ledger.clone(),
            worker,
            receipts,
            random: StdRng::seed_from_u64(scramble(seed) ^ u64::from(worker)),
            record: Record::default(),
        }
    }

    pub(super) fn into_record(self) -> Record {
        self.record
    }

    async fn attempt(&self, wanted: &Transfer, id: AttemptId) -> Result<(), Failure> {
        let early = |error| Failure { error, committing: false };
        let transaction = self.client.begin().await.map_err(early)?;
        let from_key = self.ledger.account_key(wanted.from);
        let to_key = self.ledger.account_key(wanted.to);
        let rows =
            transaction.batch_get([from_key.clone(), to_key.clone()]).await.map_err(early)?;
        let balance = |key: &[u8]| {
            let found = rows.iter().find(|(found, _)| *found == *key);
            let value = found.and_then(|(_, value)| std::str::from_utf8(value).ok());
            value.and_then(|value| value.parse::<i64>().ok()).ok_or_else(|| ClientError::Protocol {
                what: "account",
                why: format!("{} has no balance", key.escape_ascii()),
            })
        };
        let (from, to) = (balance(&from_key).map_err(early)?, balance(&to_key).map_err(early)?);
        // An empty account moves nothing, but its transaction counts like any other.
        let amount = wanted.amount.min(from).max(0);
        transaction.put(from_key, balance_value(from - amount)).map_err(early)?;
        transaction.put(to_key, balance_value(to + amount)).map_err(early)?;
        if self.receipts {
            let value = receipt_value(&Transfer { amount, ..*wanted });
            let key = self.ledger.receipt_key(wanted.from, id);
            transaction.put(key, value).map_err(early)?;
        }
        let committed = transaction.commit().await;
        committed.map(|_| ()).map_err(|error| Failure { error, committing: true })
    }
}

impl Worker for Teller {
    type Job = Transfer;

    fn next(&mut self) -> (Transfer, Touched) {
        let accounts = self.ledger.accounts();
        let from = self.random.random_range(0..accounts);
        let other = self.random.random_range(0..accounts - 1);
        let to = other + u32::from(other >= from);
        let amount = self.random.random_range(1..=AMOUNT_MAX);
        let touched = Touched::two(self.ledger.slot(from), self.ledger.slot(to));
        (Transfer { from, to, amount }, touched)
    }

    async fn run(&mut self, wanted: Transfer) -> Outcome {
        let deadline = self.runtime.now() + OPERATION_LIMIT;
        let mut pauses = Pauses::default();
        loop {
            // Each attempt has a receipt of its own: that of one which failed must never show up.
            let number = self.record.attempts.len() as u64;
            let id = AttemptId { worker: self.worker, number };
            let failure = match self.attempt(&wanted, id).await {
                Ok(()) => {
                    self.record.attempts.push(Known::Acknowledged);
                    return Outcome::Done;
                }
                Err(failure) => failure,
            };
            let known = failure.known();
            self.record.attempts.push(known);
            let error = failure.error;
            if known == Known::Unknown {
                tracing::info!(%id, %error, "the outcome of a transfer is unknown");
                return Outcome::Unknown;
            }
            self.record.conflicts += u64::from(error.is_transaction_retryable());
            if !passes(&error) || self.runtime.now() >= deadline {
                return Outcome::Failed(error.to_string());
            }
            tracing::debug!(%id, %error, "a transfer is tried again");
            pauses.wait(&*self.runtime).await;
        }
    }
}
