//! Bank: money moves between accounts, each transfer one transaction, and none may appear or vanish.
//!
//! With receipts on, every attempt of a transfer writes a receipt with a name of its own in the same
//! transaction, and its worker records how the attempt ended. After the load, receipts and balances
//! are read at one timestamp and must agree with these records and with each other:
//!
//! * an acknowledged attempt's receipt is there (nothing acknowledged is lost);
//! * an attempt that certainly failed left none (nothing takes effect after "no");
//! * the receipts, replayed from the opening balances, give the balances (transactions are atomic and
//!   isolated);
//! * the total is what it was, here and in every snapshot that was read during the load.

mod audit;
mod checker;
mod ledger;
mod report;
mod transfer;

use std::pin::pin;
use std::sync::Arc;

use cribwork_client::{Client, ClientError, TransactOptions};
use cribwork_types::Runtime;
use futures::future::{Either, select};
use futures::{StreamExt, TryStreamExt, stream};

use self::audit::{SnapshotTotals, audit, watch_totals};
use self::ledger::{Ledger, OPENING_BALANCE};
pub use self::report::{BankReport, Verdict};
use self::transfer::Teller;
use crate::drive::drive;
use crate::keyspace::KeySpace;
use crate::options::{OPERATION_LIMIT, within};
use crate::setup::{prepare, retry};
use crate::{CommonOptions, WorkloadError};

const NAME: &str = "bank";
const TAG: [u8; 4] = *b"bank";
const ACCOUNTS_MAX: u32 = 1_000_000;
/// Accounts opened by one transaction.
const OPENED_AT_ONCE: u32 = 256;
/// Transactions under way while accounts are opened.
const OPENING_CONCURRENCY: usize = 4;

/// What bank can be told.
#[derive(Clone, Debug)]
pub struct BankOptions {
    /// What every workload can be told.
    pub common: CommonOptions,
    /// Number of accounts; each opens with the same balance.
    pub accounts: u32,
    /// Whether transfers write receipts. Without them only the total is checked.
    pub receipts: bool,
}

impl Default for BankOptions {
    /// 1000 accounts, receipts on.
    fn default() -> Self {
        Self { common: CommonOptions::default(), accounts: 1000, receipts: true }
    }
}

/// Opens accounts, moves money for the time asked for, and checks.
///
/// # Errors
/// [`WorkloadError`] if the load could not be run at all. What the check found, and even that it
/// could not be made, is in the report.
pub async fn run_bank(
    client: &Client,
    runtime: &Arc<dyn Runtime>,
    options: &BankOptions,
) -> Result<BankReport, WorkloadError> {
    options.common.check()?;
    within("accounts", options.accounts, 2, ACCOUNTS_MAX)?;
    let space = KeySpace::new(TAG, options.common.ranges);
    prepare(client, runtime, &space).await?;
    let deadline = runtime.now() + OPERATION_LIMIT;
    let run = retry(runtime, deadline, || client.timestamp())
        .await
        .map_err(|source| WorkloadError::Setup { stage: "timestamp", source })?;
    let ledger = Arc::new(Ledger::new(space, run, options.accounts));
    open_accounts(client, runtime, &ledger).await?;

    let seed = options.common.seed.unwrap_or_else(|| runtime.random_u64());
    tracing::info!(seed, %run, "bank opens");
    let tellers = (0..options.common.workers)
        .map(|worker| Teller::new(client, runtime, &ledger, worker, seed, options.receipts));
    let mut totals = SnapshotTotals::default();
    let (tellers, summary) = {
        let load = pin!(drive(NAME, runtime, &options.common, space.slots(), tellers.collect()));
        let watch = pin!(watch_totals(client, runtime, &ledger, &mut totals));
        match select(load, watch).await {
            Either::Left((outcome, _)) => outcome?,
            Either::Right((never, _)) => match never {},
        }
    };
    tracing::info!(snapshots = totals.read, "the load is over; checking");
    let records: Vec<_> = tellers.into_iter().map(Teller::into_record).collect();
    let findings = audit(client, runtime, &ledger, &records, options.receipts).await;
    Ok(BankReport::new(summary, &ledger, &records, totals, findings))
}

async fn open_accounts(
    client: &Client,
    runtime: &Arc<dyn Runtime>,
    ledger: &Ledger,
) -> Result<(), WorkloadError> {
    let deadline = runtime.now() + 6 * OPERATION_LIMIT;
    let firsts = (0..ledger.accounts()).step_by(OPENED_AT_ONCE as usize);
    stream::iter(firsts)
        .map(|first| retry(runtime, deadline, move || open_some(client, ledger, first)))
        .buffer_unordered(OPENING_CONCURRENCY)
        .try_collect::<()>()
        .await
        .map_err(|source| WorkloadError::Setup { stage: "open accounts", source })
}

/// Opening an account twice before the load changes nothing.
async fn open_some(client: &Client, ledger: &Ledger, first: u32) -> Result<(), ClientError> {
    let last = (first + OPENED_AT_ONCE).min(ledger.accounts());
    let opened = client
        .transact(TransactOptions::default(), |transaction| async move {
            for account in first..last {
                let balance = ledger::balance_value(OPENING_BALANCE);
                transaction.put(ledger.account_key(account), balance)?;
            }
            Ok(())
        })
        .await?;
    tracing::debug!(first, commit_ts = %opened.commit_ts, "accounts opened");
    Ok(())
}
