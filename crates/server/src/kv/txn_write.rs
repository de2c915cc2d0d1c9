//! The writes of optimistic transactions.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use cribwork_mvcc::{
    Assertion, AssertionLevel, CheckTxnStatusParams, PrewriteMutation, PrewriteOp, PrewriteOutcome,
    PrewriteParams, StatusOutcome, TxnStatus, check_txn_status, cleanup, commit, destroy_range,
    heartbeat, prewrite, rollback,
};
use cribwork_proto::kvrpcpb::{
    self, BatchRollbackRequest, BatchRollbackResponse, CheckTxnStatusRequest,
    CheckTxnStatusResponse, CleanupRequest, CleanupResponse, CommitRequest, CommitResponse,
    DeleteRangeRequest, DeleteRangeResponse, Mutation, Op, PrewriteRequest, PrewriteResponse,
    TxnHeartBeatRequest, TxnHeartBeatResponse,
};
use cribwork_types::{Cf, KeyRange, RangeDescriptor, Timestamp, WriteBatch};

use crate::kv::call::Command;
use crate::kv::checks;
use crate::kv::context::{txn_key, txn_span};
use crate::kv::core::{Core, Locking};
use crate::kv::failure::Failure;
use crate::kv::key_error::{key_error, lock_info};
use crate::kv::latches::slot;

/// Latches on plain keys of transactions.
pub(crate) fn txn_keys<'k>(keys: impl Iterator<Item = &'k Bytes>) -> Locking {
    Locking::TxnKeys(keys.map(|key| slot(Cf::Lock, key)).collect())
}

/// Checks that all keys lie in the range.
pub(crate) fn all_inside(range: &RangeDescriptor, keys: &[Bytes]) -> Result<(), Failure> {
    keys.iter().try_for_each(|key| txn_key(range, key))
}

fn check_prewrite(request: &PrewriteRequest) -> Result<(), Failure> {
    checks::without("use_async_commit", request.use_async_commit)?;
    checks::without("try_one_pc", request.try_one_pc)?;
    checks::without("for_update_ts", request.for_update_ts != 0)?;
    let pessimistic = request.pessimistic_actions.iter().any(|action| *action != 0);
    checks::without("pessimistic_actions", pessimistic)?;
    checks::count(request.mutations.len())?;
    checks::key(&request.primary_lock)?;
    let mut seen = HashSet::with_capacity(request.mutations.len());
    for mutation in &request.mutations {
        checks::key(&mutation.key)?;
        checks::value(&mutation.value)?;
        if !seen.insert(&mutation.key) {
            let key = mutation.key.escape_ascii();
            return Err(Failure::Refused(format!("key {key} comes twice in one prewrite")));
        }
    }
    Ok(())
}

fn mutation(wire: Mutation) -> Result<PrewriteMutation, Failure> {
    let op = match Op::try_from(wire.op) {
        Ok(Op::Put) => PrewriteOp::Put,
        Ok(Op::Del) => PrewriteOp::Delete,
        Ok(Op::Lock) => PrewriteOp::Lock,
        Ok(Op::Insert) => PrewriteOp::Insert,
        Ok(Op::CheckNotExists) => PrewriteOp::CheckNotExists,
        Ok(other) => {
            return checks::unsupported(&format!("op {} in a prewrite", other.as_str_name()));
        }
        Err(_) => return checks::unsupported(&format!("op {} in a prewrite", wire.op)),
    };
    let assertion = match kvrpcpb::Assertion::try_from(wire.assertion) {
        Ok(kvrpcpb::Assertion::Exist) => Assertion::Exist,
        Ok(kvrpcpb::Assertion::NotExist) => Assertion::NotExist,
        Ok(kvrpcpb::Assertion::None) => Assertion::None,
        Err(_) => return checks::unsupported(&format!("assertion {}", wire.assertion)),
    };
    Ok(PrewriteMutation { op, key: wire.key, value: wire.value, assertion })
}

