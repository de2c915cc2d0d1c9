//! How a connection to a peer comes about: TCP in production, anything else in tests.

use cribwork_types::BoxFuture;
use tonic::transport::{Channel, Endpoint};

use crate::TransportError;
use crate::options::tune_endpoint;

/// Opens connections. The transport puts the time limit around it.
pub trait Connector: Send + Sync + 'static {
    /// A fresh connection to `address` (`host:port`). A channel is used for one stream only and
    /// dropped after it, so it need not reconnect by itself.
    fn connect(&self, address: &str) -> BoxFuture<Result<Channel, TransportError>>;
}

/// Plain HTTP/2 over TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpConnector;

impl Connector for TcpConnector {
    fn connect(&self, address: &str) -> BoxFuture<Result<Channel, TransportError>> {
        let address = address.to_owned();
        Box::pin(async move {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
                TransportError::InvalidAddress { address: address.clone(), why: chain(&error) }
            })?;
            tune_endpoint(endpoint)
                .connect()
                .await
                .map_err(|error| TransportError::Unreachable { address, why: chain(&error) })
        })
    }
}

/// An error with its causes: tonic's own text alone says only "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
