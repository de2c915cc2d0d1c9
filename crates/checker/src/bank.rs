//! The bank: money moves between accounts, and none appears or disappears.

use std::collections::BTreeMap;

use crate::{Blob, History, Op, Options, Verdict};

/// Checks acknowledged reads of all balances: they add up to [`Options::bank_total`], or to what the
/// first read adds up to; none is negative; every read has the accounts of the first; reads at one
/// timestamp are equal. Items: acknowledged reads.
pub fn bank(history: &History, options: &Options) -> Verdict {
    let mut verdict = Verdict::new("bank");
    let mut first: Option<(i128, usize, &BTreeMap<Blob, i64>)> = None;
    let mut at: BTreeMap<u64, (usize, &BTreeMap<Blob, i64>)> = BTreeMap::new();
    for (index, operation) in history.iter().filter(|(_, operation)| operation.is_ok()) {
        let Op::Bank { start_ts, balances } = &operation.op else { continue };
        verdict.checked += 1;
        let total: i128 = balances.values().map(|&balance| i128::from(balance)).sum();
        for (account, balance) in balances.iter().filter(|(_, balance)| **balance < 0) {
            verdict.violation(format!("negative balance: {account} has {balance}"), [index]);
        }
        let &mut (expected, one, accounts) =
            first.get_or_insert((options.bank_total.map_or(total, i128::from), index, balances));
        if total != expected {
            verdict.violation(format!("wrong total: {total} instead of {expected}"), [index]);
        }
        if !balances.keys().eq(accounts.keys()) {
            verdict.violation("other accounts than in the first read", [one, index]);
        }
        let &mut (same, earlier) = at.entry(*start_ts).or_insert((index, balances));
        if earlier != balances {
            verdict.violation(format!("two states at timestamp {start_ts}"), [same, index]);
        }
    }
    verdict
}
