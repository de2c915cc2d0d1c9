//! One node's administration service over gRPC.

use async_trait::async_trait;
use cribwork_proto::cribwork::admin;
use cribwork_proto::cribwork::admin::admin_client::AdminClient;
use cribwork_proto::cribwork::admin::{
    GetRangeRequest, GetRangeResponse, InitRequest, InitResponse, NodesRequest, NodesResponse,
    RangesRequest, RangesResponse, SplitRequest, SplitResponse, StatusRequest, StatusResponse,
    TransferLeaderRequest,
};
use cribwork_types::{RangeId, StoreId};
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::{ANSWER_BYTES_MAX, channel_error};
use crate::channel::{AdminChannel, ChannelError};

pub(super) struct GrpcAdmin {
    client: AdminClient<Channel>,
}

impl GrpcAdmin {
    pub(super) fn new(channel: Channel) -> Self {
        Self { client: AdminClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX) }
    }
}

fn answer<T>(response: Result<Response<T>, Status>) -> Result<T, ChannelError> {
    response.map(Response::into_inner).map_err(channel_error)
}

#[async_trait]
impl AdminChannel for GrpcAdmin {
    async fn init(&self, request: InitRequest) -> Result<InitResponse, ChannelError> {
        answer(self.client.clone().init(request).await)
    }

    async fn status(&self) -> Result<StatusResponse, ChannelError> {
        answer(self.client.clone().status(StatusRequest {}).await)
    }

    async fn nodes(&self) -> Result<NodesResponse, ChannelError> {
        answer(self.client.clone().nodes(NodesRequest {}).await)
    }

    async fn ranges(&self, request: RangesRequest) -> Result<RangesResponse, ChannelError> {
        answer(self.client.clone().ranges(request).await)
    }

    async fn range(&self, id: RangeId) -> Result<GetRangeResponse, ChannelError> {
        answer(self.client.clone().get_range(GetRangeRequest { id: id.get() }).await)
    }

    async fn split(&self, request: SplitRequest) -> Result<SplitResponse, ChannelError> {
        answer(self.client.clone().split(request).await)
    }

    async fn transfer_leader(&self, range: RangeId, to: StoreId) -> Result<(), ChannelError> {
        let request = TransferLeaderRequest { range: range.get(), store: to.get() };
        answer(self.client.clone().transfer_leader(request).await).map(|_| ())
    }

    async fn move_replica(
        &self,
        request: admin::MoveReplicaRequest,
    ) -> Result<admin::Progress, ChannelError> {
        answer(self.client.clone().move_replica(request).await)
    }

    async fn merge(&self, request: admin::MergeRequest) -> Result<admin::Progress, ChannelError> {
        answer(self.client.clone().merge(request).await)
    }

    async fn verify_range(&self, id: RangeId) -> Result<admin::VerifyRangeResponse, ChannelError> {
        let request = admin::VerifyRangeRequest { range: id.get() };
        answer(self.client.clone().verify_range(request).await)
    }

    async fn drain(&self, request: admin::DrainRequest) -> Result<admin::Progress, ChannelError> {
        answer(self.client.clone().drain(request).await)
    }

    async fn decommission(
        &self,
        request: admin::DecommissionRequest,
    ) -> Result<admin::Progress, ChannelError> {
        answer(self.client.clone().decommission(request).await)
    }

    async fn explain(
        &self,
        request: admin::ExplainRequest,
    ) -> Result<admin::ExplainResponse, ChannelError> {
        answer(self.client.clone().explain(request).await)
    }

    async fn config(
        &self,
        request: admin::ConfigRequest,
    ) -> Result<admin::ConfigResponse, ChannelError> {
        answer(self.client.clone().config(request).await)
    }
}
