//! Hostile bytes for the rows that bank reads back from a cluster.

use cribwork_fuzz::{Shape, target};

use super::*;

/// A row as one input: length of the key, key, value.
fn joined(key: &[u8], value: &Bytes) -> Vec<u8> {
    [&[key.len() as u8], key, value].concat()
}

#[test]
fn bank_rows() {
    let account = [7; ACCOUNT_KEY_BYTES];
    let receipt = [&account[..], &[1; ATTEMPT_BYTES]].concat();
    let transfer = Transfer { from: 1, to: 2, amount: 30 };
    let balance = joined(&account, &balance_value(OPENING_BALANCE));
    let seeds = [balance, joined(&receipt, &receipt_value(&transfer))];
    target("bank_rows").seeds(seeds).words(["-", " ", "9223372036854775807"]).run(|bytes| {
        let (length, rest) = bytes.split_first().unwrap_or((&0, &[]));
        let (key, value) = rest.split_at(usize::from(*length).min(rest.len()));
        let row = Ledger::parse(key, value);
        let again = row.map(|row| match row {
            Row::Balance(balance) => balance_value(balance),
            Row::Receipt(_, transfer) => receipt_value(&transfer),
        });
        if let Some(again) = again {
            assert_eq!(Ledger::parse(key, &again), row, "what was read is written the same way");
        }
        Shape::of(&row.map(|row| matches!(row, Row::Balance(_))))
    });
}
