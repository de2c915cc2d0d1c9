//! Bad input over the wire: every request gets a typed answer, and the nodes live on.

mod garbage;
mod hostile;
mod misdirected;
mod pause;
mod placement;
mod sizes;
mod unsupported;

use std::time::Duration;

use bytes::Bytes;
use cribwork_proto::kvrpcpb::{Context, RawGetRequest, RawPutRequest};
use cribwork_proto::pdpb::pd_client::PdClient;
use cribwork_proto::tikvpb::tikv_client::TikvClient;
use cribwork_proto::{metapb, pdpb};
use cribwork_tests::{Cluster, http_get, wait_until_async};
use cribwork_types::limits::MESSAGE_BYTES_MAX;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

/// How long one answer may take, refusals included.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A cluster and bare gRPC clients of it.
struct Wire {
    cluster: Cluster,
    runtime: Runtime,
    cluster_id: u64,
}

impl Wire {
    fn start(nodes: usize, ranges: u32) -> Self {
        let cluster = Cluster::with_ranges(nodes, ranges);
        let cluster_id = cluster.json(&["status"])["cluster_id"].as_u64().unwrap();
        Self { cluster, runtime: Runtime::new().unwrap(), cluster_id }
    }

    /// Runs one exchange; no answer at all is a failure.
    #[track_caller]
    fn ask<T>(&self, exchange: impl Future<Output = T>) -> T {
        let answer =
            self.runtime.block_on(async { tokio::time::timeout(ANSWER_LIMIT, exchange).await });
        answer.expect("an answer in time")
    }

    fn channel(&self, address: &str) -> Channel {
        let _inside = self.runtime.enter();
        Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy()
    }

    /// The placement service of a node.
    fn pd(&self) -> PdClient<Channel> {
        PdClient::new(self.channel(&self.cluster.endpoints()[0]))
    }

    /// The key-value service of a store; store `i` is node `i - 1`.
    fn tikv(&self, store: u64) -> TikvClient<Channel> {
        let address = self.cluster.endpoints()[store as usize - 1].clone();
        let client = TikvClient::new(self.channel(&address));
        client.max_decoding_message_size(2 * MESSAGE_BYTES_MAX)
    }

    fn header(&self) -> Option<pdpb::RequestHeader> {
        Some(pdpb::RequestHeader { cluster_id: self.cluster_id, ..Default::default() })
    }

    /// The range that holds a raw key, once it has a leader.
    fn range_of(&self, key: &[u8]) -> (metapb::Region, metapb::Peer) {
        let found = wait_until_async("the range has a leader", ANSWER_LIMIT, || async {
            let request = pdpb::GetRegionRequest {
                header: self.header(),
                region_key: Bytes::copy_from_slice(key),
                ..Default::default()
            };
            let answer = self.pd().get_region(request).await.map_err(|error| error.to_string())?;
            let answer = answer.into_inner();
            let words = format!("{answer:?}");
            answer.region.zip(answer.leader).ok_or(words)
        });
        self.runtime.block_on(found)
    }

    /// What a right request for `key` carries.
    fn context(&self, key: &[u8]) -> Context {
        let (range, leader) = self.range_of(key);
        Context {
            region_id: range.id,
            region_epoch: range.region_epoch,
            peer: Some(leader),
            ..Default::default()
        }
    }

    /// The store that leads the range of `key`.
    fn leader(&self, key: &[u8]) -> TikvClient<Channel> {
        self.tikv(self.range_of(key).1.store_id)
    }

    /// Puts a key and reads it again, as a right request.
    fn put_and_get(&self, key: &[u8], value: &[u8]) {
        let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        let mut tikv = self.leader(&key);
        let context = Some(self.context(&key));
        let put = RawPutRequest {
            context: context.clone(),
            key: key.clone(),
            value: value.clone(),
            ..Default::default()
        };
        let answer = self.ask(tikv.raw_put(put)).unwrap().into_inner();
        assert!(answer.region_error.is_none() && answer.error.is_empty(), "{answer:?}");
        let get = RawGetRequest { context, key, ..Default::default() };
        let answer = self.ask(tikv.raw_get(get)).unwrap().into_inner();
        assert!(answer.value == value && !answer.not_found, "{answer:?}");
    }

    /// Checks that every node still runs and serves.
    fn lives(&mut self) {
        for node in self.cluster.nodes() {
            assert!(node.is_running(), "a node has ended");
            let health = http_get(&node.flags().http, "/health");
            assert_eq!(health.map(|answer| answer.0), Ok(200));
        }
        self.put_and_get(b"it lives", b"yes");
    }
}
