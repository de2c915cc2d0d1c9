//! The placement service over gRPC. Any node answers, and forwards to the leader; asking the leader
//! itself saves that hop. A node that fails is left for the next one.

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cribwork_proto::pdpb::pd_client::PdClient;
use cribwork_proto::{ConvertError, metapb, pdpb};
use cribwork_types::{
    ClusterId, KeyRange, RangeDescriptor, RangeId, ReplicaDescriptor, RuntimeExt, StoreId,
    Timestamp,
};
use parking_lot::RwLock;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use super::{ANSWER_BYTES_MAX, GrpcConnector, channel_error};
use crate::channel::{ChannelError, Members, PdChannel, Placed, StoreAddress};

/// Timestamp requests under way on one stream: the client's batcher sends one at a time.
const TSO_QUEUE_MAX: usize = 4;

type Client = PdClient<Channel>;

/// One node that answers.
struct Link {
    client: Client,
    /// Taken out for the time of a request, so that a request that is given up in between leaves no
    /// stream that is one answer behind.
    tso: Mutex<Option<TsoStream>>,
}

struct TsoStream {
    requests: mpsc::Sender<pdpb::TsoRequest>,
    answers: Streaming<pdpb::TsoResponse>,
}

pub(super) struct GrpcPd {
    connector: GrpcConnector,
    /// What the user named.
    endpoints: Vec<String>,
    cluster: ClusterId,
    /// Every address heard of.
    members: RwLock<Vec<String>>,
    link: RwLock<Option<Arc<Link>>>,
    /// Held while a link is sought.
    seeking: Mutex<()>,
}

impl GrpcPd {
    pub(super) async fn connect(
        connector: GrpcConnector,
        endpoints: Vec<String>,
    ) -> Result<Self, ChannelError> {
        let mut pd = Self {
            connector,
            members: RwLock::new(Vec::new()),
            endpoints,
            cluster: ClusterId(0),
            link: RwLock::new(None),
            seeking: Mutex::default(),
        };
        let (link, members) = pd.seek().await?;
        pd.cluster = members.cluster;
        pd.adopt(link, members);
        Ok(pd)
    }

    fn header(&self) -> Option<pdpb::RequestHeader> {
        Some(pdpb::RequestHeader { cluster_id: self.cluster.get(), sender_id: 0 })
    }

    fn adopt(&self, link: Arc<Link>, members: Members) {
        *self.members.write() = members.addresses;
        *self.link.write() = Some(link);
    }

    async fn try_node(&self, address: &str) -> Result<(Arc<Link>, Members), ChannelError> {
        let channel = self.connector.open(address).await?;
        let client = Client::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let mut asked = client.clone();
        let limit = self.connector.attempt_timeout;
        let request = asked.get_members(pdpb::GetMembersRequest::default());
        let response = self.connector.runtime.timeout(limit, request).await;
        let response = response
            .map_err(|timed_out| ChannelError::Unknown(format!("{address}: {timed_out}")))?
            .map_err(channel_error)?
            .into_inner();
        let cluster = checked(response.header)?;
        if self.cluster != ClusterId(0) && cluster != self.cluster {
            let why = format!("{address} belongs to cluster {cluster}, not {}", self.cluster);
            return Err(ChannelError::refused(why));
        }
        let members = Members {
            cluster,
            addresses: response.members.iter().filter_map(address_of).collect(),
            leader: response.leader.as_ref().and_then(address_of),
        };
        Ok((Arc::new(Link { client, tso: Mutex::default() }), members))
    }

