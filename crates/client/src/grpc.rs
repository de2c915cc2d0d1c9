//! Channels over gRPC.

mod admin;
mod batch;
mod pd;
mod store;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cribwork_types::{BoxFuture, Runtime, RuntimeExt};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::channel::{AdminChannel, ChannelError, Connector, PdChannel, StoreChannel};

/// Largest answer that is decoded, bytes. Above the largest request: an answer on the batch stream
/// may carry several.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Pings while calls are under way; without an answer for as long again the connection is dropped,
/// so that a machine that has vanished is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// HTTP/2 windows, bytes: a full batch must not wait for a window update.
const STREAM_WINDOW: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 32 * 1024 * 1024;

/// Opens connections for a [`GrpcConnector`]: TCP by default, something else in a simulator.
pub trait Dial: Send + Sync + 'static {
    /// One connection to `endpoint`, which carries the connector's settings.
    fn dial(&self, endpoint: Endpoint) -> BoxFuture<Result<Channel, tonic::transport::Error>>;
}

struct TcpDial;

impl Dial for TcpDial {
    fn dial(&self, endpoint: Endpoint) -> BoxFuture<Result<Channel, tonic::transport::Error>> {
        Box::pin(async move { endpoint.connect().await })
    }
}

/// Opens channels over gRPC without TLS.
#[derive(Clone)]
pub struct GrpcConnector {
    runtime: Arc<dyn Runtime>,
    dial: Arc<dyn Dial>,
    connect_timeout: Duration,
    attempt_timeout: Duration,
}

impl GrpcConnector {
    /// `connect_timeout` bounds opening one connection, `attempt_timeout` one request to the
    /// placement service before another node is asked.
    pub fn new(
        runtime: Arc<dyn Runtime>,
        connect_timeout: Duration,
        attempt_timeout: Duration,
    ) -> Self {
        Self { runtime, dial: Arc::new(TcpDial), connect_timeout, attempt_timeout }
    }

    /// The same over connections of another kind.
    pub fn with_dial(self, dial: Arc<dyn Dial>) -> Self {
        Self { dial, ..self }
    }

    async fn open(&self, address: &str) -> Result<Channel, ChannelError> {
        let plain = address.trim_start_matches("http://");
        let endpoint = Endpoint::from_shared(format!("http://{plain}"))
            .map_err(|error| ChannelError::refused(format!("bad address {address}: {error}")))?
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        match self.runtime.timeout(self.connect_timeout, self.dial.dial(endpoint)).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(ChannelError::Unsent(format!("{address}: {}", chain(&error)))),
            Err(timed_out) => Err(ChannelError::Unsent(format!("{address}: {timed_out}"))),
        }
    }
}

#[async_trait]
impl Connector for GrpcConnector {
    async fn connect_store(&self, address: &str) -> Result<Arc<dyn StoreChannel>, ChannelError> {
        let channel = self.open(address).await?;
        Ok(Arc::new(store::GrpcStore::new(channel, self.runtime.clone())))
    }

    async fn connect_pd(&self, endpoints: &[String]) -> Result<Arc<dyn PdChannel>, ChannelError> {
        Ok(Arc::new(pd::GrpcPd::connect(self.clone(), endpoints.to_vec()).await?))
    }

    async fn connect_admin(&self, endpoint: &str) -> Result<Arc<dyn AdminChannel>, ChannelError> {
        Ok(Arc::new(admin::GrpcAdmin::new(self.open(endpoint).await?)))
    }
}

/// An error with its causes: tonic hides "connection refused" in a source.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// What a failed call means. A node that refuses says so in metadata; some codes mean it without.
fn channel_error(status: Status) -> ChannelError {
    let metadata = |name: &str| {
        let value = status.metadata().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let code = metadata("cribwork-code");
    let busy = matches!(status.code(), Code::Unavailable | Code::ResourceExhausted | Code::Aborted);
    let refuses = matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated
    );
    if code.is_empty() && !refuses {
        return ChannelError::Unknown(chain(&status));
    }
    ChannelError::Refused {
        code,
        message: status.message().to_owned(),
        hint: metadata("cribwork-hint"),
        retryable: busy,
    }
}