fn prewrite_params(request: PrewriteRequest) -> Result<PrewriteParams, Failure> {
    let assertion_level = match kvrpcpb::AssertionLevel::try_from(request.assertion_level) {
        Ok(kvrpcpb::AssertionLevel::Off) => AssertionLevel::Off,
        Ok(kvrpcpb::AssertionLevel::Fast) => AssertionLevel::Fast,
        Ok(kvrpcpb::AssertionLevel::Strict) => AssertionLevel::Strict,
        Err(_) => {
            return checks::unsupported(&format!("assertion level {}", request.assertion_level));
        }
    };
    Ok(PrewriteParams {
        mutations: request.mutations.into_iter().map(mutation).collect::<Result<_, _>>()?,
        primary: request.primary_lock,
        start_ts: Timestamp(request.start_version),
        lock_ttl_ms: request.lock_ttl,
        txn_size: request.txn_size,
        min_commit_ts: Timestamp(request.min_commit_ts),
        assertion_level,
        skip_constraint_check: request.skip_constraint_check,
    })
}

fn prewrite_answer(outcome: PrewriteOutcome) -> (WriteBatch, PrewriteResponse) {
    let mut answer = PrewriteResponse::default();
    match outcome {
        PrewriteOutcome::Done { batch, min_commit_ts, committed } => {
            answer.min_commit_ts = committed.unwrap_or(min_commit_ts).get();
            (batch, answer)
        }
        PrewriteOutcome::Refused(errors) => {
            answer.errors = errors.into_iter().map(key_error).collect();
            (WriteBatch::new(), answer)
        }
    }
}

impl Command for PrewriteRequest {
    fn must_finish(&self) -> bool {
        true
    }

    async fn run(mut self, core: &Arc<Core>) -> Result<PrewriteResponse, Failure> {
        check_prewrite(&self)?;
        let context = self.context.take();
        let params = prewrite_params(self)?;
        core.check_written_ts(params.start_ts)?;
        core.check_written_ts(params.min_commit_ts)?;
        let locking = txn_keys(params.mutations.iter().map(|mutation| &mutation.key));
        let write = core.write(context.as_ref(), locking, |at| {
            for mutation in &params.mutations {
                txn_key(at.range, &mutation.key)?;
            }
            Ok(prewrite_answer(prewrite(&at.view, &params)?))
        });
        write.await
    }
}

impl Command for CommitRequest {
    fn must_finish(&self) -> bool {
        true
    }

    async fn run(self, core: &Arc<Core>) -> Result<CommitResponse, Failure> {
        checks::keys(&self.keys)?;
        let (start_ts, commit_ts) = (Timestamp(self.start_version), Timestamp(self.commit_version));
        core.check_written_ts(commit_ts)?;
        let mut wrote = false;
        let write = core.write(self.context.as_ref(), txn_keys(self.keys.iter()), |at| {
            all_inside(at.range, &self.keys)?;
            let outcome = commit(&at.view, &self.keys, start_ts, commit_ts)?;
            wrote = !outcome.batch.is_empty();
            let commit_version = outcome.commit_ts.get();
            Ok((outcome.batch, CommitResponse { commit_version, ..Default::default() }))
        });
        let answer = write.await?;
        if wrote {
            core.metrics.commits.inc();
        }
        Ok(answer)
    }
}

impl Command for CleanupRequest {
    fn must_finish(&self) -> bool {
        true
    }

    async fn run(self, core: &Arc<Core>) -> Result<CleanupResponse, Failure> {
        checks::key(&self.key)?;
        let (start_ts, now) = (Timestamp(self.start_version), Timestamp(self.current_ts));
        core.check_written_ts(start_ts)?;
        core.check_ts(now)?;
        let locking = txn_keys(std::iter::once(&self.key));
        let write = core.write(self.context.as_ref(), locking, |at| {
            txn_key(at.range, &self.key)?;
            let outcome = cleanup(&at.view, &self.key, start_ts, now)?;
            let commit_version = outcome.committed.unwrap_or_default().get();
            Ok((outcome.batch, CleanupResponse { commit_version, ..Default::default() }))
        });
        write.await
    }
}

