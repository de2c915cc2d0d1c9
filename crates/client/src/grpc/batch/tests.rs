//! The stream without a network: messages are read from the gatherer and answered by hand.

use bytes::Bytes;
use cribwork_proto::kvrpcpb;
use cribwork_proto::tikvpb::batch_commands_response::Response;
use futures::{FutureExt, StreamExt, join};

use super::*;

fn get(key: &'static str) -> Command {
    let key = Bytes::from_static(key.as_bytes());
    Command::RawGet(kvrpcpb::RawGetRequest { key, ..Default::default() })
}

fn value(value: &'static str) -> Option<Answer> {
    let value = Bytes::from_static(value.as_bytes());
    Some(Answer::RawGet(kvrpcpb::RawGetResponse { value, ..Default::default() }))
}

#[tokio::test]
async fn what_queues_together_leaves_together_and_answers_come_in_any_order() {
    let (stream, mut gather) = BatchStream::new();
    let receiver = stream.receiver();
    let server = async {
        let batch = gather.next().await.unwrap();
        assert_eq!(batch.request_ids, [1, 2]);
        assert_eq!(batch.requests[1].cmd, Some(get("b")));
        receiver.deliver(BatchCommandsResponse {
            responses: vec![Response { cmd: value("B") }, Response { cmd: value("A") }],
            request_ids: vec![2, 1],
            ..Default::default()
        });
    };
    let (a, b, ()) = join!(stream.call(get("a")), stream.call(get("b")), server);
    assert_eq!((a.ok(), b.ok()), (value("A"), value("B")));
    assert!(stream.pending.lock().waiters.is_empty());
}

#[tokio::test]
async fn a_break_tells_sent_from_unsent() {
    let (stream, mut gather) = BatchStream::new();
    let mut first = Box::pin(stream.call(get("a")));
    assert!(first.as_mut().now_or_never().is_none());
    assert_eq!(gather.next().await.unwrap().request_ids, [1]);
    let mut second = Box::pin(stream.call(get("b")));
    assert!(second.as_mut().now_or_never().is_none());
    stream.receiver().close("broken");
    assert_eq!(first.await, Err(ChannelError::Unknown("broken".into())));
    assert_eq!(second.await, Err(ChannelError::Unsent("broken".into())));
    assert_eq!(stream.call(get("c")).await, Err(ChannelError::Unsent("broken".into())));
}

#[tokio::test]
async fn a_caller_that_gives_up_in_time_is_not_sent() {
    let (stream, mut gather) = BatchStream::new();
    let mut first = Box::pin(stream.call(get("a")));
    assert!(first.as_mut().now_or_never().is_none());
    drop(first);
    let mut second = Box::pin(stream.call(get("b")));
    assert!(second.as_mut().now_or_never().is_none());
    let batch = gather.next().await.unwrap();
    assert_eq!((batch.request_ids, batch.requests.len()), (vec![2], 1));
}

#[tokio::test]
async fn large_requests_do_not_share_a_message() {
    let (stream, mut gather) = BatchStream::new();
    let put = || {
        let value = Bytes::from(vec![0; BATCH_BYTES_MAX]);
        Command::RawPut(kvrpcpb::RawPutRequest { value, ..Default::default() })
    };
    let mut calls = [Box::pin(stream.call(put())), Box::pin(stream.call(put()))];
    for call in &mut calls {
        assert!(call.as_mut().now_or_never().is_none());
    }
    assert_eq!(gather.next().await.unwrap().request_ids, [1]);
    assert_eq!(gather.next().await.unwrap().request_ids, [2]);
}

#[tokio::test]
async fn too_many_pending_requests_are_refused() {
    // Tokio's budget would make queues look full to a task that never waits.
    tokio::task::unconstrained(async {
        let (stream, mut gather) = BatchStream::new();
        let mut calls = Vec::new();
        while calls.len() < PENDING_MAX {
            let mut call = Box::pin(stream.call(get("a")));
            assert!(call.as_mut().now_or_never().is_none());
            calls.push(call);
            if calls.len() % BATCH_MAX == 0 {
                gather.next().await.unwrap();
            }
        }
        assert_eq!(stream.call(get("a")).await, Err(ChannelError::Full(PENDING_MAX)));
    })
    .await;
}

#[tokio::test]
async fn the_stream_ends_with_its_handle() {
    let (stream, mut gather) = BatchStream::new();
    drop(stream);
    assert!(gather.next().await.is_none());
}
