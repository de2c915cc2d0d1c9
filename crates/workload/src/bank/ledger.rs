//! Bank's keys and values.
//!
//! Account: `"bank" ++ spread u32 ++ run u64`, value: the balance in decimal. Receipt: the source
//! account's key `++ worker u32 ++ number u64`, so it lies in the same range and a scan that begins
//! at an account meets the balance first and then the account's receipts; value: `from to amount` in
//! decimal. All integers in keys are big-endian. `run` is a timestamp of the cluster, so that runs
//! never meet each other's data.

use bytes::Bytes;
use cribwork_types::{KeyRange, Timestamp};

use crate::keyspace::{KeySpace, spread_evenly};

#[cfg(test)]
mod fuzz;

/// What every account holds at first.
pub(super) const OPENING_BALANCE: i64 = 1000;

const RUN_BYTES: usize = 8;
const ATTEMPT_BYTES: usize = 12;
const ACCOUNT_KEY_BYTES: usize = KeySpace::PREFIX_BYTES + RUN_BYTES;

/// Names one attempt of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AttemptId {
    pub(super) worker: u32,
    /// Counts the worker's attempts.
    pub(super) number: u64,
}

impl std::fmt::Display for AttemptId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.worker, self.number)
    }
}

/// Money that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transfer {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) amount: i64,
}

/// A row of the ledger, as found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    Balance(i64),
    Receipt(AttemptId, Transfer),
}

/// Where one run keeps its accounts.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    space: KeySpace,
    run: Timestamp,
    accounts: u32,
}

impl Ledger {
    pub(super) fn new(space: KeySpace, run: Timestamp, accounts: u32) -> Self {
        Self { space, run, accounts }
    }

    pub(super) fn accounts(&self) -> u32 {
        self.accounts
    }

    /// The sum of all balances, always.
    pub(super) fn total(&self) -> i64 {
        i64::from(self.accounts) * OPENING_BALANCE
    }

    /// The own range that holds an account.
    pub(super) fn slot(&self, account: u32) -> usize {
        self.space.slot(spread_evenly(account, self.accounts))
    }

    fn key(&self, account: u32, run: u64, more: usize) -> Vec<u8> {
        let spread = spread_evenly(account, self.accounts);
        let mut key = self.space.prefix(spread, RUN_BYTES + more);
        key.extend_from_slice(&run.to_be_bytes());
        key
    }

    pub(super) fn account_key(&self, account: u32) -> Bytes {
        self.key(account, self.run.get(), 0).into()
    }

    pub(super) fn receipt_key(&self, account: u32, id: AttemptId) -> Bytes {
        let mut key = self.key(account, self.run.get(), ATTEMPT_BYTES);
        key.extend_from_slice(&id.worker.to_be_bytes());
        key.extend_from_slice(&id.number.to_be_bytes());
        key.into()
    }

    /// The account's balance and receipts.
    pub(super) fn account_span(&self, account: u32) -> KeyRange {
        // Timestamps stay far below the largest number.
        KeyRange::new(self.account_key(account), self.key(account, self.run.get() + 1, 0))
    }

    /// Reads a row out of [`Self::account_span`]; `None` if bank never writes such a row.
    pub(super) fn parse(key: &[u8], value: &[u8]) -> Option<Row> {
        let text = std::str::from_utf8(value).ok()?;
        let rest = key.get(ACCOUNT_KEY_BYTES..)?;
        if rest.is_empty() {
            return text.parse().ok().map(Row::Balance);
        }
        let (worker, number) = rest.split_at_checked(4)?;
        let id = AttemptId {
            worker: u32::from_be_bytes(worker.try_into().ok()?),
            number: u64::from_be_bytes(number.try_into().ok()?),
        };
        let mut words = text.split(' ');
        let transfer = Transfer {
            from: words.next()?.parse().ok()?,
            to: words.next()?.parse().ok()?,
            amount: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(Row::Receipt(id, transfer))
    }
}

pub(super) fn balance_value(balance: i64) -> Bytes {
    balance.to_string().into()
}

pub(super) fn receipt_value(transfer: &Transfer) -> Bytes {
    format!("{} {} {}", transfer.from, transfer.to, transfer.amount).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(accounts: u32) -> Ledger {
        Ledger::new(KeySpace::new(TAG, 4), Timestamp(0x0102), accounts)
    }

    const TAG: [u8; 4] = *b"bank";

    #[test]
    fn the_layout_of_keys() {
        let ledger = ledger(2);
        let account = ledger.account_key(1);
        assert_eq!(account, &b"bank\x80\0\0\0\0\0\0\0\0\0\x01\x02"[..]);
        let receipt = ledger.receipt_key(1, AttemptId { worker: 3, number: 5 });
        assert_eq!(&receipt[..16], &account[..]);
        assert_eq!(receipt[16..], *b"\0\0\0\x03\0\0\0\0\0\0\0\x05");
    }

    #[test]
    fn rows_round_trip() {
        let ledger = ledger(10);
        let id = AttemptId { worker: 7, number: 1 << 40 };
        let transfer = Transfer { from: 3, to: 9, amount: 17 };
        let row = Ledger::parse(&ledger.receipt_key(3, id), &receipt_value(&transfer));
        assert_eq!(row, Some(Row::Receipt(id, transfer)));
        let row = Ledger::parse(&ledger.account_key(3), &balance_value(-4));
        assert_eq!(row, Some(Row::Balance(-4)));
    }

    #[test]
    fn what_bank_never_writes_is_no_row() {
        let ledger = ledger(10);
        let receipt = ledger.receipt_key(3, AttemptId { worker: 0, number: 0 });
        for value in ["", "1 2", "1 2 x", "1 2 3 4", "-1 2 3"] {
            assert_eq!(Ledger::parse(&receipt, value.as_bytes()), None, "{value}");
        }
        assert_eq!(Ledger::parse(&receipt[..20], b"1 2 3"), None);
        assert_eq!(Ledger::parse(&receipt[..10], b"1"), None);
        assert_eq!(Ledger::parse(&ledger.account_key(3), b"\xFF"), None);
    }

    #[test]
    fn a_span_holds_one_account_of_one_run() {
        let ledger = ledger(1000);
        let id = AttemptId { worker: u32::MAX, number: u64::MAX };
        let span = ledger.account_span(41);
        assert!(span.contains(&ledger.account_key(41)));
        assert!(span.contains(&ledger.receipt_key(41, id)));
        assert!(!span.contains(&ledger.account_key(42)));
        assert!(!span.contains(&ledger.receipt_key(40, id)));
        let next_run = Ledger { run: ledger.run.next(), ..ledger };
        assert!(!span.contains(&next_run.account_key(41)));
    }

    #[test]
    fn accounts_spread_over_all_ranges() {
        let ledger = ledger(8);
        let slots: Vec<_> = (0..8).map(|account| ledger.slot(account)).collect();
        assert_eq!(slots, [0, 0, 1, 1, 2, 2, 3, 3]);
    }
}
