//! Reads the ledger: totals at snapshots while the load runs, everything at one timestamp after it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cribwork_client::{Client, ClientError, Snapshot};
use cribwork_types::limits::SCAN_LIMIT_MAX;
use cribwork_types::{KeyRange, Runtime, Timestamp};
use futures::{StreamExt, stream};

use super::checker::{Checker, Findings};
use super::ledger::{Ledger, Row};
use super::transfer::Record;
use crate::setup::retry;

/// Pause between two snapshots.
const SNAPSHOT_PERIOD: Duration = Duration::from_millis(500);
/// Accounts read by one request of a snapshot.
const READ_AT_ONCE: u32 = 4096;
/// Accounts scanned at the same time.
const SCAN_CONCURRENCY: usize = 16;
/// How long the ledger is given to become readable after the load.
const AUDIT_LIMIT: Duration = Duration::from_secs(60);
/// Most wrong totals that are kept.
const WRONG_MAX: usize = 5;

/// What snapshots during the load showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SnapshotTotals {
    /// Snapshots read.
    pub(super) read: u64,
    /// Those with a wrong total, the first few.
    pub(super) wrong: Vec<(Timestamp, i64)>,
}

impl SnapshotTotals {
    fn take(&mut self, ts: Timestamp, total: i64, expected: i64) {
        self.read += 1;
        if total != expected && self.wrong.len() < WRONG_MAX {
            self.wrong.push((ts, total));
        }
    }
}

/// Reads the total at one snapshot after another, until it is dropped.
pub(super) async fn watch_totals(
    client: &Client,
    runtime: &Arc<dyn Runtime>,
    ledger: &Ledger,
    totals: &mut SnapshotTotals,
) -> Infallible {
    loop {
        match total(client, ledger).await {
            Ok((ts, total)) => totals.take(ts, total, ledger.total()),
            // Unavailable for a while: the next one may succeed.
            Err(error) => tracing::debug!(%error, "a snapshot could not be read"),
        }
        runtime.sleep(SNAPSHOT_PERIOD).await;
    }
}

async fn total(client: &Client, ledger: &Ledger) -> Result<(Timestamp, i64), ClientError> {
    let ts = client.timestamp().await?;
    let snapshot = client.snapshot(ts);
    let mut total = 0;
    for first in (0..ledger.accounts()).step_by(READ_AT_ONCE as usize) {
        let last = (first + READ_AT_ONCE).min(ledger.accounts());
        let keys = (first..last).map(|account| ledger.account_key(account));
        for (key, value) in snapshot.batch_get(keys).await? {
            if let Some(Row::Balance(balance)) = Ledger::parse(&key, &value) {
                total += balance;
            }
        }
    }
    Ok((ts, total))
}

/// Reads all balances and receipts at one timestamp and checks them.
///
/// # Errors
/// [`ClientError`] if they could not be read within a minute.
pub(super) async fn audit(
    client: &Client,
    runtime: &Arc<dyn Runtime>,
    ledger: &Ledger,
    records: &[Record],
    receipts: bool,
) -> Result<Findings, ClientError> {
    let deadline = runtime.now() + AUDIT_LIMIT;
    // From the beginning each time: half of a ledger proves nothing.
    retry(runtime, deadline, || async {
        let snapshot = client.snapshot(client.timestamp().await?);
        let mut checker = Checker::new(ledger, records, receipts);
        let mut accounts = stream::iter(0..ledger.accounts())
            .map(|account| read_account(&snapshot, ledger, account))
            .buffer_unordered(SCAN_CONCURRENCY);
        while let Some(outcome) = accounts.next().await {
            let (account, rows) = outcome?;
            rows.into_iter().for_each(|row| checker.row(account, row));
        }
        Ok(checker.finish())
    })
    .await
}

async fn read_account(
    snapshot: &Snapshot,
    ledger: &Ledger,
    account: u32,
) -> Result<(u32, Vec<Option<Row>>), ClientError> {
    let (mut rows, mut span) = (Vec::new(), ledger.account_span(account));
    loop {
        let page = snapshot.scan(span.clone(), SCAN_LIMIT_MAX).await?;
        rows.extend(page.iter().map(|(key, value)| Ledger::parse(key, value)));
        match page.last() {
            Some((last, _)) if page.len() >= SCAN_LIMIT_MAX as usize => {
                let next = Bytes::from([&last[..], &[0]].concat());
                span = KeyRange { start: next, end: span.end };
            }
            _ => return Ok((account, rows)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_total_is_kept() {
        let mut totals = SnapshotTotals::default();
        totals.take(Timestamp(1), 3000, 3000);
        totals.take(Timestamp(2), 2995, 3000);
        assert_eq!(totals, SnapshotTotals { read: 2, wrong: vec![(Timestamp(2), 2995)] });
    }
}
