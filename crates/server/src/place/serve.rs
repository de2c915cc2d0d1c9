//! What nodes ask of placement: time, ids, registration, heartbeats.

use std::sync::Arc;

use cribwork_placement::{IdKind, Operator, Reported};
use cribwork_proto::cribwork::admin::{self, AllocIdsRequest, HeartbeatRequest, HeartbeatResponse};
use cribwork_proto::pdpb;
use cribwork_types::{RangeDescriptor, RangeId, ReplicaId, StoreId, Timestamp};

use super::Place;
use super::forward::forwarded;
use super::lead::{Heard, Lead};
use super::rows;
use crate::{ServerError, StoreInfo};

/// Longest name of a service that holds garbage collection back, bytes.
const SERVICE_BYTES_MAX: usize = 256;
/// Most services that hold garbage collection back at a time.
const SERVICES_MAX: usize = 256;

fn wire_kind(kind: IdKind) -> admin::IdKind {
    match kind {
        IdKind::Store => admin::IdKind::Store,
        IdKind::Range => admin::IdKind::Range,
        IdKind::Replica => admin::IdKind::Replica,
    }
}

impl Place {
    /// The last of `count` new timestamps, all in one millisecond.
    ///
    /// # Errors
    /// [`ServerError::Placement`] for a count of none or too many; [`ServerError`] if placement has
    /// no leader for long.
    pub async fn tso(&self, count: u32) -> Result<Timestamp, ServerError> {
        self.serve_tso(count, false).await
    }

    pub(crate) async fn serve_tso(
        &self,
        count: u32,
        passed_on: bool,
    ) -> Result<Timestamp, ServerError> {
        let remote = |address: String| -> cribwork_types::BoxFuture<_> {
            let (place, cluster) = (self.clone(), self.cluster().get());
            Box::pin(async move {
                let mut client = place.parts().peers.pd_client(&address).await?;
                let header = Some(pdpb::RequestHeader { cluster_id: cluster, sender_id: 0 });
                let ask = pdpb::TsoRequest { header, count, dc_location: String::new() };
                let request = forwarded(tokio_stream::once(ask));
                let mut answers = client.tso(request).await?.into_inner();
                let answer = answers.message().await?.and_then(|answer| answer.timestamp);
                let lost = ServerError::NotPlacementLeader { leader: None };
                let ts = answer.ok_or(lost)?;
                Ok(Timestamp::new(ts.physical as u64, ts.logical as u64))
            })
        };
        let local = || -> cribwork_types::BoxFuture<_> {
            let place = self.clone();
            Box::pin(async move { place.take_timestamps(count).await })
        };
        let ts = self.route(passed_on, local, remote).await?;
        self.parts().clock.observe(ts);
        Ok(ts)
    }

    /// The first of `count` ids that nobody ever had.
    ///
    /// # Errors
    /// [`ServerError`] if placement has no leader for long.
    pub async fn alloc_ids(&self, kind: IdKind, count: u32) -> Result<u64, ServerError> {
        self.serve_alloc_ids(kind, count, false).await
    }

    pub(crate) async fn serve_alloc_ids(
        &self,
        kind: IdKind,
        count: u32,
        passed_on: bool,
    ) -> Result<u64, ServerError> {
        let remote = |address: String| -> cribwork_types::BoxFuture<_> {
            let place = self.clone();
            let cluster_id = self.cluster().get();
            let ask = AllocIdsRequest { cluster_id, kind: wire_kind(kind).into(), count };
            Box::pin(async move {
                let mut client = place.parts().peers.node_client(&address).await?;
                Ok(client.alloc_ids(forwarded(ask)).await?.into_inner().first)
            })
        };
        let local = || -> cribwork_types::BoxFuture<_> {
            let place = self.clone();
            Box::pin(async move { place.reserve_ids(kind, count).await })
        };
        self.route(passed_on, local, remote).await
    }

    /// Takes in what a store tells, and says what it is to do.
    ///
    /// # Errors
    /// [`ServerError`] if placement has no leader for long.
    pub async fn heartbeat(
        &self,
        request: HeartbeatRequest,
    ) -> Result<HeartbeatResponse, ServerError> {
        self.serve_heartbeat(request, false).await
    }

