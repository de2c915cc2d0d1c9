//! Random histories against snapshot isolation as the definition says it: a committed transaction's
//! writes appear at its commit timestamp, all at once; a read at `ts` sees what is at or below it, no
//! matter when it ran; two transactions that overlap in time do not both write one key.
//!
//! Transactions stop anywhere (a crashed client), readers resolve what they left, and old requests are
//! delivered again at any later time.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cribwork_mvcc::memory_view::MemoryView;
use cribwork_mvcc::{
    Assertion, AssertionLevel, CheckTxnStatusParams, ConflictReason, KeyError, KeySpan, LockInfo,
    MvccError, PrewriteMutation, PrewriteOp, PrewriteOutcome, PrewriteParams, ReadItem,
    ReadOptions, Reader, ResolveParams, ScanOptions, StatusAction, TxnStatus, check_txn_status,
    commit, prewrite, resolve_locks, rollback, scan_locks,
};
use cribwork_types::{KeyRange, Timestamp, WriteBatch};
use proptest::prelude::*;

const KEYS: [&str; 4] = ["a", "b", "c", "d"];
const LONG_VALUE_BYTES: usize = 300;

/// One thing that happens; `usize` picks a transaction, modulo how many there are.
#[derive(Clone, Debug)]
enum Step {
    Begin {
        writes: BTreeMap<usize, Op>,
        pushable: bool,
    },
    PrewriteKey(usize, usize),
    Prewrite(usize),
    TakeCommitTs(usize),
    CommitPrimary(usize),
    CommitSecondary(usize, usize),
    Rollback(usize),
    /// A reader who waits for nobody: what it meets alive and cannot push, it kills.
    Read {
        kill: bool,
        back: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    Put,
    PutLong,
    Delete,
    Lock,
}

#[derive(Clone, Debug)]
struct Txn {
    start_ts: Timestamp,
    writes: BTreeMap<usize, Op>,
    pushable: bool,
    prewritten: BTreeSet<usize>,
    commit_ts: Option<Timestamp>,
    committed: Option<Timestamp>,
    rolled_back: bool,
}

impl Txn {
    fn primary(&self) -> Bytes {
        Bytes::from(KEYS[*self.writes.keys().next().unwrap()])
    }

    fn value(&self, key: usize) -> Option<Bytes> {
        match self.writes[&key] {
            Op::Put => Some(Bytes::from(format!("{}", self.start_ts))),
            Op::PutLong => {
                let unit = format!("{}.", self.start_ts);
                Some(Bytes::from(unit.repeat(LONG_VALUE_BYTES / unit.len() + 1)))
            }
            Op::Delete | Op::Lock => None,
        }
    }

    fn prewrite_params(&self, keys: &[usize]) -> PrewriteParams {
        let mutation = |key: &usize| PrewriteMutation {
            op: match self.writes[key] {
                Op::Put | Op::PutLong => PrewriteOp::Put,
                Op::Delete => PrewriteOp::Delete,
                Op::Lock => PrewriteOp::Lock,
            },
            key: Bytes::from(KEYS[*key]),
            value: self.value(*key).unwrap_or_default(),
            assertion: Assertion::None,
        };
        PrewriteParams {
            mutations: keys.iter().map(mutation).collect(),
            primary: self.primary(),
            start_ts: self.start_ts,
            lock_ttl_ms: 1,
            txn_size: self.writes.len() as u64,
            min_commit_ts: if self.pushable { self.start_ts.next() } else { Timestamp::ZERO },
            assertion_level: AssertionLevel::Off,
            skip_constraint_check: false,
        }
    }
}

struct World {
    view: MemoryView,
    last_ts: u64,
    txns: Vec<Txn>,
    /// Snapshot, and what was seen of every key.
    reads: Vec<(Timestamp, BTreeMap<Bytes, Bytes>)>,
}

impl World {
    fn tso(&mut self) -> Timestamp {
        self.last_ts += 1;
        Timestamp(self.last_ts)
    }

