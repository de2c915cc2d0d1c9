//! Administration by whichever endpoint answers.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cribwork_proto::cribwork::admin;
use cribwork_types::{RangeId, StoreId};

use crate::testing::TestRuntime;
use crate::{
    AdminChannel, AdminClient, ChannelError, ClientError, ClientOptions, Connector, PdChannel,
    StoreChannel,
};

/// The endpoint `down` refuses connections, `mute` loses answers, the others serve.
struct Nodes;

struct Node(String);

#[async_trait]
impl Connector for Nodes {
    async fn connect_store(&self, _: &str) -> Result<Arc<dyn StoreChannel>, ChannelError> {
        Err(ChannelError::refused("not here"))
    }

    async fn connect_pd(&self, _: &[String]) -> Result<Arc<dyn PdChannel>, ChannelError> {
        Err(ChannelError::refused("not here"))
    }

    async fn connect_admin(&self, endpoint: &str) -> Result<Arc<dyn AdminChannel>, ChannelError> {
        match endpoint {
            "down" => Err(ChannelError::Unsent("connection refused".into())),
            endpoint => Ok(Arc::new(Node(endpoint.into()))),
        }
    }
}

impl Node {
    fn answer<T>(&self, answer: T) -> Result<T, ChannelError> {
        match self.0.as_str() {
            "mute" => Err(ChannelError::Unknown("the connection broke".into())),
            _ => Ok(answer),
        }
    }
}

#[async_trait]
impl AdminChannel for Node {
    async fn init(&self, _: admin::InitRequest) -> Result<admin::InitResponse, ChannelError> {
        self.answer(())?;
        Err(ChannelError::Refused {
            code: "CW-SERVER-INITIALISED".into(),
            message: "already initialised".into(),
            hint: String::new(),
            retryable: false,
        })
    }

    async fn status(&self) -> Result<admin::StatusResponse, ChannelError> {
        self.answer(admin::StatusResponse { nodes_up: 3, ..Default::default() })
    }

    async fn nodes(&self) -> Result<admin::NodesResponse, ChannelError> {
        self.answer(Default::default())
    }

    async fn ranges(
        &self,
        request: admin::RangesRequest,
    ) -> Result<admin::RangesResponse, ChannelError> {
        // Pages of two out of five ranges, whose bounds are single bytes.
        let first = request.start_key.first().copied().unwrap_or(0);
        let range = |start: u8| admin::RangeInfo {
            id: u64::from(start) + 1,
            start: if start == 0 { Bytes::new() } else { vec![start].into() },
            end: if start == 4 { Bytes::new() } else { vec![start + 1].into() },
            ..Default::default()
        };
        let ranges = (first..5).take(2).map(range).collect();
        self.answer(admin::RangesResponse { ranges })
    }

    async fn range(&self, _: RangeId) -> Result<admin::GetRangeResponse, ChannelError> {
        self.answer(Default::default())
    }

    async fn split(&self, _: admin::SplitRequest) -> Result<admin::SplitResponse, ChannelError> {
        self.answer(Default::default())
    }

    async fn transfer_leader(&self, _: RangeId, _: StoreId) -> Result<(), ChannelError> {
        self.answer(())
    }

    async fn move_replica(
        &self,
        _: admin::MoveReplicaRequest,
    ) -> Result<admin::Progress, ChannelError> {
        self.answer(Default::default())
    }

    async fn merge(&self, _: admin::MergeRequest) -> Result<admin::Progress, ChannelError> {
        self.answer(Default::default())
    }

    async fn verify_range(&self, _: RangeId) -> Result<admin::VerifyRangeResponse, ChannelError> {
        self.answer(Default::default())
    }

    async fn drain(&self, _: admin::DrainRequest) -> Result<admin::Progress, ChannelError> {
        self.answer(Default::default())
    }

    async fn decommission(
        &self,
        _: admin::DecommissionRequest,
    ) -> Result<admin::Progress, ChannelError> {
        self.answer(Default::default())
    }

    async fn explain(
        &self,
        _: admin::ExplainRequest,
    ) -> Result<admin::ExplainResponse, ChannelError> {
        self.answer(Default::default())
    }

    async fn config(&self, _: admin::ConfigRequest) -> Result<admin::ConfigResponse, ChannelError> {
        self.answer(Default::default())
    }
}

fn client(endpoints: &[&str]) -> AdminClient {
    let options = ClientOptions::new(endpoints.iter().copied());
    AdminClient::with_connector(options, Arc::new(Nodes), TestRuntime::new())
}

#[tokio::test(start_paused = true)]
async fn reads_go_on_to_the_next_endpoint() {
    let status = client(&["down", "mute", "up"]).status().await.unwrap();
    assert_eq!(status.nodes_up, 3);
    assert!(matches!(client(&["down"]).status().await, Err(ClientError::Timeout { .. })));
}

#[tokio::test(start_paused = true)]
async fn changes_are_not_repeated_when_their_answer_is_lost() {
    let outcome = client(&["down", "mute", "up"]).split("k").await;
    assert!(matches!(outcome, Err(ClientError::Unknown { .. })));
    client(&["mute", "up"]).transfer_leader(RangeId(1), StoreId(2)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refusal_keeps_its_code() {
    let error = client(&["up"]).init(4).await.unwrap_err();
    let ClientError::Refused { server_code, message, .. } = error else { panic!("{error}") };
    assert_eq!((&*server_code, &*message), ("CW-SERVER-INITIALISED", "already initialised"));
}

#[tokio::test(start_paused = true)]
async fn pages_are_put_together() {
    let ranges = client(&["up"]).ranges().await.unwrap();
    let ids: Vec<_> = ranges.iter().map(|range| range.id).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5]);
}
