//! How a request finds its range: route, send, repair the route from the region error, try again.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use cribwork_proto::{errorpb, kvrpcpb, metapb};
use cribwork_router::Route;
use cribwork_types::seeded::{Bug, has};
use cribwork_types::{RangeDescriptor, RangeId, ReplicaDescriptor, RuntimeExt};
use futures::StreamExt;

use crate::ClientError;
use crate::call::{Call, Pause, Setback};
use crate::channel::ChannelError;
use crate::core::Core;
use crate::request::{Effect, RangeRequest};

/// Most requests of one call that are under way at once.
const PARALLEL_MAX: usize = 32;
/// Most bytes of keys and values in one request to one range. Small enough that a command never
/// comes near the limit of a log entry and that a large batch spreads over several rounds.
const REQUEST_BYTES_MAX: usize = 512 * 1024;
/// Most keys in one request to one range.
const REQUEST_KEYS_MAX: usize = 4096;

/// One part of a request that may span ranges.
pub(crate) trait Item: Clone + Send + 'static {
    /// What is compared with the bounds of ranges.
    fn route_key(&self) -> Bytes;
    /// Bytes of key and value.
    fn size_bytes(&self) -> usize;
}

/// How an attempt ended: an answer, or a reason to try again.
pub(crate) type Attempt<T> = Result<T, Setback>;

impl Core {
    /// The range that holds `key`, from the cache or the placement service.
    pub(crate) async fn route(&self, call: &mut Call, key: &Bytes) -> Result<Route, ClientError> {
        loop {
            if let Some(route) = self.cache.read().route(key) {
                return Ok(route);
            }
            let asked = key.clone();
            let placed = self
                .ask_pd(call, move |pd| {
                    let key = asked.clone();
                    async move { pd.get_region(key).await }
                })
                .await?;
            if let Some(placed) = placed.filter(|placed| placed.range.span.contains(key)) {
                let route = self.learn(placed);
                if route.descriptor.span.contains(key) {
                    return Ok(route);
                }
            }
            let setback = Setback::new(Pause::Grow, "no range is known to hold the key");
            call.pause(&*self.runtime, vec![setback]).await?;
        }
    }

    /// The range that holds the keys right below `bound`.
    pub(crate) async fn route_below(
        &self,
        call: &mut Call,
        bound: &Bytes,
    ) -> Result<Route, ClientError> {
        loop {
            let route = self.route(call, bound).await?;
            if route.descriptor.span.start != *bound {
                return Ok(route);
            }
            let asked = bound.clone();
            let placed = self
                .ask_pd(call, move |pd| {
                    let key = asked.clone();
                    async move { pd.get_prev_region(key).await }
                })
                .await?;
            if let Some(placed) = placed.filter(|placed| placed.range.span.end == *bound) {
                let route = self.learn(placed);
                if route.descriptor.span.end == *bound {
                    return Ok(route);
                }
            }
            // A split or merge between the two answers.
            self.cache.write().on_gone(route.descriptor.id);
            let setback = Setback::new(Pause::Grow, "the ranges around the bound are changing");
            call.pause(&*self.runtime, vec![setback]).await?;
        }
    }

    /// Sends one request to the range that holds `key` until it is answered.
    pub(crate) async fn send_key<R: RangeRequest>(
        &self,
        call: &mut Call,
        key: &Bytes,
        request: &R,
    ) -> Result<R::Response, ClientError> {
        loop {
            let route = self.route(call, key).await?;
            match self.attempt(call, &route, request.clone()).await? {
                Ok(response) => return Ok(response),
                Err(setback) => call.pause(&*self.runtime, vec![setback]).await?,
            }
        }
    }