impl Command for BatchRollbackRequest {
    fn must_finish(&self) -> bool {
        true
    }

    async fn run(self, core: &Arc<Core>) -> Result<BatchRollbackResponse, Failure> {
        checks::keys(&self.keys)?;
        let start_ts = Timestamp(self.start_version);
        core.check_written_ts(start_ts)?;
        let write = core.write(self.context.as_ref(), txn_keys(self.keys.iter()), |at| {
            all_inside(at.range, &self.keys)?;
            let batch = rollback(&at.view, &self.keys, start_ts)?;
            Ok((batch, BatchRollbackResponse::default()))
        });
        write.await
    }
}

/// Committed, rolled back or alive: clients know no fourth shape.
fn status_answer(outcome: StatusOutcome) -> (WriteBatch, CheckTxnStatusResponse) {
    let mut answer =
        CheckTxnStatusResponse { action: outcome.action.number(), ..Default::default() };
    match outcome.status {
        TxnStatus::Committed { commit_ts } => answer.commit_version = commit_ts.get(),
        TxnStatus::RolledBack => {}
        TxnStatus::Alive(lock) => {
            answer.lock_ttl = lock.ttl_ms;
            answer.lock_info = Some(lock_info(*lock));
        }
    }
    (outcome.batch, answer)
}

impl Command for CheckTxnStatusRequest {
    fn must_finish(&self) -> bool {
        true
    }

    async fn run(self, core: &Arc<Core>) -> Result<CheckTxnStatusResponse, Failure> {
        checks::key(&self.primary_key)?;
        let locking = txn_keys(std::iter::once(&self.primary_key));
        let params = CheckTxnStatusParams {
            primary: self.primary_key,
            lock_ts: Timestamp(self.lock_ts),
            caller_start_ts: Timestamp(self.caller_start_ts),
            current_ts: Timestamp(self.current_ts),
            rollback_if_not_exist: self.rollback_if_not_exist,
            force_sync_commit: self.force_sync_commit,
            resolving_pessimistic_lock: self.resolving_pessimistic_lock,
            verify_is_primary: self.verify_is_primary,
        };
        core.check_written_ts(params.lock_ts)?;
        core.check_ts(params.caller_start_ts)?;
        core.check_ts(params.current_ts)?;
        // A pushed lock commits above the caller's snapshot, which so counts as read.
        core.raise_max_ts(params.caller_start_ts);
        let write = core.write(self.context.as_ref(), locking, |at| {
            txn_key(at.range, &params.primary)?;
            Ok(status_answer(check_txn_status(&at.view, &params)?))
        });
        write.await
    }
}

impl Command for TxnHeartBeatRequest {
    fn must_finish(&self) -> bool {
        true
    }

    async fn run(self, core: &Arc<Core>) -> Result<TxnHeartBeatResponse, Failure> {
        checks::key(&self.primary_lock)?;
        let start_ts = Timestamp(self.start_version);
        let locking = txn_keys(std::iter::once(&self.primary_lock));
        let write = core.write(self.context.as_ref(), locking, |at| {
            txn_key(at.range, &self.primary_lock)?;
            let outcome = heartbeat(&at.view, &self.primary_lock, start_ts, self.advise_lock_ttl)?;
            let lock_ttl = outcome.ttl_ms;
            Ok((outcome.batch, TxnHeartBeatResponse { lock_ttl, ..Default::default() }))
        });
        write.await
    }
}

impl Command for DeleteRangeRequest {
    fn must_finish(&self) -> bool {
        true
    }

    async fn run(self, core: &Arc<Core>) -> Result<DeleteRangeResponse, Failure> {
        checks::without("notify_only", self.notify_only)?;
        checks::key(&self.start_key)?;
        checks::key(&self.end_key)?;
        let keys = KeyRange { start: self.start_key, end: self.end_key };
        let write = core.write_blind(self.context.as_ref(), Locking::Span, |range| {
            Ok(destroy_range(&txn_span(range, &keys)))
        });
        write.await?;
        Ok(DeleteRangeResponse::default())
    }
}
