//! A whole node without its network: single-key calls to the key-value service of an embedded node
//! that is a cluster by itself.

#![forbid(unsafe_code)]

use bytes::Bytes;
use cribwork_benches::{Host, spread, system};
use cribwork_proto::kvrpcpb::{Context, RawGetRequest, RawPutRequest, RawPutResponse};
use cribwork_proto::tikvpb::batch_commands_request::request::Cmd;
use cribwork_proto::tikvpb::batch_commands_response::response::Cmd as Reply;
use cribwork_server::kv::KvService;
use cribwork_server::{Config, Node, NodeOptions, RunningNode};
use cribwork_types::key;
use criterion::{BenchmarkId, Throughput};
use tempfile::TempDir;

const KEYS: u64 = 10_000;
const VALUE: &[u8] = &[b'v'; 128];

fn main() {
    system("node", |group| {
        group.throughput(Throughput::Elements(1));
        let host = Host::start();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let node = start(&host, &directory);
        let caller = Caller::new(&node);
        let workers = vec![host.handle().clone(); 64];
        let load = caller.clone();
        spread(&workers, KEYS, move |_, number| load.clone().put(number));
        for callers in [1, 64] {
            group.bench_function(BenchmarkId::new("put", callers), |bencher| {
                bencher.iter_custom(|puts| {
                    let caller = caller.clone();
                    spread(&workers[..callers], puts, move |_, number| caller.clone().put(number))
                });
            });
        }
        group.bench_function("get", |bencher| {
            bencher.iter_custom(|gets| {
                let caller = caller.clone();
                spread(&workers[..1], gets, move |_, number| caller.clone().get(number))
            });
        });
        host.run(async move { node.shutdown().await.expect("a clean end") });
    });
}

fn start(host: &Host, directory: &TempDir) -> RunningNode {
    let config = Config {
        data_dir: directory.path().to_owned(),
        listen: "127.0.0.1:0".to_owned(),
        http: "127.0.0.1:0".to_owned(),
        ..Config::default()
    };
    host.run(async move {
        let node = Node::start(NodeOptions::new(config)).await.expect("an empty directory");
        node.init(1).await.expect("a fresh node");
        node.wait_ready().await;
        node
    })
}

/// Calls the node as a client does that knows the way.
#[derive(Clone)]
struct Caller {
    kv: KvService,
    context: Context,
}

impl Caller {
    fn new(node: &RunningNode) -> Self {
        let multi = node.multi().expect("it is a member");
        let replica = multi.replica_for_key(&key::encode(&name(0))).expect("ranges tile the space");
        let range = replica.descriptor();
        let context = Context {
            region_id: range.id.get(),
            region_epoch: Some(range.epoch.into()),
            peer: range.replica(replica.replica_id()).map(Into::into),
            ..Context::default()
        };
        Self { kv: node.kv().expect("it is a member"), context }
    }

    async fn put(self, number: u64) {
        let request = RawPutRequest {
            context: Some(self.context),
            key: name(number),
            value: Bytes::from_static(VALUE),
            ..RawPutRequest::default()
        };
        match self.kv.execute(Cmd::RawPut(request)).await {
            Reply::RawPut(answer) => assert_eq!(answer, RawPutResponse::default()),
            other => panic!("not the answer to a put: {other:?}"),
        }
    }

    async fn get(self, number: u64) {
        let context = Some(self.context);
        let request = RawGetRequest { context, key: name(number), ..RawGetRequest::default() };
        match self.kv.execute(Cmd::RawGet(request)).await {
            Reply::RawGet(answer) => assert_eq!(answer.value, VALUE, "{answer:?}"),
            other => panic!("not the answer to a get: {other:?}"),
        }
    }
}

/// Keys in an order that jumps about; every number names one that exists.
fn name(number: u64) -> Bytes {
    Bytes::from(format!("account/{:08}", number * 7919 % KEYS))
}