    /// Applies what `evaluate` returns, twice: the second time must change nothing.
    fn run<T>(
        &mut self,
        evaluate: impl Fn(&MemoryView) -> Result<(WriteBatch, T), MvccError>,
    ) -> Result<T, KeyError> {
        let (batch, answer) = match evaluate(&self.view) {
            Ok(done) => done,
            Err(MvccError::Key(error)) => return Err(*error),
            Err(error) => panic!("{error}"),
        };
        self.view.apply(&batch);
        let once = self.view.clone();
        let (again, _) = evaluate(&self.view).expect("a repeat succeeds");
        self.view.apply(&again);
        assert!(self.view == once, "a repeat changed something");
        Ok(answer)
    }

    fn step(&mut self, step: &Step) {
        let count = self.txns.len();
        match step {
            Step::Begin { writes, pushable } => {
                let (writes, pushable, start_ts) = (writes.clone(), *pushable, self.tso());
                self.txns.push(Txn {
                    start_ts,
                    writes,
                    pushable,
                    prewritten: BTreeSet::new(),
                    commit_ts: None,
                    committed: None,
                    rolled_back: false,
                });
            }
            Step::Read { kill, back } => {
                let ts = Timestamp(self.last_ts.saturating_sub(*back));
                self.read(ts, *kill);
            }
            _ if count == 0 => {}
            Step::PrewriteKey(txn, key) => {
                let txn = txn % count;
                let keys: Vec<usize> = self.txns[txn].writes.keys().copied().collect();
                self.prewrite(txn, &[keys[key % keys.len()]]);
            }
            Step::Prewrite(txn) => {
                let keys: Vec<usize> = self.txns[txn % count].writes.keys().copied().collect();
                self.prewrite(txn % count, &keys);
            }
            Step::TakeCommitTs(txn) => {
                let ready = &self.txns[txn % count];
                if ready.prewritten.len() == ready.writes.len() {
                    self.txns[txn % count].commit_ts = Some(self.tso());
                }
            }
            Step::CommitPrimary(txn) => self.commit_primary(txn % count),
            Step::CommitSecondary(txn, key) => self.commit_secondary(txn % count, *key),
            Step::Rollback(txn) => self.rollback(txn % count),
        }
    }

    fn prewrite(&mut self, txn: usize, keys: &[usize]) {
        let state = self.txns[txn].clone();
        let params = state.prewrite_params(keys);
        let outcome = match prewrite(&self.view, &params).unwrap() {
            PrewriteOutcome::Refused(errors) => {
                assert!(!errors.is_empty());
                errors.iter().for_each(|error| self.justify(&state, error));
                return;
            }
            PrewriteOutcome::Done { committed, .. } => {
                self.run(|view| match prewrite(view, &params)? {
                    PrewriteOutcome::Done { batch, .. } => Ok((batch, committed)),
                    PrewriteOutcome::Refused(errors) => panic!("{errors:?}"),
                })
            }
        };
        if let Some(commit_ts) = outcome.unwrap() {
            assert_eq!(state.committed, Some(commit_ts));
        }
        self.txns[txn].prewritten.extend(keys);
    }

    /// A prewrite may be refused only for a reason that is true.
    fn justify(&self, txn: &Txn, error: &KeyError) {
        match error {
            KeyError::Locked(info) => assert_ne!(info.lock_version, txn.start_ts),
            KeyError::Conflict(conflict) if conflict.reason == ConflictReason::SelfRolledBack => {
                assert!(txn.rolled_back && txn.committed.is_none());
            }
            KeyError::Conflict(conflict) => {
                let winner = self.txns.iter().find(|other| other.start_ts == conflict.conflict_ts);
                let winner = winner.expect("the winner exists");
                assert_eq!(winner.committed, Some(conflict.conflict_commit_ts));
                assert!(conflict.conflict_commit_ts >= txn.start_ts);
                assert!(winner.writes.keys().any(|key| KEYS[*key] == conflict.key));
            }
            other => panic!("{other}"),
        }
    }

    fn commit_primary(&mut self, txn: usize) {
        let state = self.txns[txn].clone();
        let Some(commit_ts) = state.commit_ts else {
            return;
        };
        let keys = [state.primary()];
        let result = self.run(|view| {
            let outcome = commit(view, &keys, state.start_ts, commit_ts)?;
            Ok((outcome.batch, outcome.commit_ts))
        });
        match result {
            Ok(at) => {
                assert!(!state.rolled_back, "committed after a rollback");
                assert!(state.committed.is_none_or(|before| before == at), "committed twice");
                self.txns[txn].committed = Some(at);
            }
            Err(KeyError::CommitTsExpired { min_commit_ts, .. }) => {
                assert!(state.pushable && min_commit_ts > commit_ts);
                let fresh = self.tso();
                assert!(fresh >= min_commit_ts, "raised above every snapshot");
                self.txns[txn].commit_ts = Some(fresh);
            }
            Err(KeyError::TxnLockNotFound { .. }) => assert!(state.rolled_back),
            Err(other) => panic!("{other}"),
        }
    }

