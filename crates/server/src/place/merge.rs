//! Merging two ranges: a transaction of their groups, of which placement is the coordinator.
//!
//! A row is written before anybody is asked for anything, and says how far the merge has come. Whoever leads
//! placement drives all rows that there are, so a merge that was begun ends, one way or the other, whichever
//! node dies. What is asked of ranges and stores may be repeated. The decision is the row's change
//! from *preparing* to *decided* or *abandoned*, which one leader makes once; see
//! `cribwork_multiraft::merge` for what the ranges promise.

use std::collections::BTreeSet;
use std::time::Duration;

use cribwork_placement::IdKind;
use cribwork_proto::cribwork::admin::{MergeStepKind, MergeStepRequest};
use cribwork_types::{CodedError, RangeDescriptor, RangeId, RuntimeExt, StoreId};
use futures::future::try_join_all;
use tokio::sync::oneshot;

use super::Place;
use super::forward::forwarded;
use super::lead::Lead;
use super::rows::{self, MergeRow, MergeState};
use crate::ServerError;

/// How long the left range may take to promise: it goes on serving.
const PIN_PATIENCE: Duration = Duration::from_secs(2);
/// How long the right range may be frozen before it is decided that there is no merge.
const FREEZE_PATIENCE: Duration = Duration::from_millis(600);
/// How long one question may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Ranges that together take more are not merged: one replica of it has to fit into a snapshot.
const MERGED_BYTES_MAX: u64 = 256 << 20;
/// Pause before a question is asked again.
const PAUSE: Duration = Duration::from_millis(20);
/// The same once the merge is decided and its range does not answer.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// One of the two ranges.
#[derive(Clone, Copy)]
enum Side {
    Target,
    Source,
}

impl MergeRow {
    fn side(&self, side: Side) -> (&RangeDescriptor, &RangeDescriptor) {
        match side {
            Side::Target => (&self.target, &self.source),
            Side::Source => (&self.source, &self.target),
        }
    }

    /// The right one as it is once it is frozen.
    fn frozen(&self) -> RangeDescriptor {
        let mut frozen = self.source.clone();
        frozen.epoch.version += 1;
        frozen
    }

    fn request(&self, cluster_id: u64, kind: MergeStepKind, side: Side) -> MergeStepRequest {
        let (range, with) = self.side(side);
        let right = match kind {
            MergeStepKind::Absorb => self.frozen().encode(),
            _ => bytes::Bytes::new(),
        };
        MergeStepRequest {
            cluster_id,
            kind: kind.into(),
            range_id: range.id.get(),
            merge: self.id,
            conf_ver: range.epoch.conf_ver,
            version: range.epoch.version,
            with_range: with.id.get(),
            with_version: with.epoch.version,
            right,
        }
    }
}

impl Lead {
    /// Both ranges as they are, if they can be merged and nothing else is done to them.
    fn plan_merge(&self, source: RangeId, target: RangeId) -> Result<MergeRow, ServerError> {
        let known = |range: RangeId| {
            let entry = self.directory.map().get_by_id(range);
            let missing = || ServerError::NotFound(format!("range {range}"));
            Ok::<_, ServerError>(entry.ok_or_else(missing)?.descriptor.as_ref().clone())
        };
        let (target, source) = (known(target)?, known(source)?);
        let ids = [target.id, source.id];
        if self.merges.values().any(|it| ids.contains(&it.target.id) || ids.contains(&it.source.id))
        {
            return Err(ServerError::Busy { what: "the list of what is done to these ranges" });
        }
        let size = |range| self.sizes.get(&range).copied().unwrap_or_default();
        if size(target.id) + size(source.id) > MERGED_BYTES_MAX {
            let why = "both together take more than 256 MiB".to_owned();
            return Err(ServerError::Invalid(why));
        }
        cribwork_router::merge(&target, &source)
            .map_err(|error| ServerError::Invalid(error.to_string()))?;
        Ok(MergeRow { id: 0, state: MergeState::Preparing, target, source })
    }

    fn end_merge(&mut self, id: u64) {
        self.merges.remove(&id);
        self.driven.remove(&id);
    }

    /// Takes in that the merge has taken place.
    fn merged(&mut self, row: &MergeRow, now: &RangeDescriptor) {
        let (target, source) = (row.target.id, row.source.id);
        self.end_merge(row.id);
        self.directory.report(now.clone().into(), None, 0);
        let size = self.sizes.remove(&source).unwrap_or_default();
        *self.sizes.entry(target).or_default() += size;
        self.kept_whole.remove(&source);
        self.changed.remove(&source);
    }
}

