//! The batch stream, and commands in process.

use std::time::Duration;

use cribwork_proto::kvrpcpb::*;
use cribwork_proto::tikvpb::batch_commands_request::request::Cmd;
use cribwork_proto::tikvpb::batch_commands_response::response::Cmd as Reply;
use cribwork_proto::tikvpb::{
    BatchCommandsEmptyRequest, BatchCommandsRequest, BatchCommandsResponse, batch_commands_request,
};
use cribwork_types::RuntimeExt;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::kv::KvLimits;
use crate::kv::testing::{LOW, Node};

type Answers = ReceiverStream<Result<BatchCommandsResponse, Status>>;

struct Client {
    requests: mpsc::Sender<Result<BatchCommandsRequest, Status>>,
    answers: Answers,
}

impl Client {
    fn connect(node: &Node) -> Self {
        let (requests, input) = mpsc::channel(4);
        let answers = node.service.pump(ReceiverStream::new(input));
        Self { requests, answers }
    }

    async fn send(&self, cmds: Vec<(u64, Option<Cmd>)>) {
        let (request_ids, requests) =
            cmds.into_iter().map(|(id, cmd)| (id, batch_commands_request::Request { cmd })).unzip();
        self.requests.send(Ok(BatchCommandsRequest { requests, request_ids })).await.unwrap();
    }

    /// One message: ids and answers.
    async fn next(&mut self) -> Vec<(u64, Option<Reply>)> {
        let message = self.answers.next().await.unwrap().unwrap();
        assert_eq!(message.responses.len(), message.request_ids.len());
        let replies = message.responses.into_iter().map(|response| response.cmd);
        message.request_ids.into_iter().zip(replies).collect()
    }

    async fn collect(&mut self, count: usize) -> Vec<(u64, Option<Reply>)> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(self.next().await);
        }
        all.sort_by_key(|(id, _)| *id);
        all
    }
}

fn put(node: &Node, key: &str, for_cas: bool) -> Option<Cmd> {
    let (context, value) = (node.context(LOW), key.to_owned().into());
    let key = key.to_owned().into();
    Some(Cmd::RawPut(RawPutRequest { context, key, value, for_cas, ..Default::default() }))
}

fn get(node: &Node, key: &str) -> Option<Cmd> {
    let (context, key) = (node.context(LOW), key.to_owned().into());
    Some(Cmd::RawGet(RawGetRequest { context, key, ..Default::default() }))
}

#[tokio::test]
async fn answers_find_their_questions() {
    let node = Node::single().await;
    let mut client = Client::connect(&node);
    client.send((0..100).map(|id| (id, put(&node, &format!("k{id}"), false))).collect()).await;
    for (id, reply) in client.collect(100).await {
        assert_eq!(reply, Some(Reply::RawPut(RawPutResponse::default())), "{id}");
    }
    client.send((0..100).map(|id| (id, get(&node, &format!("k{id}")))).collect()).await;
    let answers = client.next().await;
    assert_eq!(answers.len(), 100, "reads of one message are answered by one message");
    for (id, reply) in answers {
        let Some(Reply::RawGet(answer)) = reply else { panic!("{reply:?}") };
        assert_eq!(answer.value, format!("k{id}"));
    }
}

#[tokio::test]
async fn probes_unknown_and_missing_commands_are_answered() {
    let node = Node::single().await;
    let mut client = Client::connect(&node);
    let probe = Cmd::Empty(BatchCommandsEmptyRequest { test_id: 9, delay_time: 0 });
    let lock = Cmd::PessimisticLock(PessimisticLockRequest::default());
    client.send(vec![(1, Some(probe)), (2, None), (3, Some(lock))]).await;
    let answers = client.collect(3).await;
    assert!(matches!(&answers[0], (1, Some(Reply::Empty(echo))) if echo.test_id == 9));
    assert_eq!(answers[1], (2, None));
    let (3, Some(Reply::PessimisticLock(answer))) = &answers[2] else { panic!("{answers:?}") };
    assert!(answer.errors[0].abort.contains("KvPessimisticLock"));
    let uneven = BatchCommandsRequest { request_ids: vec![1], ..Default::default() };
    client.requests.send(Ok(uneven)).await.unwrap();
    assert_eq!(
        client.answers.next().await.unwrap().unwrap_err().code(),
        tonic::Code::InvalidArgument
    );
    assert!(client.answers.next().await.is_none());
}

#[tokio::test]
async fn a_command_that_waits_holds_up_no_other_and_outlives_its_client() {
    let node = Node::single().await;
    let held = node.service.core.latch_for_test(b"slow").await;
    let mut client = Client::connect(&node);
    client
        .send(vec![
            (1, put(&node, "slow", true)),
            (2, put(&node, "fast", false)),
            (3, get(&node, "other")),
        ])
        .await;
    let ids: Vec<u64> = client.collect(2).await.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [2, 3]);
    // The client goes away; its write, once it gets its turn, is made all the same.
    drop(client);
    drop(held);
    let read =
        RawGetRequest { context: node.context(LOW), key: "slow".into(), ..Default::default() };
    let written = async {
        while node.call(read.clone()).await.not_found {
            tokio::task::yield_now().await;
        }
    };
    let runtime = &node.service.core.runtime;
    runtime.timeout(Duration::from_secs(10), written).await.unwrap();
}

#[tokio::test]
async fn bounds_are_answered_by_busy() {
    let limits = KvLimits { stream_commands_max: 2, latch_waiters_max: 1, ..Default::default() };
    let node = Node::single_with(limits).await;
    let held = node.service.core.latch_for_test(b"slow").await;
    let mut client = Client::connect(&node);
    client.send((1..=3).map(|id| (id, put(&node, "slow", true))).collect()).await;
    // One may wait for the latch, one more may run, and a third may not.
    let busy = client.collect(2).await;
    for (id, reply) in busy {
        let Some(Reply::RawPut(answer)) = reply else { panic!("{reply:?}") };
        let error = answer.region_error.unwrap().server_is_busy.unwrap();
        assert!((2..=3).contains(&id) && error.backoff_ms == 100, "{error:?}");
    }
    drop(held);
    assert_eq!(client.collect(1).await[0].0, 1);
    let none = KvLimits { commands_in_flight_max: 0, ..Default::default() };
    let node = Node::single_with(none).await;
    let Some(Cmd::RawPut(request)) = put(&node, "a", false) else { unreachable!() };
    assert!(node.call(request).await.region_error.unwrap().server_is_busy.is_some());
}

#[tokio::test]
async fn commands_run_in_process() {
    let node = Node::single().await;
    let answer = node.service.execute(put(&node, "a", true).unwrap()).await;
    assert_eq!(answer, Reply::RawPut(RawPutResponse::default()));
    let Reply::RawGet(answer) = node.service.execute(get(&node, "a").unwrap()).await else {
        panic!("another answer")
    };
    assert_eq!(answer.value, "a");
}
