//! One node on its own.

use bytes::Bytes;
use cribwork_engine::EngineError;
use cribwork_proto::cribwork::admin::admin_client::AdminClient;
use cribwork_proto::cribwork::admin::node_client::NodeClient;
use cribwork_proto::cribwork::admin::{IdentifyRequest, InitRequest, StatusRequest};
use cribwork_proto::kvrpcpb::{Context, RawGetRequest, RawPutRequest};
use cribwork_proto::pdpb::GetMembersRequest;
use cribwork_proto::pdpb::pd_client::PdClient;
use cribwork_proto::tikvpb::batch_commands_request::request::Cmd;
use cribwork_proto::tikvpb::batch_commands_response::response::Cmd as Answer;
use cribwork_proto::tikvpb::tikv_client::TikvClient;
use cribwork_types::{CodedError, key};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::harness::{TestNode, config};
use crate::{CODE_METADATA, RunningNode, ServerError};

async fn channel(node: &RunningNode) -> Channel {
    let url = format!("http://{}", node.grpc_addr());
    Channel::from_shared(url).unwrap().connect().await.unwrap()
}

fn context(node: &RunningNode, key: &[u8]) -> Option<Context> {
    let replica = node.multi().unwrap().replica_for_key(&key::encode(key)).unwrap();
    let descriptor = replica.descriptor();
    Some(Context {
        region_id: descriptor.id.get(),
        region_epoch: Some(descriptor.epoch.into()),
        peer: Some(descriptor.replicas[0].into()),
        ..Context::default()
    })
}

fn put(node: &TestNode, key: &'static str, value: &'static str) {
    let context = context(node.node(), key.as_bytes());
    let request =
        RawPutRequest { context, key: key.into(), value: value.into(), ..RawPutRequest::default() };
    let answer = node.wait(node.node().kv().unwrap().execute(Cmd::RawPut(request)));
    let Answer::RawPut(answer) = answer else { panic!("{answer:?}") };
    assert_eq!((answer.region_error, &*answer.error), (None, ""));
}

fn get(node: &TestNode, key: &'static str) -> Bytes {
    let context = context(node.node(), key.as_bytes());
    let request = RawGetRequest { context, key: key.into(), ..RawGetRequest::default() };
    let answer = node.wait(node.node().kv().unwrap().execute(Cmd::RawGet(request)));
    let Answer::RawGet(answer) = answer else { panic!("{answer:?}") };
    assert_eq!((answer.region_error, &*answer.error), (None, ""));
    answer.value
}

fn assert_uninitialised<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("cribwork init"), "{status}");
    assert_eq!(status.metadata().get(CODE_METADATA).unwrap(), "CW-SERVER-UNINITIALISED");
}

#[test]
fn a_value_outlives_a_restart_under_another_address() {
    let dir = tempfile::tempdir().unwrap();
    let settings = config(&dir.path().join("store"));
    let node = TestNode::start(&settings);
    assert_eq!(node.init(3).unwrap(), 4, "three and the empty one on top");
    node.wait_ready();
    put(&node, "k", "v");
    let identity = node.node().identity().unwrap();
    node.shutdown();

    let node = TestNode::start(&settings);
    assert_eq!(node.node().identity(), Some(identity));
    node.wait_ready();
    assert_eq!(get(&node, "k"), "v");
    put(&node, "k", "w");
    let copy = dir.path().join("copy");
    node.kill(&copy);

    let node = TestNode::start(&config(&copy));
    node.wait_ready();
    assert_eq!(get(&node, "k"), "w", "acknowledged, so durable");
    node.shutdown();
}

#[test]
fn a_fresh_node_serves_health_identity_and_init_only() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(&config(dir.path()));
    node.wait(async {
        let channel = channel(node.node()).await;
        let mut tikv = TikvClient::new(channel.clone());
        assert_uninitialised(tikv.raw_get(RawGetRequest::default()).await);
        let mut pd = PdClient::new(channel.clone());
        assert_uninitialised(pd.get_members(GetMembersRequest::default()).await);
        let mut admin = AdminClient::new(channel.clone());
        assert_uninitialised(admin.status(StatusRequest {}).await);
        let mut health = HealthClient::new(channel.clone());
        let checked = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert_eq!(checked.status().as_str_name(), "SERVING");
        let mut peers = NodeClient::new(channel.clone());
        let answer = peers.identify(IdentifyRequest { cluster_id: 0 }).await.unwrap().into_inner();
        assert_eq!((answer.cluster_id, answer.store_id), (0, 0));
        assert_eq!(answer.address, node.node().grpc_addr().to_string());

        // The same connections see the node become a member.
        let made = admin.init(InitRequest { ranges: 0 }).await.unwrap().into_inner();
        assert_eq!((made.stores, made.ranges), (1, 2));
        let answer = peers.identify(IdentifyRequest { cluster_id: 0 }).await.unwrap().into_inner();
        assert_eq!((answer.cluster_id, answer.store_id), (made.cluster_id, 1));
        let strange = peers.identify(IdentifyRequest { cluster_id: 7 }).await.unwrap_err();
        assert_eq!(strange.code(), Code::FailedPrecondition);
        assert_eq!(strange.metadata().get(CODE_METADATA).unwrap(), "CW-SERVER-WRONG-CLUSTER");
        pd.get_members(GetMembersRequest::default()).await.unwrap();
        tikv.raw_get(RawGetRequest::default()).await.unwrap();
    });
    node.shutdown();
}

#[test]
fn the_http_port_tells_health_from_readiness() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(&config(dir.path()));
    assert_eq!(node.http("/health").0, 200);
    let (status, body) = node.http("/ready");
    assert_eq!(status, 503);
    assert!(body.contains("cribwork init"), "{body}");
    node.init(1).unwrap();
    node.wait_ready();
    assert_eq!(node.http("/ready").0, 200);
    let (status, metrics) = node.http("/metrics");
    assert_eq!(status, 200);
    for name in ["process_cpu_seconds_total", "process_open_fds", "cribwork_raft_rounds_total"] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
    assert!(node.http("/").1.contains("\"store\":1"));
    assert_eq!(node.http("/nothing").0, 404);
    node.shutdown();
}

#[test]
fn init_works_once_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(&config(dir.path()));
    node.init(1).unwrap();
    let again = node.init(1).unwrap_err();
    assert!(matches!(again, ServerError::AlreadyInitialised { .. }), "{again}");
    node.shutdown();
    let node = TestNode::start(&config(dir.path()));
    let again = node.init(1).unwrap_err();
    assert_eq!(again.code(), "CW-SERVER-ALREADY-INITIALISED");
    node.shutdown();
}

#[test]
fn a_directory_that_is_foreign_or_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
    let error = TestNode::try_start(&config(dir.path())).err().unwrap();
    assert!(matches!(error, ServerError::Engine(EngineError::ForeignDirectory { .. })), "{error}");

    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(&config(dir.path()));
    let error = TestNode::try_start(&config(dir.path())).err().unwrap();
    assert!(matches!(error, ServerError::Engine(EngineError::Locked { .. })), "{error}");
    let mut taken = config(dir.path());
    let other = tempfile::tempdir().unwrap();
    taken.data_dir = other.path().to_owned();
    taken.listen = node.node().grpc_addr().to_string();
    let error = TestNode::try_start(&taken).err().unwrap();
    assert!(matches!(error, ServerError::Listen { .. }), "{error}");
    node.shutdown();
}
