//! Administration: any node answers, so every endpoint is tried until one does.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cribwork_proto::cribwork::admin;
use cribwork_types::{RangeId, Runtime, RuntimeExt, StoreId};

use crate::backoff::Backoff;
use crate::channel::{AdminChannel, ChannelError, Connector};
use crate::raw::checked_key;
use crate::request::Effect;
use crate::{ClientError, ClientOptions, GrpcConnector};

/// Ranges in one page.
const PAGE: u32 = 1024;

/// Asks nodes what they know and tells them what to do. Cheap to clone.
#[derive(Clone)]
pub struct AdminClient {
    options: Arc<ClientOptions>,
    connector: Arc<dyn Connector>,
    runtime: Arc<dyn Runtime>,
}

impl AdminClient {
    /// Over gRPC. Connects when asked something.
    pub fn new(options: ClientOptions, runtime: Arc<dyn Runtime>) -> Self {
        let connector =
            GrpcConnector::new(runtime.clone(), options.connect_timeout, options.attempt_timeout);
        Self::with_connector(options, Arc::new(connector), runtime)
    }

    /// Over channels of another kind.
    pub fn with_connector(
        options: ClientOptions,
        connector: Arc<dyn Connector>,
        runtime: Arc<dyn Runtime>,
    ) -> Self {
        Self { options: Arc::new(options), connector, runtime }
    }