    fn commit_secondary(&mut self, txn: usize, key: usize) {
        let state = self.txns[txn].clone();
        let Some(commit_ts) = state.committed else {
            return;
        };
        let keys: Vec<usize> = state.writes.keys().copied().collect();
        let keys = [Bytes::from(KEYS[keys[key % keys.len()]])];
        self.run(|view| Ok((commit(view, &keys, state.start_ts, commit_ts)?.batch, ()))).unwrap();
    }

    fn rollback(&mut self, txn: usize) {
        let state = self.txns[txn].clone();
        // The client gives up on its own transaction only before it asked for the commit.
        if state.commit_ts.is_some() && state.committed.is_none() && !state.rolled_back {
            return;
        }
        let keys: Vec<Bytes> = state.writes.keys().map(|key| Bytes::from(KEYS[*key])).collect();
        match self.run(|view| Ok((rollback(view, &keys, state.start_ts)?, ()))) {
            Ok(()) => {
                assert!(state.committed.is_none(), "rolled back after the commit");
                self.txns[txn].rolled_back = true;
            }
            Err(KeyError::Abort(_)) => assert!(state.committed.is_some()),
            Err(other) => panic!("{other}"),
        }
    }

    /// Scans at `ts`, resolving locks; gives up at a lock that is alive unless it may kill.
    fn read(&mut self, ts: Timestamp, kill: bool) {
        let mut options = ReadOptions::default();
        let items = loop {
            let items = self.scan(ts, false, &options);
            let locked = items.iter().find_map(|item| match item {
                ReadItem::Locked(info) => Some(info.clone()),
                ReadItem::Pair(..) => None,
            });
            let Some(info) = locked else { break items };
            match self.resolve(&info, ts, kill) {
                Some(true) => options.resolved_locks.push(info.lock_version),
                Some(false) => {}
                None => return,
            }
        };
        let mut reversed = self.scan(ts, true, &options);
        reversed.reverse();
        assert_eq!(items, reversed, "reverse scan differs");
        let reader = Reader::new(&self.view);
        let keys: Vec<Bytes> = KEYS.iter().map(|key| Bytes::from(*key)).collect();
        assert_eq!(items, reader.batch_get(&keys, ts, &options).unwrap(), "gets differ");
        let pair = |item| match item {
            ReadItem::Pair(key, value) => (key, value),
            ReadItem::Locked(info) => panic!("{info:?}"),
        };
        self.reads.push((ts, items.into_iter().map(pair).collect()));
    }

    fn scan(&self, ts: Timestamp, reverse: bool, options: &ReadOptions) -> Vec<ReadItem> {
        let scan = ScanOptions { ts, limit: 100, key_only: false, reverse };
        let span = KeySpan::of(&KeyRange::all());
        Reader::new(&self.view).scan(&span, &scan, options).unwrap()
    }

    /// Settles a lock through its primary. True: it may be passed over; none: it is alive.
    fn resolve(&mut self, info: &LockInfo, caller: Timestamp, kill: bool) -> Option<bool> {
        let params = CheckTxnStatusParams {
            primary: info.primary.clone(),
            lock_ts: info.lock_version,
            caller_start_ts: caller,
            current_ts: if kill { Timestamp::MAX } else { Timestamp::ZERO },
            rollback_if_not_exist: kill,
            force_sync_commit: false,
            resolving_pessimistic_lock: false,
            verify_is_primary: true,
        };
        let result = self.run(|view| {
            let outcome = check_txn_status(view, &params)?;
            Ok((outcome.batch, (outcome.status, outcome.action)))
        });
        let owner = self.txns.iter_mut().find(|txn| txn.start_ts == info.lock_version).unwrap();
        let fate = match result {
            Ok((TxnStatus::Committed { commit_ts }, _)) => {
                assert_eq!(owner.committed, Some(commit_ts));
                Some(commit_ts)
            }
            Ok((TxnStatus::RolledBack, _)) => {
                assert_eq!(owner.committed, None);
                owner.rolled_back = true;
                None
            }
            Ok((TxnStatus::Alive(_), StatusAction::MinCommitTsPushed)) => return Some(true),
            Ok((TxnStatus::Alive(_), _)) => return None,
            Err(KeyError::TxnNotFound { .. }) if !kill => return None,
            Err(other) => panic!("{other}"),
        };
        let txns = BTreeMap::from([(info.lock_version, fate)]);
        let span = KeySpan::of(&KeyRange::all());
        self.run(|view| {
            let (keys, resume) = (None, None);
            let params = ResolveParams { span: &span, txns: &txns, keys, locks_max: 100, resume };
            Ok((resolve_locks(view, &params)?.batch, ()))
        })
        .unwrap();
        Some(false)
    }

