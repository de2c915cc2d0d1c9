//! The handle that everything begins with.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use cribwork_proto::kvrpcpb;
use cribwork_types::{ClusterId, KeyRange, RangeDescriptor, Runtime, RuntimeExt, Timestamp};

use crate::channel::{ChannelError, Connector, Placed, StoreAddress, UnaryAnswer, UnaryRequest};
use crate::core::Core;
use crate::raw::checked_key;
use crate::request::Effect;
use crate::send::TxnKey;
use crate::{
    AdminClient, ClientError, ClientOptions, GrpcConnector, RawClient, Snapshot, Transaction,
};

/// A client of one cluster. Cheap to clone; all clones share routes, connections and timestamps.
#[derive(Clone)]
pub struct Client {
    core: Arc<Core>,
}

impl Client {
    /// Connects over gRPC.
    ///
    /// # Errors
    /// [`ClientError::Connect`] if no endpoint answers in time.
    pub async fn connect(
        options: ClientOptions,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self, ClientError> {
        let connector =
            GrpcConnector::new(runtime.clone(), options.connect_timeout, options.attempt_timeout);
        Self::connect_with(options, Arc::new(connector), runtime).await
    }

    /// Connects over channels of another kind.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_with(
        options: ClientOptions,
        connector: Arc<dyn Connector>,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self, ClientError> {
        let core = Core::connect(options, connector, runtime).await?;
        Ok(Self { core: Arc::new(core) })
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The raw API.
    pub fn raw(&self) -> RawClient {
        RawClient::new(self.core.clone())
    }

    /// Administration, by the same endpoints.
    pub fn admin(&self) -> AdminClient {
        let core = &self.core;
        AdminClient::with_connector(
            core.options.clone(),
            core.connector.clone(),
            core.runtime.clone(),
        )
    }

    /// A timestamp above every one handed out so far.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn timestamp(&self) -> Result<Timestamp, ClientError> {
        self.core.timestamp(&self.core.call("timestamp", Effect::Read)).await
    }

    /// Begins an optimistic transaction.
    ///
    /// # Errors
    /// [`ClientError`] if there is no timestamp to be had.
    pub async fn begin(&self) -> Result<Transaction, ClientError> {
        let call = self.core.call("begin", Effect::Read);
        let start_ts = self.core.timestamp(&call).await?;
        Ok(Transaction::new(self.core.clone(), start_ts))
    }

    /// Reads at `ts`, which must not be above the timestamps handed out so far: what commits later
    /// below it would be missed.
    pub fn snapshot(&self, ts: Timestamp) -> Snapshot {
        Snapshot::new(self.core.clone(), ts)
    }

    /// The cluster's id.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn cluster_id(&self) -> Result<ClusterId, ClientError> {
        let mut call = self.core.call("cluster id", Effect::Read);
        let ask = self.core.ask_pd(&mut call, |pd| async move { pd.members().await });
        Ok(ask.await?.cluster)
    }

    /// The first `limit` ranges (0: all) that overlap `span` (encoded bounds), in order.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ranges(&self, span: KeyRange, limit: u32) -> Result<Vec<Placed>, ClientError> {
        let mut call = self.core.call("ranges", Effect::Read);
        self.core
            .ask_pd(&mut call, move |pd| {
                let span = span.clone();
                async move { pd.scan_regions(span, limit).await }
            })
            .await
    }

    /// Makes plain user keys bounds; those that are bounds already stay as they are. The ranges
    /// that the splits made or shrank.
    ///
    /// # Errors
    /// [`ClientError`]; any of the splits may have happened.
    pub async fn split(
        &self,
        keys: impl IntoIterator<Item = impl Into<Bytes>>,
    ) -> Result<Vec<RangeDescriptor>, ClientError> {
        let keys: Result<Vec<_>, _> =
            keys.into_iter().map(|key| checked_key(key).map(TxnKey)).collect();
        let mut call = self.core.call("split", Effect::Idempotent);
        let answers = self
            .core
            .send_grouped(&mut call, keys?, |group| kvrpcpb::SplitRegionRequest {
                split_keys: group.iter().map(|key| key.0.clone()).collect(),
                ..Default::default()
            })
            .await?;
        let mut ranges = HashMap::new();
        for (_, answer) in answers {
            if let Some(error) = answer.errors.first() {
                return Err(ClientError::server(format!("{error:?}")));
            }
            for region in answer.regions {
                let range = RangeDescriptor::try_from(region).map_err(|error| {
                    ClientError::Protocol { what: "split", why: error.to_string() }
                })?;
                self.core.learn(Placed { range: range.clone(), leader: None });
                ranges.insert(range.id, range);
            }
        }
        let mut ranges: Vec<_> = ranges.into_values().collect();
        ranges.sort_unstable_by(|a, b| a.span.start.cmp(&b.span.start));
        Ok(ranges)
    }

    /// Drops every version and lock of every plain key in `span` on all stores at once, without
    /// regard to transactions. For data that nobody uses any more.
    ///
    /// # Errors
    /// [`ClientError`]; any part may have happened.
    pub async fn unsafe_destroy_range(&self, span: KeyRange) -> Result<(), ClientError> {
        let mut call = self.core.call("destroy range", Effect::Idempotent);
        let stores =
            self.core.ask_pd(&mut call, |pd| async move { pd.get_all_stores().await }).await?;
        let outcomes = stores.into_iter().map(|store| self.destroy_at(store, &span));
        futures::future::try_join_all(outcomes).await.map(|_| ())
    }

    async fn destroy_at(&self, store: StoreAddress, span: &KeyRange) -> Result<(), ClientError> {
        let what = "destroy range";
        let core = &self.core;
        let work = async {
            let channel = core.connector.connect_store(&store.address).await?;
            let request = kvrpcpb::UnsafeDestroyRangeRequest {
                context: None,
                start_key: span.start.clone(),
                end_key: span.end.clone(),
            };
            channel.unary(UnaryRequest::UnsafeDestroyRange(request)).await
        };
        let answer = core.runtime.timeout(core.options.timeout, work).await;
        let answer = answer.unwrap_or_else(|timed_out| {
            Err(ChannelError::Unknown(format!("store {}: {timed_out}", store.id)))
        });
        match answer.map_err(|error| ClientError::from_channel(what, error))? {
            UnaryAnswer::UnsafeDestroyRange(answer) if answer.error.is_empty() => Ok(()),
            UnaryAnswer::UnsafeDestroyRange(answer) => Err(ClientError::server(answer.error)),
            _ => Err(ClientError::Protocol { what, why: "another answer".to_owned() }),
        }
    }

    /// Versions below this timestamp may be gone.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn gc_safe_point(&self) -> Result<Timestamp, ClientError> {
        let mut call = self.core.call("gc safe point", Effect::Read);
        self.core.ask_pd(&mut call, |pd| async move { pd.gc_safe_point().await }).await
    }

    /// Raises the safe point; what holds now.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn update_gc_safe_point(&self, ts: Timestamp) -> Result<Timestamp, ClientError> {
        let mut call = self.core.call("update gc safe point", Effect::Idempotent);
        self.core
            .ask_pd(&mut call, move |pd| async move { pd.update_gc_safe_point(ts).await })
            .await
    }
}
