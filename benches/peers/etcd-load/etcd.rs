//! The little of etcd's API (`etcdserverpb`) that a load needs, written out by hand: field numbers are
//! those of etcd's `rpc.proto`; fields that are not read are left out and skipped on decoding.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// How long to look for a leader before giving up.
const LEADER_WAIT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// As long as `cribwork` commands wait; a request over it counts as an error.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(bytes = "bytes", repeated, tag = "2")]
    key_values: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// One HTTP/2 connection to one member. Clones share it.
#[derive(Clone)]
pub(crate) struct Client {
    grpc: Grpc<Channel>,
}

impl Client {
    pub(crate) async fn connect(address: &str) -> anyhow::Result<Client> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .tcp_nodelay(true)
            .connect()
            .await
            .with_context(|| format!("cannot connect to {address}"))?;
        Ok(Client { grpc: Grpc::new(channel) })
    }

    /// Acknowledged once a majority has it on disk.
    pub(crate) async fn put(&mut self, key: Bytes, value: Bytes) -> Result<(), Status> {
        let _: Empty = self.call("/etcdserverpb.KV/Put", PutRequest { key, value }).await?;
        Ok(())
    }

    /// Linearizable; whether the key exists.
    pub(crate) async fn get(&mut self, key: Bytes) -> Result<bool, Status> {
        let found: RangeResponse =
            self.call("/etcdserverpb.KV/Range", RangeRequest { key }).await?;
        Ok(!found.key_values.is_empty())
    }

    async fn is_leader(&mut self) -> Result<bool, Status> {
        let status: StatusResponse =
            self.call("/etcdserverpb.Maintenance/Status", Empty {}).await?;
        let member = status.header.map_or(0, |header| header.member_id);
        Ok(member != 0 && status.leader == member)
    }

    async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        self.grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = ProstCodec::<Q, A>::default();
        let path = PathAndQuery::from_static(path);
        Ok(self.grpc.unary(Request::new(request), path, codec).await?.into_inner())
    }
}

/// The address of the leader, waiting for one to be elected.
pub(crate) async fn find_leader(addresses: &[String]) -> anyhow::Result<String> {
    let start = Instant::now();
    while start.elapsed() < LEADER_WAIT {
        for address in addresses {
            if let Ok(mut client) = Client::connect(address).await
                && client.is_leader().await.unwrap_or(false)
            {
                return Ok(address.clone());
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("no member of {} leads after {LEADER_WAIT:?}", addresses.join(","))
}