impl Place {
    /// Merges `source` into its left neighbour `target`; returns when that is done, or will not be.
    pub(super) async fn merge_now(
        &self,
        source: RangeId,
        target: RangeId,
    ) -> Result<(), ServerError> {
        self.with_lead(|lead| lead.plan_merge(source, target))??;
        let id = self.reserve_ids(IdKind::Range, 1).await?;
        let plan = |lead: &Lead| {
            let row = MergeRow { id, ..lead.plan_merge(source, target)? };
            Ok((vec![rows::merge(&row)], row))
        };
        self.change(plan, |lead, row| {
            lead.merges.insert(id, row.clone());
            lead.driven.insert(id);
        })
        .await?;
        let (tell, told) = oneshot::channel();
        let place = self.clone();
        // To its end, even if whoever asked has given up.
        self.parts().runtime.spawn(Box::pin(async move {
            drop(tell.send(place.drive(id).await));
        }));
        told.await.unwrap_or(Err(ServerError::Shutdown))
    }

    /// Drives the merges that nobody drives: those that an earlier leader has begun.
    pub(super) fn drive_merges(&self) {
        let found = self.with_lead(|lead| {
            let ids = lead.merges.keys().copied();
            let left: BTreeSet<u64> = ids.filter(|id| !lead.driven.contains(id)).collect();
            lead.driven.extend(&left);
            left
        });
        for id in found.unwrap_or_default() {
            let place = self.clone();
            self.parts().runtime.spawn(Box::pin(async move {
                if let Err(error) = place.drive(id).await {
                    tracing::info!(merge = id, %error, "a merge that was begun earlier");
                }
            }));
        }
    }

    /// Takes a merge to its end. An error before that means that this node does not lead placement any more.
    async fn drive(&self, id: u64) -> Result<(), ServerError> {
        let row = |lead: &mut Lead| lead.merges.get(&id).cloned();
        let gone = || ServerError::NotFound(format!("merge {id}"));
        let mut why = ServerError::Timeout { what: "what both ranges promise" };
        loop {
            let row = self.with_lead(row)?.ok_or_else(gone)?;
            match row.state {
                MergeState::Preparing => {
                    let state = match self.prepare(&row).await {
                        Ok(()) => MergeState::Decided,
                        Err(error) => {
                            why = error;
                            MergeState::Abandoned
                        }
                    };
                    self.decide(id, state).await?;
                }
                MergeState::Decided => return self.complete(&row).await,
                MergeState::Abandoned => {
                    self.abandon(&row).await?;
                    return Err(why);
                }
            }
        }
    }

    /// Has both sides promise, and every store confirm. The one that goes on serving comes first, so that the
    /// other one stands still for no longer than it has to.
    async fn prepare(&self, row: &MergeRow) -> Result<(), ServerError> {
        let runtime = &self.parts().runtime;
        let until = runtime.now() + PIN_PATIENCE;
        self.ask_leader(row, MergeStepKind::Pin, Side::Target, Some(until)).await?;
        self.ask_all(row, Side::Target, until).await?;
        let until = runtime.now() + FREEZE_PATIENCE;
        let frozen = self.ask_leader(row, MergeStepKind::Freeze, Side::Source, Some(until)).await?;
        if frozen != row.frozen() {
            return Err(ServerError::Invalid("the range is another one than was planned".into()));
        }
        self.ask_all(row, Side::Source, until).await
    }

    /// Until every store has applied what one side has promised.
    async fn ask_all(
        &self,
        row: &MergeRow,
        side: Side,
        until: Duration,
    ) -> Result<(), ServerError> {
        let stores = row.source.replicas.iter().map(|replica| replica.store);
        try_join_all(stores.map(|store| self.ask_until_ready(row, side, store, until))).await?;
        Ok(())
    }

    async fn ask_until_ready(
        &self,
        row: &MergeRow,
        side: Side,
        store: StoreId,
        until: Duration,
    ) -> Result<(), ServerError> {
        let runtime = &self.parts().runtime;
        loop {
            let left = until.saturating_sub(runtime.now());
            match self.ask_store(row, MergeStepKind::Ready, side, store, left).await {
                Ok(_) => return Ok(()),
                Err(error) if runtime.now() + PAUSE >= until => return Err(error),
                Err(_) => runtime.sleep(PAUSE).await,
            }
        }
    }

