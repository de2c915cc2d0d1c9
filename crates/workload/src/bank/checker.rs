//! Holds what the cluster stores against what it said. Pure: rows go in one by one, findings come
//! out; memory is a byte an attempt and a few words an account.

use super::ledger::{AttemptId, Ledger, OPENING_BALANCE, Row, Transfer};
use super::transfer::{Known, Record};

/// Most lines of evidence that are kept; counts go on.
const EVIDENCE_MAX: usize = 20;

/// What the check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    pub(super) total_observed: i64,
    pub(super) acknowledged_lost: u64,
    pub(super) aborted_but_applied: u64,
    pub(super) replay_mismatch: u64,
    /// Violations in words: what was expected, what was found.
    pub(super) evidence: Vec<String>,
    /// Violations beyond those that the counts and the total tell.
    pub(super) others: u64,
}

impl Findings {
    fn tell(&mut self, evidence: String) {
        if self.evidence.len() < EVIDENCE_MAX {
            self.evidence.push(evidence);
        }
    }
}

/// One account's part.
#[derive(Clone, Debug)]
struct Account {
    /// From the opening balance and the receipts.
    replayed: i64,
    observed: Option<i64>,
}

/// A check under way.
pub(super) struct Checker<'a> {
    records: &'a [Record],
    /// Attempts whose receipts were found, as in `records`.
    found: Vec<Vec<bool>>,
    accounts: Vec<Account>,
    expected: i64,
    replays: bool,
    findings: Findings,
}

impl<'a> Checker<'a> {
    /// `records[w]` is worker `w`'s; without `receipts` only balances are checked.
    pub(super) fn new(ledger: &Ledger, records: &'a [Record], receipts: bool) -> Self {
        let account = Account { replayed: OPENING_BALANCE, observed: None };
        Self {
            records,
            found: records.iter().map(|record| vec![false; record.attempts.len()]).collect(),
            accounts: vec![account; ledger.accounts() as usize],
            expected: ledger.total(),
            replays: receipts,
            findings: Findings::default(),
        }
    }

    /// Takes in a row that was found under `account`; `None` for one that bank does not write.
    pub(super) fn row(&mut self, account: u32, row: Option<Row>) {
        match row {
            Some(Row::Balance(balance)) => {
                self.accounts[account as usize].observed = Some(balance);
                if balance < 0 {
                    self.findings.others += 1;
                    self.findings.tell(format!("account {account} is overdrawn: {balance}"));
                }
            }
            Some(Row::Receipt(id, transfer)) => self.receipt(account, id, transfer),
            None => {
                self.findings.others += 1;
                self.findings.tell(format!("account {account} has a row that nobody wrote"));
            }
        }
    }

    fn receipt(&mut self, account: u32, id: AttemptId, transfer: Transfer) {
        let (worker, number) = (id.worker as usize, id.number as usize);
        let known = self.records.get(worker).and_then(|record| record.attempts.get(number));
        match known {
            Some(Known::Acknowledged | Known::Unknown) => self.found[worker][number] = true,
            Some(Known::Aborted) => {
                self.findings.aborted_but_applied += 1;
                let told =
                    format!("attempt {id} had failed, but its receipt is there: {transfer:?}");
                self.findings.tell(told);
            }
            None => {
                self.findings.others += 1;
                self.findings.tell(format!("receipt {id} belongs to no attempt: {transfer:?}"));
            }
        }
        let parties = [transfer.from, transfer.to].map(|party| party as usize);
        if transfer.from != account || parties.iter().any(|party| *party >= self.accounts.len()) {
            self.findings.others += 1;
            let told = format!("receipt {id} under account {account} says {transfer:?}");
            self.findings.tell(told);
            return;
        }
        self.accounts[parties[0]].replayed -= transfer.amount;
        self.accounts[parties[1]].replayed += transfer.amount;
    }

    /// Every row is in.
    pub(super) fn finish(mut self) -> Findings {
        if self.replays {
            self.find_lost();
        }
        for (number, account) in self.accounts.iter().enumerate() {
            let Some(observed) = account.observed else {
                self.findings.others += 1;
                self.findings.tell(format!("account {number} is gone"));
                continue;
            };
            self.findings.total_observed += observed;
            if self.replays && observed != account.replayed {
                self.findings.replay_mismatch += 1;
                let replayed = account.replayed;
                self.findings.tell(format!(
                    "account {number} holds {observed}, its receipts make {replayed}"
                ));
            }
        }
        let (total, expected) = (self.findings.total_observed, self.expected);
        if total != expected {
            self.findings.tell(format!("the total is {total}, not {expected}"));
        }
        self.findings
    }