    pub(crate) async fn serve_heartbeat(
        &self,
        request: HeartbeatRequest,
        passed_on: bool,
    ) -> Result<HeartbeatResponse, ServerError> {
        let remote = |address: String| -> cribwork_types::BoxFuture<_> {
            let (place, ask) = (self.clone(), request.clone());
            Box::pin(async move {
                let mut client = place.parts().peers.node_client(&address).await?;
                Ok(client.heartbeat(forwarded(ask)).await?.into_inner())
            })
        };
        let local = || -> cribwork_types::BoxFuture<_> {
            let (place, request) = (self.clone(), request.clone());
            Box::pin(async move { place.heartbeat_here(&request).await })
        };
        self.route(passed_on, local, remote).await
    }

    async fn heartbeat_here(
        &self,
        request: &HeartbeatRequest,
    ) -> Result<HeartbeatResponse, ServerError> {
        self.parts().metrics.heartbeats.inc();
        let store = StoreId(request.store);
        let known = self.with_lead(|lead| lead.stores.get(&store).cloned())?;
        let known = known.ok_or_else(|| ServerError::NotFound(format!("store {store}")))?;
        let info = StoreInfo {
            id: store,
            address: request.address.clone(),
            http: request.http.clone(),
            zone: request.zone.clone(),
            state: known.state,
        };
        if known != info {
            self.note_store(info).await?;
        }
        if self.with_lead(|lead| !lead.newcomers.contains_key(&store))? {
            self.note_arrival(store).await?;
        }
        let now = self.parts().runtime.now();
        let changed = self.with_lead(|lead| {
            let full = request.full || lead.heard.get(&store).is_some_and(|heard| heard.full);
            let heard = Heard {
                at: now,
                leaders: request.leaders,
                replicas: request.replicas,
                used_bytes: request.used_bytes,
                capacity_bytes: request.capacity_bytes,
                full,
            };
            lead.heard.insert(store, heard);
            take_reports(lead, request, now)
        })??;
        if !changed.is_empty() {
            let rows = |_: &Lead| Ok((changed.iter().map(|it| rows::range(it)).collect(), ()));
            self.change(rows, |_, ()| {}).await?;
        }
        self.with_lead(|lead| HeartbeatResponse {
            placement_leader_store: self.parts().store.get(),
            stores: lead.stores.values().map(Into::into).collect(),
            operators: operators_for(lead, store),
            want_full: !lead.heard.get(&store).is_some_and(|heard| heard.full),
            tso_physical_ms: lead.tso.physical_ms(),
            gone: gone(lead, &request.doubtful),
            merged: merged(lead, &request.doubtful),
            split_size_bytes: lead.settings.split_size_bytes(),
            cold_after_ms: Some(lead.settings.cold_after().as_millis() as u64),
            placement_members: self.members().into_iter().map(StoreId::get).collect(),
        })
    }

    /// Moves the garbage collection safe point up; the point then.
    pub(crate) async fn raise_safe_point(&self, to: u64) -> Result<u64, ServerError> {
        let raise = |lead: &Lead| {
            let now = lead.safe_point.max(to);
            let row = (now > lead.safe_point).then(|| rows::safe_point(now));
            Ok((row.into_iter().collect(), now))
        };
        self.change(raise, |lead, now| lead.safe_point = *now).await
    }

    /// Notes a service's safe point for `ttl_s` seconds (none or less removes it); the smallest of
    /// all services.
    pub(crate) async fn service_safe_point(
        &self,
        service: bytes::Bytes,
        ttl_s: i64,
        safe_point: u64,
    ) -> Result<u64, ServerError> {
        if service.is_empty() || service.len() > SERVICE_BYTES_MAX {
            let why = format!("a service id of {} bytes: 1 to {SERVICE_BYTES_MAX}", service.len());
            return Err(ServerError::Invalid(why));
        }
        let now_ms = self.parts().runtime.wall_ms();
        let ttl_ms = u64::try_from(ttl_s).unwrap_or(0).saturating_mul(1000);
        let expires_ms = now_ms.saturating_add(ttl_ms);
        let point = rows::ServicePoint { service, expires_ms, safe_point };
        let plan = |lead: &Lead| {
            let (live, over): (Vec<_>, Vec<_>) =
                lead.services.iter().partition(|old| old.expires_ms > now_ms);
            let mut services: Vec<_> =
                live.into_iter().filter(|old| old.service != point.service).cloned().collect();
            if services.len() >= SERVICES_MAX {
                let why = format!("{SERVICES_MAX} services hold garbage collection back already");
                return Err(ServerError::Invalid(why));
            }
            let mut news: Vec<_> = over.iter().map(|old| rows::no_service(&old.service)).collect();
            match ttl_ms {
                0 => news.push(rows::no_service(&point.service)),
                _ => {
                    news.push(rows::service(&point));
                    services.push(point.clone());
                }
            }
            Ok((news, services))
        };
        self.change(plan, |lead, services| lead.services = services.clone()).await?;
        self.with_lead(|lead| {
            let live = lead.services.iter().filter(|point| point.expires_ms > now_ms);
            live.map(|point| point.safe_point).min().unwrap_or(lead.safe_point)
        })
    }
}

