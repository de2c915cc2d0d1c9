//! The one gRPC port: every service of the node, some of them behind a gate that opens when the node
//! becomes a member of a cluster. The listener is opened once and never restarted.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use cribwork_proto::FILE_DESCRIPTOR_SET;
use cribwork_proto::cribwork::admin::admin_server::AdminServer;
use cribwork_proto::cribwork::admin::node_server::NodeServer;
use cribwork_proto::cribwork::peer::peer_server::PeerServer;
use cribwork_proto::pdpb::pd_server::PdServer;
use cribwork_proto::tikvpb::tikv_server::TikvServer;
use cribwork_transport::{PeerService, tune_server};
use cribwork_types::limits::MESSAGE_BYTES_MAX;
use cribwork_types::{Runtime, RuntimeExt};
use futures::future::ready;
use http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic_health::pb::health_server::{Health, HealthServer};
use tower::Service;
use tower::util::MapRequestLayer;

use crate::ServerError;
use crate::admin::AdminService;
use crate::bootstrap::InitOnly;
use crate::guests::GuestLimits;
use crate::incoming::Incoming;
use crate::intake::Intake;
use crate::kv::KvService;
use crate::node_service::NodeService;
use crate::pd::PdService;
use crate::process_metrics;

/// Streams that one connection may have open, as in TiKV by default. A client without batched commands has
/// one for each request under way; what is beyond waits at the client.
const STREAMS_PER_CONNECTION_MAX: u32 = 1024;
/// Connections of the port, if the process may open that many files.
const CONNECTIONS_MAX: usize = 1024;
/// Part of the files that the process may open that connections may take: the store needs the others.
const CONNECTIONS_OF_FILES: usize = 4;
/// Requests of all connections whose body has not ended. A client holds a stream of batched commands and one
/// of timestamps; a request that waits for its answer has ended. Each costs some 7 KiB.
const OPEN_REQUESTS_MAX: usize = 2048;
/// Bytes of a request's headers; a request of this protocol has some hundred.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// Requests that a client may have cancelled before the node looked at them. The default of a few is
/// soon reached by clients that give up at a deadline, and ends their connection.
const CANCELLED_STREAMS_MAX: usize = 1024;
/// Time for requests under way to end after the stop signal.
const GRACE: Duration = Duration::from_millis(500);

/// How much the port takes on.
pub(crate) fn limits() -> GuestLimits {
    let files = process_metrics::open_files_max().unwrap_or(usize::MAX);
    let connections_max = CONNECTIONS_MAX.min(files / CONNECTIONS_OF_FILES).max(1);
    GuestLimits { connections_max, open_requests_max: OPEN_REQUESTS_MAX }
}

type GrpcFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// A service that is mounted from the start and filled in when the node becomes a member.
pub(crate) struct Gate<S, B = Refuse> {
    slot: Arc<OnceLock<S>>,
    before: B,
}

impl<S: Clone, B: Clone> Clone for Gate<S, B> {
    fn clone(&self) -> Self {
        Self { slot: self.slot.clone(), before: self.before.clone() }
    }
}

impl<S, B> Gate<S, B> {
    /// Closed: `before` answers.
    pub(crate) fn new(before: B) -> Self {
        Self { slot: Arc::new(OnceLock::new()), before }
    }

    /// From now on `service` answers. Called once.
    pub(crate) fn open(&self, service: S) {
        if self.slot.set(service).is_err() {
            tracing::error!("a service was started twice");
        }
    }
}

impl<S: NamedService, B> NamedService for Gate<S, B> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<Body>> for Gate<S, B>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = GrpcFuture>
        + Clone,
    B: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = GrpcFuture>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = GrpcFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Generated services are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> GrpcFuture {
        match self.slot.get() {
            Some(service) => service.clone().call(request),
            None => self.before.call(request),
        }
    }
}

/// Answers that the node is not initialised.
#[derive(Clone, Copy)]
pub(crate) struct Refuse;

impl Service<Request<Body>> for Refuse {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = GrpcFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> GrpcFuture {
        Box::pin(ready(Ok(ServerError::Uninitialised.status().into_http())))
    }
}

/// The services that only a member has. Clones share the gates.
#[derive(Clone)]
pub(crate) struct Gates {
    pub(crate) peer: Gate<PeerServer<PeerService>>,
    pub(crate) tikv: Gate<TikvServer<KvService>>,
    pub(crate) pd: Gate<PdServer<PdService>>,
    pub(crate) admin: Gate<AdminServer<AdminService>, AdminServer<InitOnly>>,
}

impl Gates {
    /// All closed; `init` makes the cluster.
    pub(crate) fn new(init: InitOnly) -> Self {
        Self {
            peer: Gate::new(Refuse),
            tikv: Gate::new(Refuse),
            pd: Gate::new(Refuse),
            admin: Gate::new(AdminServer::new(init)),
        }
    }

    /// Opens all but the peers' gate.
    pub(crate) fn open(&self, kv: KvService, pd: PdService, admin: AdminService) {
        let max = MESSAGE_BYTES_MAX;
        let tikv = TikvServer::new(kv);
        self.tikv.open(tikv.max_decoding_message_size(max).max_encoding_message_size(max));
        let pd = PdServer::new(pd);
        self.pd.open(pd.max_decoding_message_size(max).max_encoding_message_size(max));
        let admin = AdminServer::new(admin);
        self.admin.open(admin.max_decoding_message_size(max).max_encoding_message_size(max));
    }
}

/// Serves until `stop` is given, then lets requests under way end for a moment.
pub(crate) async fn serve<H: Health>(
    incoming: Incoming,
    gates: Gates,
    node: NodeService,
    health: HealthServer<H>,
    runtime: Arc<dyn Runtime>,
    stop: CancellationToken,
) {
    let node = NodeServer::new(node)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let intake = Arc::new(Intake::default());
    let mut router = tune_server(Server::builder())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_max_pending_accept_reset_streams(Some(CANCELLED_STREAMS_MAX))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .layer(MapRequestLayer::new(move |request| intake.watch(request)))
        .add_service(gates.tikv)
        .add_service(gates.peer)
        .add_service(gates.pd)
        .add_service(gates.admin)
        .add_service(node)
        .add_service(health);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
    };
    match (reflection().build_v1(), reflection().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => router = router.add_service(v1).add_service(v1alpha),
        (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "no gRPC reflection"),
    }
    let address = incoming.address();
    let serving =
        router.serve_with_incoming_shutdown(incoming.into_stream(), stop.clone().cancelled_owned());
    let limit = async {
        stop.cancelled().await;
        runtime.sleep(GRACE).await;
    };
    tokio::select! {
        served = serving => if let Err(error) = served {
            tracing::error!(%address, %error, "the gRPC server ended");
        },
        () = limit => {}
    }
}

/// Waits for `task`'s end, but not for ever.
pub(crate) async fn wait_briefly(runtime: &dyn Runtime, task: impl Future<Output = ()> + Send) {
    if runtime.timeout(GRACE * 2, task).await.is_err() {
        tracing::debug!("a server did not end in time");
    }
}