    fn find_lost(&mut self) {
        for (worker, (record, found)) in self.records.iter().zip(&self.found).enumerate() {
            for (number, (known, found)) in record.attempts.iter().zip(found).enumerate() {
                if *known == Known::Acknowledged && !found {
                    self.findings.acknowledged_lost += 1;
                    let told =
                        format!("attempt {worker}/{number} was acknowledged, its receipt is gone");
                    self.findings.tell(told);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cribwork_types::Timestamp;

    use super::*;
    use crate::keyspace::KeySpace;

    fn ledger() -> Ledger {
        Ledger::new(KeySpace::new(*b"bank", 4), Timestamp(1), 3)
    }

    fn records(attempts: &[Known]) -> Vec<Record> {
        vec![Record::default(), Record { attempts: attempts.to_vec(), conflicts: 0 }]
    }

    /// Worker 1's attempt `number` moved `amount` from account 0 to account 1.
    fn receipt(number: u64, amount: i64) -> Option<Row> {
        let id = AttemptId { worker: 1, number };
        Some(Row::Receipt(id, Transfer { from: 0, to: 1, amount }))
    }

    fn check(known: &[Known], receipts: &[Option<Row>], balances: [i64; 3]) -> Findings {
        let records = records(known);
        let mut checker = Checker::new(&ledger(), &records, true);
        receipts.iter().for_each(|row| checker.row(0, *row));
        for (account, balance) in (0..).zip(balances) {
            checker.row(account, Some(Row::Balance(balance)));
        }
        checker.finish()
    }

    const GOOD: Findings = Findings {
        total_observed: 3000,
        acknowledged_lost: 0,
        aborted_but_applied: 0,
        replay_mismatch: 0,
        evidence: Vec::new(),
        others: 0,
    };

    #[test]
    fn what_was_said_is_what_is_stored() {
        let known = [Known::Acknowledged, Known::Aborted, Known::Unknown, Known::Unknown];
        assert_eq!(check(&known, &[receipt(0, 5), receipt(2, 7)], [988, 1012, 1000]), GOOD);
        assert_eq!(check(&[], &[], [1000; 3]), GOOD);
    }

    #[test]
    fn an_acknowledged_transfer_that_vanished() {
        let known = [Known::Acknowledged, Known::Acknowledged];
        let findings = check(&known, &[receipt(0, 5)], [995, 1005, 1000]);
        let evidence = vec!["attempt 1/1 was acknowledged, its receipt is gone".to_owned()];
        assert_eq!(findings, Findings { acknowledged_lost: 1, evidence, ..GOOD });
    }

    #[test]
    fn a_failed_transfer_that_took_effect() {
        let findings = check(&[Known::Aborted], &[receipt(0, 5)], [995, 1005, 1000]);
        assert_eq!((findings.aborted_but_applied, findings.replay_mismatch), (1, 0));
        assert_eq!(findings.evidence.len(), 1);
    }

    #[test]
    fn half_a_transfer() {
        let findings = check(&[Known::Acknowledged], &[receipt(0, 5)], [995, 1000, 1000]);
        assert_eq!((findings.replay_mismatch, findings.total_observed), (1, 2995));
        assert_eq!(findings.evidence.len(), 2, "{:?}", findings.evidence);
    }

    /// A lost update keeps the total, so only the replay shows it.
    #[test]
    fn a_lost_update_that_keeps_the_total() {
        let known = [Known::Acknowledged, Known::Acknowledged];
        let findings = check(&known, &[receipt(0, 5), receipt(1, 7)], [993, 1007, 1000]);
        assert_eq!((findings.replay_mismatch, findings.total_observed), (2, 3000));
    }

    #[test]
    fn a_receipt_that_nobody_wrote() {
        assert_eq!(check(&[], &[receipt(0, 0)], [1000; 3]).others, 1);
        assert_eq!(check(&[], &[None], [1000; 3]).others, 1);
    }

    #[test]
    fn a_receipt_in_the_wrong_place() {
        let id = AttemptId { worker: 1, number: 0 };
        for (from, to) in [(2, 1), (0, 3)] {
            let row = Some(Row::Receipt(id, Transfer { from, to, amount: 0 }));
            assert_eq!(check(&[Known::Acknowledged], &[row], [1000; 3]).others, 1, "{from} {to}");
        }
    }

    #[test]
    fn an_account_that_is_gone_or_overdrawn() {
        let records = records(&[]);
        let mut checker = Checker::new(&ledger(), &records, true);
        checker.row(0, Some(Row::Balance(1000)));
        checker.row(2, Some(Row::Balance(1000)));
        let findings = checker.finish();
        assert_eq!((findings.others, findings.total_observed), (1, 2000));
        assert_eq!(check(&[], &[], [-1, 2001, 1000]).others, 1);
    }

    #[test]
    fn without_receipts_only_the_total_counts() {
        let records = records(&[Known::Acknowledged]);
        let mut checker = Checker::new(&ledger(), &records, false);
        for (account, balance) in (0..).zip([500, 1500, 1000]) {
            checker.row(account, Some(Row::Balance(balance)));
        }
        assert_eq!(checker.finish(), GOOD);
    }

    #[test]
    fn evidence_is_bounded_and_counts_are_not() {
        let findings = check(&[Known::Acknowledged; 100], &[], [1000; 3]);
        assert_eq!((findings.acknowledged_lost, findings.evidence.len()), (100, EVIDENCE_MAX));
    }
}