    /// Decides a merge that is not decided yet.
    async fn decide(&self, id: u64, state: MergeState) -> Result<(), ServerError> {
        let plan = |lead: &Lead| {
            let row = lead.merges.get(&id).filter(|row| row.state == MergeState::Preparing);
            let row = row.map(|row| MergeRow { state, ..row.clone() });
            Ok((row.iter().map(rows::merge).collect(), row))
        };
        let keep = |lead: &mut Lead, row: &Option<MergeRow>| {
            row.iter().for_each(|row| drop(lead.merges.insert(id, row.clone())));
        };
        self.change(plan, keep).await.map(drop)
    }

    /// Has the target absorb the source, which nothing can prevent any more, and notes it.
    async fn complete(&self, row: &MergeRow) -> Result<(), ServerError> {
        let now = self.ask_leader(row, MergeStepKind::Absorb, Side::Target, None).await?;
        let news = |lead: &Lead| {
            let mut rows = vec![rows::no_merge(row.id), rows::no_range(row.source.id)];
            let known = lead.directory.map().get_by_id(now.id).map(|it| &it.descriptor);
            if known.is_none_or(|known| known.epoch.is_behind(&now.epoch)) {
                rows.push(rows::range(&now));
            }
            Ok((rows, ()))
        };
        self.change(news, |lead, ()| lead.merged(row, &now)).await?;
        self.parts().metrics.merges_done.inc();
        Ok(())
    }

    async fn abandon(&self, row: &MergeRow) -> Result<(), ServerError> {
        for side in [Side::Source, Side::Target] {
            let range = row.side(side).0;
            let is_gone = self.with_lead(|lead| {
                let newer = lead.directory.map().get(&range.span.start).map(|it| &it.descriptor);
                newer.is_some_and(|newer| {
                    newer.id != range.id && newer.epoch.version > range.epoch.version
                })
            })?;
            // Merged away by another merge.
            if !is_gone {
                self.ask_leader(row, MergeStepKind::Abandon, side, None).await?;
            }
        }
        let rows = |_: &Lead| Ok((vec![rows::no_merge(row.id)], ()));
        self.change(rows, |lead, ()| lead.end_merge(row.id)).await?;
        self.parts().metrics.merges_abandoned.inc();
        Ok(())
    }

    /// Asks the leader of one side, whoever that is, again until it has done so; without a time limit for as
    /// long as this node leads placement.
    async fn ask_leader(
        &self,
        row: &MergeRow,
        kind: MergeStepKind,
        side: Side,
        until: Option<Duration>,
    ) -> Result<RangeDescriptor, ServerError> {
        let runtime = &self.parts().runtime;
        let range = row.side(side).0.id;
        let mut pause = PAUSE;
        loop {
            let left = until.map_or(ASK_TIMEOUT, |until| until.saturating_sub(runtime.now()));
            let leader = self.with_lead(|lead| {
                if !lead.merges.contains_key(&row.id) {
                    // Somebody else has taken it to its end.
                    return Err(ServerError::NotFound(format!("merge {}", row.id)));
                }
                let entry = lead.directory.map().get_by_id(range);
                Ok(entry.and_then(|entry| entry.leader).map(|leader| leader.store))
            })??;
            let asked = match leader {
                Some(store) => self.ask_store(row, kind, side, store, left).await,
                None => Err(ServerError::NotFound(format!("the leader of range {range}"))),
            };
            let error = match asked {
                Ok(now) => return Ok(now),
                Err(error) => error,
            };
            match until {
                Some(until) if !error.is_retryable() || runtime.now() + pause >= until => {
                    return Err(error);
                }
                Some(_) => {}
                None => pause = (pause * 2).min(PAUSE_MAX),
            }
            runtime.sleep(pause).await;
        }
    }

    async fn ask_store(
        &self,
        row: &MergeRow,
        kind: MergeStepKind,
        side: Side,
        store: StoreId,
        limit: Duration,
    ) -> Result<RangeDescriptor, ServerError> {
        let request = row.request(self.cluster().get(), kind, side);
        let ask = async {
            let mut client = self.parts().peers.node_client(&self.address(store)?).await?;
            Ok::<_, ServerError>(client.merge_step(forwarded(request)).await?.into_inner())
        };
        let late = ServerError::Timeout { what: "a step of a merge" };
        let answer =
            self.parts().runtime.timeout(limit.min(ASK_TIMEOUT), ask).await.unwrap_or(Err(late))?;
        Ok(RangeDescriptor::decode(answer.descriptor)?)
    }
}
