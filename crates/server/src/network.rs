//! How a node listens and connects: TCP in production, a simulated network elsewhere.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use cribwork_transport::{Connector, TcpConnector};
use cribwork_types::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A connection that somebody opened to this node.
pub struct Accepted {
    /// Its bytes.
    pub io: Box<dyn Io>,
    /// Who opened it.
    pub peer: SocketAddr,
}

/// What [`Listener::accept`] gives.
pub type Accepting<'l> = Pin<Box<dyn Future<Output = io::Result<Accepted>> + Send + 'l>>;

/// A listening port. Closed when dropped.
pub trait Listener: Send + 'static {
    /// Where it really listens.
    fn address(&self) -> SocketAddr;

    /// The next connection.
    fn accept(&mut self) -> Accepting<'_>;
}

/// A node's way to the world.
pub trait Network: Send + Sync + 'static {
    /// Listens on `address` (`host:port`).
    fn listen(&self, address: &str) -> BoxFuture<io::Result<Box<dyn Listener>>>;

    /// Opens connections to other nodes.
    fn connector(&self) -> Arc<dyn Connector>;
}

/// TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpNetwork;

impl Network for TcpNetwork {
    fn listen(&self, address: &str) -> BoxFuture<io::Result<Box<dyn Listener>>> {
        let address = address.to_owned();
        Box::pin(async move {
            let listener = tokio::net::TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok(Box::new(TcpPort { listener, address }) as Box<dyn Listener>)
        })
    }

    fn connector(&self) -> Arc<dyn Connector> {
        Arc::new(TcpConnector)
    }
}

struct TcpPort {
    listener: tokio::net::TcpListener,
    address: SocketAddr,
}

impl Listener for TcpPort {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn accept(&mut self) -> Accepting<'_> {
        Box::pin(async move {
            let (io, peer) = self.listener.accept().await?;
            if let Err(error) = io.set_nodelay(true) {
                tracing::debug!(%peer, %error, "cannot switch off delays");
            }
            Ok(Accepted { io: Box::new(io), peer })
        })
    }
}
