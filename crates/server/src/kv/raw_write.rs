//! Writes of the raw API.
//!
//! A put or a delete looks at nothing: it takes no latch and no snapshot, and the last one in log
//! order wins. Those marked `for_cas` wait for each other and for compare-and-swaps of the same keys;
//! mixing marked and unmarked writes of a key gives up that order, as it does in TiKV.

use std::sync::Arc;

use bytes::Bytes;
use cribwork_mvcc::raw::{CasParams, RawValue, expiry_ms, raw_cas};
use cribwork_proto::kvrpcpb::{
    RawBatchDeleteRequest, RawBatchDeleteResponse, RawBatchPutRequest, RawBatchPutResponse,
    RawCasRequest, RawCasResponse, RawDeleteRangeRequest, RawDeleteRangeResponse, RawDeleteRequest,
    RawDeleteResponse, RawPutRequest, RawPutResponse,
};
use cribwork_types::{Cf, KeyRange, WriteBatch};

use crate::kv::call::{Call, Command};
use crate::kv::checks;
use crate::kv::context::{raw_key, raw_span};
use crate::kv::core::{Core, Locking};
use crate::kv::failure::Failure;
use crate::kv::latches::slot;

fn locking<'k>(for_cas: bool, cf: Cf, keys: impl Iterator<Item = &'k Bytes>) -> Locking {
    match for_cas {
        true => Locking::RawKeys(keys.map(|key| slot(cf, key)).collect()),
        false => Locking::Nothing,
    }
}

fn put(batch: &mut WriteBatch, cf: Cf, key: Bytes, value: Bytes, expires_at_ms: Option<u64>) {
    batch.put(cf, key, RawValue { expires_at_ms, value }.encode());
}

impl Command for RawPutRequest {
    fn must_finish(&self) -> bool {
        self.for_cas
    }

    async fn run(self, core: &Arc<Core>) -> Result<RawPutResponse, Failure> {
        checks::key(&self.key)?;
        checks::value(&self.value)?;
        let cf = checks::cf(&self.cf)?;
        let locking = locking(self.for_cas, cf, std::iter::once(&self.key));
        let Self { context, key, value, ttl, .. } = self;
        let write = core.write_blind(context.as_ref(), locking, |range| {
            raw_key(range, &key)?;
            let mut batch = WriteBatch::new();
            put(&mut batch, cf, key, value, expiry_ms(core.clock.now_ms(), ttl));
            Ok(batch)
        });
        write.await?;
        Ok(RawPutResponse::default())
    }
}

/// The time to live of each pair: one for each, one for all, or the old single field.
fn ttl_of(request: &RawBatchPutRequest) -> Result<impl Fn(usize) -> u64 + Send + use<>, Failure> {
    let ttls = match request.ttls.len() {
        0 => vec![request.ttl],
        count if count == 1 || count == request.pairs.len() => request.ttls.clone(),
        count => {
            let pairs = request.pairs.len();
            return Err(Failure::Refused(format!("{count} ttls for {pairs} pairs")));
        }
    };
    Ok(move |index| ttls.get(index).or(ttls.first()).copied().unwrap_or_default())
}

impl Command for RawBatchPutRequest {
    fn must_finish(&self) -> bool {
        self.for_cas
    }

    async fn run(self, core: &Arc<Core>) -> Result<RawBatchPutResponse, Failure> {
        checks::count(self.pairs.len())?;
        for pair in &self.pairs {
            checks::key(&pair.key)?;
            checks::value(&pair.value)?;
        }
        let cf = checks::cf(&self.cf)?;
        let ttl = ttl_of(&self)?;
        let locking = locking(self.for_cas, cf, self.pairs.iter().map(|pair| &pair.key));
        let Self { context, pairs, .. } = self;
        let write = core.write_blind(context.as_ref(), locking, |range| {
            let now_ms = core.clock.now_ms();
            let mut batch = WriteBatch::new();
            for (index, pair) in pairs.into_iter().enumerate() {
                raw_key(range, &pair.key)?;
                put(&mut batch, cf, pair.key, pair.value, expiry_ms(now_ms, ttl(index)));
            }
            Ok(batch)
        });
        write.await?;
        Ok(RawBatchPutResponse::default())
    }
}

async fn delete(
    core: &Arc<Core>,
    request: &impl Call,
    for_cas: bool,
    cf: &str,
    keys: &[Bytes],
) -> Result<(), Failure> {
    checks::keys(keys)?;
    let cf = checks::cf(cf)?;
    let locking = locking(for_cas, cf, keys.iter());
    let write = core.write_blind(request.context(), locking, |range| {
        let mut batch = WriteBatch::new();
        for key in keys {
            raw_key(range, key)?;
            batch.delete(cf, key.clone());
        }
        Ok(batch)
    });
    write.await
}

impl Command for RawDeleteRequest {
    fn must_finish(&self) -> bool {
        self.for_cas
    }

    async fn run(self, core: &Arc<Core>) -> Result<RawDeleteResponse, Failure> {
        let key = std::slice::from_ref(&self.key);
        delete(core, &self, self.for_cas, &self.cf, key).await?;
        Ok(RawDeleteResponse::default())
    }
}

impl Command for RawBatchDeleteRequest {
    fn must_finish(&self) -> bool {
        self.for_cas
    }

    async fn run(self, core: &Arc<Core>) -> Result<RawBatchDeleteResponse, Failure> {
        delete(core, &self, self.for_cas, &self.cf, &self.keys).await?;
        Ok(RawBatchDeleteResponse::default())
    }
}

impl Command for RawDeleteRangeRequest {
    async fn run(self, core: &Arc<Core>) -> Result<RawDeleteRangeResponse, Failure> {
        checks::key(&self.start_key)?;
        checks::key(&self.end_key)?;
        let cf = checks::cf(&self.cf)?;
        let keys = KeyRange { start: self.start_key, end: self.end_key };
        let write = core.write_blind(self.context.as_ref(), Locking::Nothing, |range| {
            let mut batch = WriteBatch::new();
            let span = raw_span(range, &keys);
            if !span.is_empty() {
                batch.delete_range(cf, span);
            }
            Ok(batch)
        });
        write.await?;
        Ok(RawDeleteRangeResponse::default())
    }
}

impl Command for RawCasRequest {
    fn must_finish(&self) -> bool {
        true
    }

    async fn run(self, core: &Arc<Core>) -> Result<RawCasResponse, Failure> {
        checks::key(&self.key)?;
        checks::value(&self.value)?;
        let cf = checks::cf(&self.cf)?;
        let locking = locking(true, cf, std::iter::once(&self.key));
        let Self { context, key, value, previous_not_exist, previous_value, ttl, delete, .. } =
            self;
        let write = core.write(context.as_ref(), locking, |at| {
            raw_key(at.range, &key)?;
            let now_ms = core.clock.now_ms();
            let params = CasParams {
                cf,
                key,
                expected: (!previous_not_exist).then_some(previous_value),
                value: (!delete).then_some(value),
                expires_at_ms: expiry_ms(now_ms, ttl),
                now_ms,
            };
            let outcome = raw_cas(&at.view, &params)?;
            let answer = RawCasResponse {
                succeed: outcome.succeeded,
                previous_not_exist: outcome.previous.is_none(),
                previous_value: outcome.previous.unwrap_or_default(),
                ..Default::default()
            };
            Ok((outcome.batch, answer))
        });
        write.await
    }
}