    /// Groups `items` by range, sends one request for each group, all at once, and again for the
    /// groups that have to be repeated. Every item is in exactly one of the returned groups.
    pub(crate) async fn send_grouped<I: Item, R: RangeRequest>(
        &self,
        call: &mut Call,
        mut items: Vec<I>,
        build: impl Fn(&[I]) -> R + Send + Sync,
    ) -> Result<Vec<(Vec<I>, R::Response)>, ClientError> {
        let mut answered = Vec::new();
        while !items.is_empty() {
            let groups = self.group(call, std::mem::take(&mut items)).await?;
            let mut attempts = Vec::with_capacity(groups.len());
            for (route, group) in groups {
                let request = build(&group);
                let shared = &*call;
                attempts.push(async move { (self.attempt(shared, &route, request).await, group) });
            }
            let (mut setbacks, mut failure) = (Vec::new(), None);
            let mut outcomes = futures::stream::iter(attempts).buffer_unordered(PARALLEL_MAX);
            while let Some((outcome, group)) = outcomes.next().await {
                match outcome {
                    Ok(Ok(response)) => answered.push((group, response)),
                    Ok(Err(setback)) => {
                        setbacks.push(setback);
                        items.extend(group);
                    }
                    Err(error) => failure = worse(failure, error),
                }
            }
            drop(outcomes);
            if let Some(error) = failure {
                return Err(error);
            }
            if !setbacks.is_empty() {
                call.pause(&*self.runtime, setbacks).await?;
            }
        }
        Ok(answered)
    }

    async fn group<I: Item>(
        &self,
        call: &mut Call,
        items: Vec<I>,
    ) -> Result<Vec<(Route, Vec<I>)>, ClientError> {
        let mut full = Vec::new();
        let mut open: BTreeMap<RangeId, (Route, Vec<I>, usize)> = BTreeMap::new();
        for item in items {
            let route = self.route(call, &item.route_key()).await?;
            let size = item.size_bytes();
            let id = route.descriptor.id;
            let (_, group, bytes) = open.entry(id).or_insert_with(|| (route, Vec::new(), 0));
            group.push(item);
            *bytes += size;
            if (*bytes >= REQUEST_BYTES_MAX || group.len() >= REQUEST_KEYS_MAX)
                && let Some((route, group, _)) = open.remove(&id)
            {
                full.push((route, group));
            }
        }
        full.extend(open.into_values().map(|(route, group, _)| (route, group)));
        Ok(full)
    }

    /// Sends one request once. The outer error ends the call.
    pub(crate) async fn attempt<R: RangeRequest>(
        &self,
        call: &Call,
        route: &Route,
        mut request: R,
    ) -> Result<Attempt<R::Response>, ClientError> {
        let range = &route.descriptor;
        let limit = self.attempt_limit(call);
        let Some(replica) = self.pick(call, route) else {
            self.cache.write().on_gone(range.id);
            let why = format!("range {} has no voters", range.id);
            return Ok(Err(Setback::new(Pause::Grow, why)));
        };
        aim(request.context().get_or_insert_default(), call, range, replica, limit);
        let slot = self.stores.slot(replica.store);
        let opened = match slot.channel.initialized() {
            true => Ok(()),
            false => self.open(replica.store, &slot).await,
        };
        let outcome = match (opened, slot.channel.get()) {
            (Err(error), _) => Err(unsent(error)),
            // Sent now, nobody would wait for the answer, and a write would have an unknown outcome.
            _ if limit.is_zero() => {
                let why = format!("the time was up before store {} was asked", replica.store);
                return Ok(Err(Setback::new(Pause::Grow, why)));
            }
            (Ok(()), None) => Err(ChannelError::Unsent("the channel is closed".to_owned())),
            (Ok(()), Some(channel)) => {
                let sent = request.into_wire().send(&**channel);
                self.runtime.timeout(limit, sent).await.unwrap_or_else(|_| {
                    let (store, limit_ms) = (replica.store, limit.as_millis());
                    let why = format!("store {store} has not answered within {limit_ms} ms");
                    Err(ChannelError::Unknown(why))
                })
            }
        };
        match outcome {
            Ok(answer) => {
                let mut response = R::from_wire(answer).ok_or_else(|| ClientError::Protocol {
                    what: call.what,
                    why: "the answer is one to another request".to_owned(),
                })?;
                match R::take_region_error(&mut response) {
                    None => Ok(Ok(response)),
                    Some(error) => self.repair(call, R::EFFECT, route, replica, error),
                }
            }
            Err(ChannelError::Full(count)) => {
                Ok(Err(Setback::new(Pause::Grow, ChannelError::Full(count).to_string())))
            }
            Err(ChannelError::Refused { message, retryable: true, .. }) => {
                Ok(Err(Setback::new(Pause::Grow, message)))
            }
            Err(error @ ChannelError::Refused { .. }) => {
                Err(ClientError::from_channel(call.what, error))
            }
            Err(ChannelError::Unsent(why)) => {
                self.store_failed(replica.store, &slot);
                Ok(Err(Setback::new(Pause::Grow, why)))
            }
            Err(ChannelError::Unknown(why)) => {
                self.store_failed(replica.store, &slot);
                lost(call, R::EFFECT, why)
            }
        }
    }

