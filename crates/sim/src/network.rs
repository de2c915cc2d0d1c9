//! The simulated network, for nodes and for clients.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use cribwork_client::Dial;
use cribwork_server::{Accepted, Accepting, Listener, Network};
use cribwork_transport::{Connector, TransportError, tune_endpoint};
use cribwork_types::BoxFuture;
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};
use turmoil::net::{TcpListener, TcpStream};

/// HTTP/2 over simulated TCP.
#[derive(Clone, Copy)]
pub(crate) struct SimNetwork;

/// A connection to `endpoint`.
async fn dial(endpoint: Endpoint) -> Result<Channel, tonic::transport::Error> {
    let dial = |uri: Uri| async move {
        let host = uri.host().unwrap_or_default().to_owned();
        let port = uri.port_u16().unwrap_or_default();
        Ok::<_, io::Error>(TokioIo::new(TcpStream::connect((host, port)).await?))
    };
    endpoint.connect_with_connector(tower::service_fn(dial)).await
}

impl Dial for SimNetwork {
    fn dial(&self, endpoint: Endpoint) -> BoxFuture<Result<Channel, tonic::transport::Error>> {
        Box::pin(dial(endpoint))
    }
}

impl Connector for SimNetwork {
    fn connect(&self, address: &str) -> BoxFuture<Result<Channel, TransportError>> {
        let address = address.to_owned();
        Box::pin(async move {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
                TransportError::InvalidAddress { address: address.clone(), why: error.to_string() }
            })?;
            dial(tune_endpoint(endpoint))
                .await
                .map_err(|error| TransportError::Unreachable { address, why: format!("{error:?}") })
        })
    }
}

impl Network for SimNetwork {
    fn listen(&self, address: &str) -> BoxFuture<io::Result<Box<dyn Listener>>> {
        let address: Result<SocketAddr, _> = address.parse();
        Box::pin(async move {
            let address = address.map_err(io::Error::other)?;
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok(Box::new(Port { listener, address }) as Box<dyn Listener>)
        })
    }

    fn connector(&self) -> Arc<dyn Connector> {
        Arc::new(*self)
    }
}

struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener for Port {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn accept(&mut self) -> Accepting<'_> {
        Box::pin(async move {
            let (io, peer) = self.listener.accept().await?;
            Ok(Accepted { io: Box::new(io), peer })
        })
    }
}