    /// The same with another limit on the time of a call.
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        let options = ClientOptions { timeout, ..(*self.options).clone() };
        Self { options: Arc::new(options), ..self.clone() }
    }

    /// Makes a cluster out of the node at the first endpoint and those on its join list.
    ///
    /// # Errors
    /// [`ClientError`]; nothing was written unless it is [`ClientError::Unknown`].
    pub async fn init(&self, ranges: u32) -> Result<admin::InitResponse, ClientError> {
        let request = admin::InitRequest { ranges };
        self.ask("init", Effect::Once, |node| async move { node.init(request).await }).await
    }

    /// The cluster in numbers.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn status(&self) -> Result<admin::StatusResponse, ClientError> {
        self.ask("status", Effect::Read, |node| async move { node.status().await }).await
    }

    /// Every node.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn nodes(&self) -> Result<Vec<admin::NodeInfo>, ClientError> {
        let answer = self.ask("nodes", Effect::Read, |node| async move { node.nodes().await });
        Ok(answer.await?.nodes)
    }

    /// Every range, in key order; page by page, so that splits meanwhile may show or not.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ranges(&self) -> Result<Vec<admin::RangeInfo>, ClientError> {
        let (mut ranges, mut start_key) = (Vec::new(), Bytes::new());
        loop {
            let request = admin::RangesRequest { start_key: start_key.clone(), limit: PAGE };
            let page = self
                .ask("ranges", Effect::Read, move |node| {
                    let request = request.clone();
                    async move { node.ranges(request).await }
                })
                .await?
                .ranges;
            let end = page.last().map(|range| range.end.clone()).unwrap_or_default();
            ranges.extend(page);
            if end <= start_key {
                return Ok(ranges);
            }
            start_key = end;
        }
    }

    /// One range; `None` if there is none of this id.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn range(&self, id: RangeId) -> Result<Option<admin::RangeInfo>, ClientError> {
        let answer =
            self.ask("range", Effect::Read, move |node| async move { node.range(id).await });
        Ok(answer.await?.range)
    }

    /// Makes a plain user key a bound: the ranges left and right of it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn split(&self, key: impl Into<Bytes>) -> Result<admin::SplitResponse, ClientError> {
        let request = admin::SplitRequest { key: checked_key(key)? };
        self.ask("split", Effect::Once, move |node| {
            let request = request.clone();
            async move { node.split(request).await }
        })
        .await
    }

    /// Makes the replica at store `to` lead a range.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn transfer_leader(&self, range: RangeId, to: StoreId) -> Result<(), ClientError> {
        self.ask("transfer leader", Effect::Idempotent, move |node| async move {
            node.transfer_leader(range, to).await
        })
        .await
    }

    /// Begins to move the replica of a range from one store to another; with `watch`, says only how far
    /// that is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn move_replica(
        &self,
        range: RangeId,
        from: StoreId,
        to: StoreId,
        watch: bool,
    ) -> Result<admin::Progress, ClientError> {
        let request = admin::MoveReplicaRequest {
            range: range.get(),
            from_store: from.get(),
            to_store: to.get(),
            watch,
        };
        self.ask(
            "move replica",
            if watch { Effect::Read } else { Effect::Idempotent },
            move |node| async move { node.move_replica(request).await },
        )
        .await
    }

    /// Begins to merge a range with its right neighbour; with `watched`, the neighbour that the first answer
    /// named, says only how far that is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn merge(
        &self,
        range: RangeId,
        watched: Option<RangeId>,
    ) -> Result<admin::Progress, ClientError> {
        let watched = watched.map_or(0, RangeId::get);
        let request = admin::MergeRequest { range: range.get(), watched };
        // Asked a second time, it would take the next neighbour.
        let effect = if watched != 0 { Effect::Read } else { Effect::Once };
        self.ask("merge", effect, move |node| async move { node.merge(request).await }).await
    }

    /// Has the replicas of a range compared at one entry of its log.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn verify_range(
        &self,
        id: RangeId,
    ) -> Result<admin::VerifyRangeResponse, ClientError> {
        self.ask(
            "verify",
            Effect::Idempotent,
            move |node| async move { node.verify_range(id).await },
        )
        .await
    }

    /// Has the leaders of a store move away, or puts it back in service with `undo`; how far that is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn drain(&self, store: StoreId, undo: bool) -> Result<admin::Progress, ClientError> {
        let request = admin::DrainRequest { store: store.get(), undo };
        self.ask("drain", Effect::Idempotent, move |node| async move { node.drain(request).await })
            .await
    }

    /// Has the replicas of a store move away for good; how far that is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn decommission(&self, store: StoreId) -> Result<admin::Progress, ClientError> {
        let request = admin::DecommissionRequest { store: store.get() };
        self.ask("decommission", Effect::Idempotent, move |node| async move {
            node.decommission(request).await
        })
        .await
    }

    /// What placement has decided about a range or a store, and why.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn explain(
        &self,
        subject: admin::explain_request::Subject,
    ) -> Result<admin::ExplainResponse, ClientError> {
        let request = admin::ExplainRequest { subject: Some(subject) };
        self.ask("explain", Effect::Read, move |node| async move { node.explain(request).await })
            .await
    }

    /// The settings of the cluster, or the one named `key` (empty for all), after it was set to `value`
    /// if there is one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn config(
        &self,
        key: &str,
        value: Option<&str>,
    ) -> Result<Vec<admin::Setting>, ClientError> {
        let effect = if value.is_some() { Effect::Idempotent } else { Effect::Read };
        let request = admin::ConfigRequest { key: key.to_owned(), value: value.map(str::to_owned) };
        let answer = self.ask("config", effect, move |node| {
            let request = request.clone();
            async move { node.config(request).await }
        });
        Ok(answer.await?.settings)
    }

    /// Tries the endpoints in turn, and again with pauses, until one answers or the time is up.
    async fn ask<T, F>(
        &self,
        what: &'static str,
        effect: Effect,
        ask: impl Fn(Arc<dyn AdminChannel>) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ChannelError>> + Send,
    {
        let deadline = self.runtime.now() + self.options.timeout;
        let mut backoff = Backoff::default();
        let (mut lost, mut why) = (false, "no endpoints".to_owned());
        loop {
            for endpoint in &self.options.endpoints {
                let left = deadline.saturating_sub(self.runtime.now());
                let error = match self.ask_one(endpoint, left, &ask).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => error,
                };
                why = format!("{endpoint}: {error}");
                match error {
                    ChannelError::Unknown(_) if effect == Effect::Once => {
                        return Err(ClientError::Unknown { what, why });
                    }
                    ChannelError::Refused { retryable: false, .. } => {
                        return Err(ClientError::from_channel(what, error));
                    }
                    ChannelError::Unknown(_) => lost = effect != Effect::Read,
                    _ => {}
                }
            }
            let pause = backoff.next(&*self.runtime);
            if self.runtime.now() + pause >= deadline {
                break;
            }
            self.runtime.sleep(pause).await;
        }
        Err(if lost {
            ClientError::Unknown { what, why }
        } else {
            ClientError::Timeout { what, why }
        })
    }

    async fn ask_one<T, F>(
        &self,
        endpoint: &str,
        left: Duration,
        ask: impl Fn(Arc<dyn AdminChannel>) -> F,
    ) -> Result<T, ChannelError>
    where
        F: Future<Output = Result<T, ChannelError>> + Send,
    {
        let connecting = self.connector.connect_admin(endpoint);
        let limit = self.options.connect_timeout.min(left);
        let node = match self.runtime.timeout(limit, connecting).await {
            Ok(Ok(node)) => node,
            Ok(Err(error)) => return Err(ChannelError::Unsent(error.to_string())),
            Err(timed_out) => return Err(ChannelError::Unsent(timed_out.to_string())),
        };
        self.runtime
            .timeout(left, ask(node))
            .await
            .unwrap_or_else(|timed_out| Err(ChannelError::Unknown(timed_out.to_string())))
    }
}