    /// The leader; if unknown or just found dead, the voters in turn.
    fn pick(&self, call: &Call, route: &Route) -> Option<ReplicaDescriptor> {
        let now = self.runtime.now();
        let healthy = |replica: &ReplicaDescriptor| !self.stores.is_suspect(replica.store, now);
        if let Some(leader) = route.leader.filter(healthy) {
            return Some(leader);
        }
        let voters: Vec<_> = route.descriptor.voters().collect();
        let candidates: Vec<_> = voters.iter().copied().filter(healthy).collect();
        let candidates = if candidates.is_empty() { voters } else { candidates };
        let turn = call.turn.checked_rem(candidates.len())?;
        candidates.get(turn).copied()
    }

    /// Learns from a region error what to do next.
    fn repair<T>(
        &self,
        call: &Call,
        effect: Effect,
        route: &Route,
        replica: ReplicaDescriptor,
        error: errorpb::Error,
    ) -> Result<Attempt<T>, ClientError> {
        let id = route.descriptor.id;
        let why = format!("range {id} at store {}: {}", replica.store, describe(&error));
        let grow = |why| Ok(Err(Setback::new(Pause::Grow, why)));
        if let Some(not_leader) = error.not_leader {
            let leader = not_leader.leader.and_then(|peer| ReplicaDescriptor::try_from(peer).ok());
            let epoch = route.descriptor.epoch;
            self.cache.write().on_not_leader(id, epoch, leader);
            // Followers go on naming a dead leader for a while.
            let now = self.runtime.now();
            let alive = leader.is_some_and(|leader| !self.stores.is_suspect(leader.store, now));
            let pause = if alive { Pause::None } else { Pause::Grow };
            return Ok(Err(Setback::new(pause, why)));
        }
        if let Some(changed) = error.epoch_not_match {
            let pause = self.epoch_changed(route, changed.current_regions);
            return Ok(Err(Setback::new(pause, why)));
        }
        if let Some(busy) = error.server_is_busy {
            let least = Duration::from_millis(busy.backoff_ms);
            return Ok(Err(Setback::new(Pause::AtLeast(least), why)));
        }
        if error.undetermined_result.is_some() {
            return lost(call, effect, why);
        }
        if let Some(large) = error.raft_entry_too_large {
            let why = format!("{} bytes are too many for one command", large.entry_size);
            return Err(ClientError::Invalid { what: call.what, why });
        }
        if error.disk_full.is_some() {
            return Err(ClientError::DiskFull { why });
        }
        if error.store_not_match.is_some() {
            // The address belongs to another store now.
            let slot = self.stores.slot(replica.store);
            self.store_failed(replica.store, &slot);
            self.cache.write().on_gone(id);
            return grow(why);
        }
        let passes_by_itself = error.max_timestamp_not_synced.is_some()
            || error.read_index_not_ready.is_some()
            || error.proposal_in_merging_mode.is_some()
            || error.data_is_not_ready.is_some()
            || error.region_not_initialized.is_some();
        if !passes_by_itself {
            // region_not_found, key_not_in_region, stale_command, mismatch_peer_id, and whatever a
            // newer server may say: ask the placement service again.
            self.cache.write().on_gone(id);
        }
        grow(why)
    }

