//! Finishing the locks that transactions left behind.
//!
//! Which keys are concerned is known only after a look at the range. So each round reads first, then
//! latches the keys that it found, and evaluates again: whatever came in between is seen then.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use cribwork_mvcc::{MvccError, ResolveParams, resolve_locks};
use cribwork_proto::kvrpcpb::{Context, ResolveLockRequest, ResolveLockResponse};
use cribwork_types::{Cf, KeyRange, Mutation, Timestamp, WriteBatch, key};
use tokio::task::yield_now;

use crate::kv::call::Command;
use crate::kv::checks;
use crate::kv::context::txn_span;
use crate::kv::core::Core;
use crate::kv::failure::Failure;
use crate::kv::txn_write::{all_inside, txn_keys};

/// Locks finished by one proposal: with the longest keys they still fit into an entry.
const LOCKS_PER_PROPOSAL: usize = 256;

type Txns = BTreeMap<Timestamp, Option<Timestamp>>;

/// A commit timestamp on the wire: zero for rolled back.
fn fate(commit_ts: u64) -> Option<Timestamp> {
    (commit_ts != 0).then_some(Timestamp(commit_ts))
}

fn txns(request: &ResolveLockRequest) -> Txns {
    match request.txn_infos.is_empty() {
        true => Txns::from([(Timestamp(request.start_version), fate(request.commit_version))]),
        false => {
            request.txn_infos.iter().map(|info| (Timestamp(info.txn), fate(info.status))).collect()
        }
    }
}

impl Command for ResolveLockRequest {
    fn must_finish(&self) -> bool {
        true
    }

    async fn run(self, core: &Arc<Core>) -> Result<ResolveLockResponse, Failure> {
        checks::keys(&self.keys)?;
        checks::count(self.txn_infos.len())?;
        let (txns, context) = (txns(&self), self.context.as_ref());
        for keys in self.keys.chunks(LOCKS_PER_PROPOSAL) {
            finish(core, context, &txns, keys).await?;
        }
        if self.keys.is_empty() {
            let mut resume = None;
            loop {
                let (keys, next) = look(core, context, &txns, resume).await?;
                if !keys.is_empty() {
                    finish(core, context, &txns, &keys).await?;
                }
                if next.is_none() {
                    break;
                }
                resume = next;
                yield_now().await;
            }
        }
        Ok(ResolveLockResponse::default())
    }
}

/// Keys (plain) that locks of `txns` are on, and where to go on looking.
async fn look(
    core: &Arc<Core>,
    context: Option<&Context>,
    txns: &Txns,
    resume: Option<Bytes>,
) -> Result<(Vec<Bytes>, Option<Bytes>), Failure> {
    let target = core.target(context)?;
    let handle = core.read(&target, Timestamp::ZERO).await?;
    let at = core.open(&target, &handle)?;
    let span = txn_span(at.range, &KeyRange::all());
    let locks_max = LOCKS_PER_PROPOSAL;
    let params = ResolveParams { span: &span, txns, keys: None, locks_max, resume };
    let found = resolve_locks(&at.view, &params)?;
    Ok((keys_of(&found.batch)?, found.resume))
}

/// Each finished lock is deleted, which names its key.
fn keys_of(batch: &WriteBatch) -> Result<Vec<Bytes>, Failure> {
    let locks = batch.mutations.iter().filter_map(|mutation| match mutation {
        Mutation::Delete { cf: Cf::Lock, key } => Some(key),
        _ => None,
    });
    let plain = |encoded: &Bytes| key::decode(encoded).map(Bytes::from).map_err(MvccError::from);
    Ok(locks.map(plain).collect::<Result<_, _>>()?)
}

/// Finishes the locks of `txns` on `keys` (plain), at most as many as one proposal may hold.
async fn finish(
    core: &Arc<Core>,
    context: Option<&Context>,
    txns: &Txns,
    keys: &[Bytes],
) -> Result<(), Failure> {
    let write = core.write(context, txn_keys(keys.iter()), |at| {
        all_inside(at.range, keys)?;
        let span = txn_span(at.range, &KeyRange::all());
        let (keys, locks_max) = (Some(keys), LOCKS_PER_PROPOSAL);
        let params = ResolveParams { span: &span, txns, keys, locks_max, resume: None };
        Ok((resolve_locks(&at.view, &params)?.batch, ()))
    });
    write.await
}
