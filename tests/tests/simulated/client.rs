//! A client of the simulated cluster: bare gRPC, with patience.

use std::time::Duration;

use bytes::Bytes;
use cribwork_proto::cribwork::admin::InitRequest;
use cribwork_proto::cribwork::admin::admin_client::AdminClient;
use cribwork_proto::kvrpcpb::{Context, RawGetRequest, RawPutRequest};
use cribwork_proto::pdpb;
use cribwork_proto::pdpb::pd_client::PdClient;
use cribwork_proto::tikvpb::tikv_client::TikvClient;
use tonic::Status;
use tonic::transport::Channel;

use crate::host::{HOSTS, address};
use crate::network::connect;
use crate::runtime::until;

/// Time limit of one call.
const CALL_LIMIT: Duration = Duration::from_millis(500);

/// Knows the nodes by name.
pub(crate) struct Client;

/// A call that did not answer, or answered with an error; worth another attempt.
#[derive(Debug)]
#[expect(dead_code, reason = "shown if the simulation's time is over")]
struct Failed(String);

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self(status.to_string())
    }
}

async fn limited<T>(call: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    let late = |_| Failed("too slow".to_owned());
    tokio::time::timeout(CALL_LIMIT, call).await.map_err(late).flatten()
}

async fn channel(name: &str) -> Result<Channel, Failed> {
    let unreachable = |error| Failed(format!("{error:?}"));
    limited(async { connect(&address(name)).await.map_err(unreachable) }).await
}

impl Client {
    pub(crate) fn new() -> Self {
        Self
    }

    /// Makes the nodes a cluster.
    pub(crate) async fn init(&self) {
        let made = async || -> Result<_, Failed> {
            let mut admin = AdminClient::new(channel(HOSTS[0]).await?);
            Ok(admin.init(InitRequest { ranges: 1 }).await?)
        };
        until(async || made().await.ok()).await;
    }

    /// The store that leads the range of `key`, and what a request to it carries.
    async fn route(&self, key: &[u8]) -> Result<(TikvClient<Channel>, Context), Failed> {
        for name in HOSTS {
            let Ok(channel) = channel(name).await else { continue };
            let request = pdpb::GetRegionRequest {
                region_key: Bytes::copy_from_slice(key),
                ..Default::default()
            };
            let ask = async { Ok(PdClient::new(channel).get_region(request).await?) };
            let Ok(answer) = limited(ask).await else { continue };
            let answer = answer.into_inner();
            if let (Some(region), Some(peer)) = (answer.region, answer.leader) {
                let leader = HOSTS[peer.store_id as usize - 1];
                let context = Context {
                    region_id: region.id,
                    region_epoch: region.region_epoch,
                    peer: Some(peer),
                    ..Default::default()
                };
                return Ok((TikvClient::new(self::channel(leader).await?), context));
            }
        }
        Err(Failed("no leader is known".to_owned()))
    }

    /// Puts, again until it is acknowledged.
    pub(crate) async fn put(&self, key: &'static [u8], value: &'static [u8]) {
        let attempt = async || {
            let (mut tikv, context) = self.route(key).await?;
            let request = RawPutRequest {
                context: Some(context),
                key: key.into(),
                value: value.into(),
                ..Default::default()
            };
            let answer = limited(async { Ok(tikv.raw_put(request).await?) }).await?.into_inner();
            match answer.region_error.is_none() && answer.error.is_empty() {
                true => Ok(()),
                false => Err(Failed(format!("{answer:?}"))),
            }
        };
        until(async || attempt().await.ok()).await;
    }

    /// Reads, again until the leader answers.
    pub(crate) async fn get(&self, key: &'static [u8]) -> Option<Bytes> {
        let attempt = async || {
            let (mut tikv, context) = self.route(key).await?;
            let request =
                RawGetRequest { context: Some(context), key: key.into(), ..Default::default() };
            let answer = limited(async { Ok(tikv.raw_get(request).await?) }).await?.into_inner();
            match answer.region_error.is_none() && answer.error.is_empty() {
                true => Ok((!answer.not_found).then_some(answer.value)),
                false => Err(Failed(format!("{answer:?}"))),
            }
        };
        until(async || attempt().await.ok()).await
    }
}