    /// Takes in the ranges that a replica names in the place of the one it was asked for. No pause
    /// if that is news.
    fn epoch_changed(&self, route: &Route, current: Vec<metapb::Region>) -> Pause {
        let known: Result<Vec<_>, _> = current.into_iter().map(RangeDescriptor::try_from).collect();
        let id = route.descriptor.id;
        let mut cache = self.cache.write();
        match known {
            Ok(known) if !known.is_empty() => {
                let sent = route.descriptor.epoch;
                let behind =
                    known.iter().any(|range| range.id == id && range.epoch.is_behind(&sent));
                cache.on_epoch_changed(id, known);
                if behind { Pause::Grow } else { Pause::None }
            }
            _ => {
                cache.on_gone(id);
                Pause::None
            }
        }
    }
}

/// Addresses a request to one replica.
fn aim(
    context: &mut kvrpcpb::Context,
    call: &Call,
    range: &RangeDescriptor,
    replica: ReplicaDescriptor,
    limit: Duration,
) {
    context.region_id = range.id.get();
    context.region_epoch = Some(range.epoch.into());
    context.peer = Some(replica.into());
    context.max_execution_duration_ms = limit.as_millis() as u64;
    context.is_retry_request = call.turn > 0;
}

fn unsent(error: ChannelError) -> ChannelError {
    match error {
        // Nothing was sent while the channel was being opened.
        ChannelError::Unknown(why) => ChannelError::Unsent(why),
        error => error,
    }
}

fn lost<T>(call: &Call, effect: Effect, why: String) -> Result<Attempt<T>, ClientError> {
    if effect == Effect::Once && !has(Bug::RepeatUnknown) {
        return Err(ClientError::Unknown { what: call.what, why });
    }
    Ok(Err(Setback { pause: Pause::Grow, why, lost: true }))
}

/// An unknown outcome of one group makes that of the whole call unknown.
fn worse(known: Option<ClientError>, error: ClientError) -> Option<ClientError> {
    match known {
        Some(known @ ClientError::Unknown { .. }) => Some(known),
        Some(known) if !matches!(error, ClientError::Unknown { .. }) => Some(known),
        _ => Some(error),
    }
}

/// The name of a region error and its message.
fn describe(error: &errorpb::Error) -> String {
    let kinds = [
        (error.not_leader.is_some(), "not the leader"),
        (error.region_not_found.is_some(), "range not found"),
        (error.key_not_in_region.is_some(), "key outside the range"),
        (error.epoch_not_match.is_some(), "epoch changed"),
        (error.server_is_busy.is_some(), "busy"),
        (error.stale_command.is_some(), "stale command"),
        (error.store_not_match.is_some(), "another store answers"),
        (error.mismatch_peer_id.is_some(), "another replica answers"),
        (error.max_timestamp_not_synced.is_some(), "timestamps not synchronised"),
        (error.undetermined_result.is_some(), "result undetermined"),
        (error.disk_full.is_some(), "disk full"),
    ];
    let kind = kinds.iter().find(|(is, _)| *is).map_or("not served", |(_, name)| name);
    format!("{kind}: {}", error.message)
}

/// A plain key of the raw API: compared with bounds as it is.
#[derive(Clone, Debug)]
pub(crate) struct RawKey(pub(crate) Bytes);

impl Item for RawKey {
    fn route_key(&self) -> Bytes {
        self.0.clone()
    }

    fn size_bytes(&self) -> usize {
        self.0.len()
    }
}

/// A plain key of the transactional API: its encoding is compared with bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TxnKey(pub(crate) Bytes);

/// What is compared with the bounds of ranges for a transactional key.
pub(crate) fn txn_route_key(key: &[u8]) -> Bytes {
    cribwork_types::key::encode(key).into()
}

impl Item for TxnKey {
    fn route_key(&self) -> Bytes {
        txn_route_key(&self.0)
    }

    fn size_bytes(&self) -> usize {
        self.0.len()
    }
}

impl Item for kvrpcpb::Mutation {
    fn route_key(&self) -> Bytes {
        txn_route_key(&self.key)
    }

    fn size_bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }
}
