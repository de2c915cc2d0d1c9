//! Running a transaction again until it commits.

use std::future::Future;
use std::time::Duration;

use cribwork_types::Timestamp;

use super::transaction::Transaction;
use crate::backoff::Backoff;
use crate::{Client, ClientError};

/// How long [`Client::transact`] tries.
#[derive(Clone, Copy, Debug)]
pub struct TransactOptions {
    /// Most runs of the body; at least one happens.
    pub attempts_max: u32,
    /// No run begins later than this after the first.
    pub timeout: Duration,
}

impl Default for TransactOptions {
    /// 64 attempts within 30 s.
    fn default() -> Self {
        Self { attempts_max: 64, timeout: Duration::from_secs(30) }
    }
}

/// A transaction that committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transacted<T> {
    /// What the body returned in the run that committed.
    pub value: T,
    /// From when on the writes are visible.
    pub commit_ts: Timestamp,
    /// Runs that failed before, all without effect.
    pub retries: u32,
}

impl Client {
    /// Runs `body` in a new transaction and commits it; again from the beginning while it fails for
    /// a reason that passes (a conflict, a lock, a rollback by somebody else). `body` must have no
    /// effect but on its transaction:
    ///
    /// ```no_run
    /// # async fn example(client: cribwork_client::Client) -> Result<(), cribwork_client::ClientError> {
    /// let done = client
    ///     .transact(Default::default(), |transaction| async move {
    ///         let value = transaction.get("from").await?.unwrap_or_default();
    ///         transaction.delete("from")?;
    ///         transaction.put("to", value)
    ///     })
    ///     .await?;
    /// println!("visible from {}", done.commit_ts);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The error of the last run. [`ClientError::Unknown`] ends it at once: running again could
    /// write twice.
    pub async fn transact<T, F, Fut>(
        &self,
        options: TransactOptions,
        mut body: F,
    ) -> Result<Transacted<T>, ClientError>
    where
        F: FnMut(Transaction) -> Fut,
        Fut: Future<Output = Result<T, ClientError>>,
    {
        let runtime = &*self.core().runtime;
        let deadline = runtime.now() + options.timeout;
        let mut backoff = Backoff::default();
        let mut retries = 0;
        loop {
            let transaction = self.begin().await?;
            let outcome = match body(transaction.clone()).await {
                Ok(value) => transaction.commit().await.map(|commit_ts| (value, commit_ts)),
                Err(error) => Err(error),
            };
            let error = match outcome {
                Ok((value, commit_ts)) => {
                    return Ok(Transacted { value, commit_ts, retries });
                }
                Err(error) => error,
            };
            let pause = backoff.next(runtime);
            retries += 1;
            if !error.is_transaction_retryable()
                || retries >= options.attempts_max
                || runtime.now() + pause >= deadline
            {
                return Err(error);
            }
            runtime.sleep(pause).await;
        }
    }
}
