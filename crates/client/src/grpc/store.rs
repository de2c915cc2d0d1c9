//! A store over gRPC: one batch stream, opened when it is first needed, and unary calls.

use std::sync::Arc;

use async_trait::async_trait;
use cribwork_proto::tikvpb::tikv_client::TikvClient;
use cribwork_types::Runtime;
use parking_lot::RwLock;
use tonic::transport::Channel;

use super::batch::{BatchStream, Gather, Receiver};
use super::{ANSWER_BYTES_MAX, chain, channel_error};
use crate::channel::{Answer, ChannelError, Command, StoreChannel, UnaryAnswer, UnaryRequest};

pub(super) struct GrpcStore {
    client: TikvClient<Channel>,
    runtime: Arc<dyn Runtime>,
    stream: RwLock<Option<Arc<BatchStream>>>,
}

impl GrpcStore {
    pub(super) fn new(channel: Channel, runtime: Arc<dyn Runtime>) -> Self {
        let client = TikvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        Self { client, runtime, stream: RwLock::default() }
    }

    fn stream(&self) -> Arc<BatchStream> {
        let is_open = |stream: &Arc<BatchStream>| !stream.is_closed();
        if let Some(stream) = self.stream.read().clone().filter(is_open) {
            return stream;
        }
        let mut slot = self.stream.write();
        if let Some(stream) = slot.clone().filter(is_open) {
            return stream;
        }
        let (stream, gather) = BatchStream::new();
        self.runtime.spawn(Box::pin(run(self.client.clone(), gather, stream.receiver())));
        slot.insert(Arc::new(stream)).clone()
    }
}

/// Lives as long as the stream. Some servers answer nothing before they have got a request, so
/// nobody waits for the stream to be open.
async fn run(mut client: TikvClient<Channel>, gather: Gather, receiver: Receiver) {
    let mut answers = match client.batch_commands(gather).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return receiver.close(&chain(&status)),
    };
    let why = loop {
        match answers.message().await {
            Ok(Some(batch)) => receiver.deliver(batch),
            Ok(None) => break "the store ended the stream".to_owned(),
            Err(status) => break chain(&status),
        }
    };
    receiver.close(&why);
}

#[async_trait]
impl StoreChannel for GrpcStore {
    async fn call(&self, command: Command) -> Result<Answer, ChannelError> {
        self.stream().call(command).await
    }

    async fn unary(&self, request: UnaryRequest) -> Result<UnaryAnswer, ChannelError> {
        let mut client = self.client.clone();
        let answer = match request {
            UnaryRequest::RawCompareAndSwap(request) => client
                .raw_compare_and_swap(request)
                .await
                .map(|answer| UnaryAnswer::RawCompareAndSwap(answer.into_inner())),
            UnaryRequest::RawGetKeyTtl(request) => client
                .raw_get_key_ttl(request)
                .await
                .map(|answer| UnaryAnswer::RawGetKeyTtl(answer.into_inner())),
            UnaryRequest::RawChecksum(request) => client
                .raw_checksum(request)
                .await
                .map(|answer| UnaryAnswer::RawChecksum(answer.into_inner())),
            UnaryRequest::UnsafeDestroyRange(request) => client
                .unsafe_destroy_range(request)
                .await
                .map(|answer| UnaryAnswer::UnsafeDestroyRange(answer.into_inner())),
            UnaryRequest::SplitRegion(request) => client
                .split_region(request)
                .await
                .map(|answer| UnaryAnswer::SplitRegion(answer.into_inner())),
        };
        answer.map_err(channel_error)
    }
}