    /// Finds a node that answers, at best the leader.
    async fn seek(&self) -> Result<(Arc<Link>, Members), ChannelError> {
        let mut addresses = self.endpoints.clone();
        for member in self.members.read().iter() {
            if !addresses.contains(member) {
                addresses.push(member.clone());
            }
        }
        // Not all clients at the same node.
        let start = self.connector.runtime.random_u64() as usize % addresses.len().max(1);
        addresses.rotate_left(start);
        let mut last = ChannelError::Unsent("no endpoints".to_owned());
        for address in addresses {
            match self.try_node(&address).await {
                Ok(found) => {
                    let leader = found.1.leader.clone().filter(|leader| *leader != address);
                    let Some(leader) = leader else {
                        return Ok(found);
                    };
                    return Ok(self.try_node(&leader).await.unwrap_or(found));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn link(&self) -> Result<Arc<Link>, ChannelError> {
        if let Some(link) = self.link.read().clone() {
            return Ok(link);
        }
        let _seeking = self.seeking.lock().await;
        if let Some(link) = self.link.read().clone() {
            return Ok(link);
        }
        let (link, members) = self.seek().await?;
        self.adopt(link.clone(), members);
        Ok(link)
    }

    fn drop_link(&self, link: &Arc<Link>) {
        let mut current = self.link.write();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, link)) {
            *current = None;
        }
    }

    /// Runs one request, bounded in time; a link that fails is dropped.
    async fn on_link<T, F>(
        &self,
        run: impl FnOnce(Arc<Link>) -> F + Send,
    ) -> Result<T, ChannelError>
    where
        F: Future<Output = Result<T, ChannelError>> + Send,
    {
        let link = self.link().await?;
        let limit = self.connector.attempt_timeout;
        let outcome = self.connector.runtime.timeout(limit, run(link.clone())).await;
        let outcome = outcome.unwrap_or_else(|timed_out| {
            Err(ChannelError::Unknown(format!("placement: {timed_out}")))
        });
        if matches!(outcome, Err(ChannelError::Unsent(_) | ChannelError::Unknown(_))) {
            self.drop_link(&link);
        }
        outcome
    }

    async fn ask<T, F>(&self, call: impl FnOnce(Client) -> F + Send) -> Result<T, ChannelError>
    where
        F: Future<Output = Result<Response<T>, Status>> + Send,
    {
        self.on_link(|link| {
            let answer = call(link.client.clone());
            async move { answer.await.map(Response::into_inner).map_err(channel_error) }
        })
        .await
    }
}

impl Link {
    /// Opens a stream that begins with `request`: some servers say nothing before they have got one.
    async fn open_tso(&self, request: pdpb::TsoRequest) -> Result<TsoStream, ChannelError> {
        let (requests, queue) = mpsc::channel(TSO_QUEUE_MAX);
        let full = |_| ChannelError::Unsent("the timestamp stream is full".to_owned());
        requests.try_send(request).map_err(full)?;
        let answers = self.client.clone().tso(ReceiverStream::new(queue)).await;
        let answers = answers.map_err(channel_error)?.into_inner();
        Ok(TsoStream { requests, answers })
    }

    async fn tso(&self, request: pdpb::TsoRequest) -> Result<Timestamp, ChannelError> {
        let mut slot = self.tso.lock().await;
        let count = request.count;
        let ended = || ChannelError::Unknown("the timestamp stream has ended".to_owned());
        let mut stream = match slot.take() {
            Some(stream) => {
                stream.requests.send(request).await.map_err(|_| ended())?;
                stream
            }
            None => self.open_tso(request).await?,
        };
        let answer = stream.answers.message().await.map_err(channel_error)?.ok_or_else(ended)?;
        checked(answer.header)?;
        let last = answer.timestamp.ok_or_else(|| missing("timestamp"))?;
        let last = Timestamp::try_from(last).map_err(unconvertible)?;
        if answer.count != count || last.logical() + 1 < u64::from(count) {
            return Err(ChannelError::Unknown("a wrong number of timestamps".to_owned()));
        }
        *slot = Some(stream);
        Ok(last)
    }
}

/// The cluster id of an answer that is no error.
fn checked(header: Option<pdpb::ResponseHeader>) -> Result<ClusterId, ChannelError> {
    let header = header.ok_or_else(|| missing("header"))?;
    match header.error {
        None => Ok(ClusterId(header.cluster_id)),
        Some(error) => Err(ChannelError::Refused {
            code: String::new(),
            hint: String::new(),
            // No leader yet, or not everything in the service is known yet.
            retryable: true,
            message: error.message,
        }),
    }
}

fn missing(what: &str) -> ChannelError {
    ChannelError::Unknown(format!("placement's answer has no {what}"))
}

fn unconvertible(error: ConvertError) -> ChannelError {
    ChannelError::Unknown(error.to_string())
}

fn address_of(member: &pdpb::Member) -> Option<String> {
    let url = member.client_urls.first()?;
    Some(url.trim_start_matches("http://").to_owned())
}

fn placed(region: metapb::Region, leader: Option<metapb::Peer>) -> Result<Placed, ChannelError> {
    Ok(Placed {
        range: RangeDescriptor::try_from(region).map_err(unconvertible)?,
        leader: leader.and_then(|peer| ReplicaDescriptor::try_from(peer).ok()),
    })
}

fn found(response: pdpb::GetRegionResponse) -> Result<Option<Placed>, ChannelError> {
    checked(response.header)?;
    response.region.map(|region| placed(region, response.leader)).transpose()
}

#[async_trait]
impl PdChannel for GrpcPd {
    async fn tso(&self, count: u32) -> Result<Timestamp, ChannelError> {
        let request = pdpb::TsoRequest { header: self.header(), count, ..Default::default() };
        self.on_link(|link| async move { link.tso(request).await }).await
    }

    async fn get_region(&self, key: Bytes) -> Result<Option<Placed>, ChannelError> {
        let request =
            pdpb::GetRegionRequest { header: self.header(), region_key: key, need_buckets: false };
        found(self.ask(|mut pd| async move { pd.get_region(request).await }).await?)
    }

    async fn get_prev_region(&self, key: Bytes) -> Result<Option<Placed>, ChannelError> {
        let request =
            pdpb::GetRegionRequest { header: self.header(), region_key: key, need_buckets: false };
        found(self.ask(|mut pd| async move { pd.get_prev_region(request).await }).await?)
    }

    async fn get_region_by_id(&self, id: RangeId) -> Result<Option<Placed>, ChannelError> {
        let request = pdpb::GetRegionByIdRequest {
            header: self.header(),
            region_id: id.get(),
            need_buckets: false,
        };
        found(self.ask(|mut pd| async move { pd.get_region_by_id(request).await }).await?)
    }

    async fn scan_regions(&self, span: KeyRange, limit: u32) -> Result<Vec<Placed>, ChannelError> {
        let request = pdpb::ScanRegionsRequest {
            header: self.header(),
            start_key: span.start,
            limit: i32::try_from(limit).unwrap_or(i32::MAX),
            end_key: span.end,
        };
        let response = self.ask(|mut pd| async move { pd.scan_regions(request).await }).await?;
        checked(response.header)?;
        response
            .regions
            .into_iter()
            .filter_map(|entry| Some(placed(entry.region?, entry.leader)))
            .collect()
    }

    async fn get_store(&self, id: StoreId) -> Result<StoreAddress, ChannelError> {
        let request = pdpb::GetStoreRequest { header: self.header(), store_id: id.get() };
        let response = self.ask(|mut pd| async move { pd.get_store(request).await }).await?;
        checked(response.header)?;
        let store = response.store.ok_or_else(|| missing("store"))?;
        Ok(StoreAddress { id: StoreId(store.id), address: store.address })
    }

    async fn get_all_stores(&self) -> Result<Vec<StoreAddress>, ChannelError> {
        let request =
            pdpb::GetAllStoresRequest { header: self.header(), exclude_tombstone_stores: true };
        let response = self.ask(|mut pd| async move { pd.get_all_stores(request).await }).await?;
        checked(response.header)?;
        let gone = |store: &metapb::Store| store.state() == metapb::StoreState::Tombstone;
        let stores = response.stores.into_iter().filter(|store| !gone(store));
        Ok(stores
            .map(|store| StoreAddress { id: StoreId(store.id), address: store.address })
            .collect())
    }

    async fn members(&self) -> Result<Members, ChannelError> {
        let request = pdpb::GetMembersRequest { header: self.header() };
        let response = self.ask(|mut pd| async move { pd.get_members(request).await }).await?;
        Ok(Members {
            cluster: checked(response.header)?,
            addresses: response.members.iter().filter_map(address_of).collect(),
            leader: response.leader.as_ref().and_then(address_of),
        })
    }

    async fn gc_safe_point(&self) -> Result<Timestamp, ChannelError> {
        let request = pdpb::GetGcSafePointRequest { header: self.header() };
        let response =
            self.ask(|mut pd| async move { pd.get_gc_safe_point(request).await }).await?;
        checked(response.header)?;
        Ok(Timestamp(response.safe_point))
    }

    async fn update_gc_safe_point(&self, ts: Timestamp) -> Result<Timestamp, ChannelError> {
        let request =
            pdpb::UpdateGcSafePointRequest { header: self.header(), safe_point: ts.get() };
        let response =
            self.ask(|mut pd| async move { pd.update_gc_safe_point(request).await }).await?;
        checked(response.header)?;
        Ok(Timestamp(response.new_safe_point))
    }
}