    /// What a read at `ts` must see.
    fn snapshot(&self, ts: Timestamp) -> BTreeMap<Bytes, Bytes> {
        let mut committed: Vec<&Txn> =
            self.txns.iter().filter(|txn| txn.committed.is_some_and(|at| at <= ts)).collect();
        committed.sort_by_key(|txn| txn.committed);
        let mut state = BTreeMap::new();
        for txn in committed {
            for (key, op) in &txn.writes {
                match txn.value(*key) {
                    Some(value) => {
                        state.insert(Bytes::from(KEYS[*key]), value);
                    }
                    None if *op == Op::Delete => {
                        state.remove(KEYS[*key].as_bytes());
                    }
                    None => {}
                }
            }
        }
        state
    }

    /// Settles everything, then compares all reads with the definition.
    fn finish(mut self) {
        let now = self.tso();
        self.read(now, true);
        for info in scan_locks(&self.view, &KeySpan::of(&KeyRange::all()), now, 100).unwrap() {
            self.resolve(&info, Timestamp::ZERO, true);
        }
        self.read(Timestamp(self.last_ts), false);
        self.read(Timestamp::MAX, false);
        let left = scan_locks(&self.view, &KeySpan::of(&KeyRange::all()), Timestamp::MAX, 100);
        assert_eq!(left.unwrap(), [], "locks left behind");
        for (ts, seen) in &self.reads {
            assert_eq!(*seen, self.snapshot(*ts), "read at {ts}");
        }
        for (at, one) in self.txns.iter().enumerate() {
            for other in &self.txns[at + 1..] {
                let (Some(one_end), Some(other_end)) = (one.committed, other.committed) else {
                    continue;
                };
                let apart = one_end < other.start_ts || other_end < one.start_ts;
                let share = one.writes.keys().any(|key| other.writes.contains_key(key));
                assert!(apart || !share, "{} and {} overlap", one.start_ts, other.start_ts);
            }
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let op = prop_oneof![
        3 => Just(Op::Put), 1 => Just(Op::PutLong), 1 => Just(Op::Delete), 1 => Just(Op::Lock)
    ];
    let writes = proptest::collection::btree_map(0..KEYS.len(), op, 1..4);
    let txn = || 0usize..64;
    let step = prop_oneof![
        3 => (writes, any::<bool>())
            .prop_map(|(writes, pushable)| Step::Begin { writes, pushable }),
        2 => (txn(), 0usize..4).prop_map(|(txn, key)| Step::PrewriteKey(txn, key)),
        5 => txn().prop_map(Step::Prewrite),
        4 => txn().prop_map(Step::TakeCommitTs),
        4 => txn().prop_map(Step::CommitPrimary),
        3 => (txn(), 0usize..4).prop_map(|(txn, key)| Step::CommitSecondary(txn, key)),
        1 => txn().prop_map(Step::Rollback),
        4 => (any::<bool>(), 0u64..4).prop_map(|(kill, back)| Step::Read { kill, back }),
    ];
    proptest::collection::vec(step, 1..80)
}

/// 600 histories, or more if `PROPTEST_CASES` says so.
fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: config.cases.max(600), ..config }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn histories_are_snapshot_isolated(steps in steps()) {
        let mut world =
            World { view: MemoryView::new(), last_ts: 0, txns: Vec::new(), reads: Vec::new() };
        for step in &steps {
            world.step(step);
        }
        world.finish();
    }
}