/// The present descriptors of those ranges that have lost a member of which its store doubts that it
/// is one.
fn gone(lead: &Lead, doubtful: &[admin::DoubtfulReplica]) -> Vec<bytes::Bytes> {
    let now = |it: &admin::DoubtfulReplica| {
        let now = match (RangeId(it.range), &lead.group) {
            (RangeId::PLACEMENT, group) => &group.as_ref()?.descriptor,
            (range, _) => &lead.directory.map().get_by_id(range)?.descriptor,
        };
        let gone = now.epoch.conf_ver > it.conf_ver && now.replica(ReplicaId(it.replica)).is_none();
        gone.then(|| now.encode())
    };
    doubtful.iter().filter_map(now).collect()
}

/// What became of doubtful replicas' ranges that are no more: a range never loses its first key but by a
/// merge.
fn merged(lead: &Lead, doubtful: &[admin::DoubtfulReplica]) -> Vec<admin::MergedRange> {
    let now = |it: &admin::DoubtfulReplica| {
        let newer = &lead.directory.map().get(it.start.as_ref()?)?.descriptor;
        let merged = newer.id.get() != it.range && newer.epoch.version > it.version;
        (merged && it.range != RangeId::PLACEMENT.get())
            .then(|| admin::MergedRange { range: it.range, descriptor: newer.encode() })
    };
    doubtful.iter().filter_map(now).collect()
}

/// Descriptors that are news.
fn take_reports(
    lead: &mut Lead,
    request: &HeartbeatRequest,
    now: std::time::Duration,
) -> Result<Vec<Arc<RangeDescriptor>>, ServerError> {
    let mut changed = Vec::new();
    for report in &request.ranges {
        let descriptor = Arc::new(RangeDescriptor::decode(report.descriptor.clone())?);
        let id = descriptor.id;
        // Only a leader speaks for its leadership: a follower may be behind.
        let leader = match report.is_leader {
            true => descriptor.replica(ReplicaId(report.leader_replica)),
            false => None,
        };
        let term = if report.is_leader { report.term } else { 0 };
        let reported = lead.directory.report(descriptor.clone(), leader, term);
        // A range that was merged away may still be reported by whoever does not know.
        if report.is_leader && !matches!(reported, Reported::Stale | Reported::Refused) {
            lead.sizes.insert(id, report.size_bytes);
            match report.kept_whole.is_empty() {
                true => lead.kept_whole.remove(&id),
                false => lead.kept_whole.insert(id, report.kept_whole.clone()),
            };
        }
        match reported {
            Reported::Changed { descriptor: true, .. } => {
                lead.changed.insert(id, now);
                lead.look_soon(now);
                changed.push(descriptor);
            }
            Reported::Changed { .. } => settle(lead, id, leader.map(|leader| leader.store)),
            _ => {}
        }
    }
    Ok(changed)
}

/// A transfer is done once its target leads.
fn settle(lead: &mut Lead, range: RangeId, leader: Option<StoreId>) {
    lead.running.retain(|running| match running.operator {
        Operator::TransferLeader { range: moving, to, .. } => moving != range || leader != Some(to),
        Operator::ChangeReplicas { .. } | Operator::Merge { .. } => true,
    });
}

fn operators_for(lead: &Lead, store: StoreId) -> Vec<admin::Operator> {
    let mut operators = Vec::new();
    for running in &lead.running {
        if let Operator::TransferLeader { range, from, to } = running.operator
            && from == store
        {
            let step = admin::TransferLeaderOperator { range: range.get(), to_store: to.get() };
            let step = Some(admin::operator::Step::TransferLeader(step));
            operators.push(admin::Operator { step });
        }
    }
    operators
}
