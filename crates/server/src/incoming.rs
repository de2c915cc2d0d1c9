//! Connections that end when the node stops, whatever the other side does.
//!
//! A graceful end waits for every stream, and streams of batched commands or of a peer's messages
//! never end by themselves. So each connection carries the node's stop signal: once that is given, it
//! reads no further, and everything above it is dropped. The same happens to a connection that has to make
//! room for others ([`Guests`]).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cribwork_transport::PeerAddress;
use cribwork_types::Runtime;
use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use crate::guests::{Guest, GuestLimits, Guests};
use crate::intake::Visitor;
use crate::network::{Accepted, Io, Listener};
use crate::{Network, ServerError};

/// Pause after a connection could not be accepted: most often no file descriptor is left, and the
/// next attempt would fail at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listening port.
pub(crate) struct Incoming {
    listener: Box<dyn Listener>,
    stop: CancellationToken,
    runtime: Arc<dyn Runtime>,
    guests: Arc<Guests>,
    /// Most bytes that are read from one connection.
    bytes_max: u64,
}

impl Incoming {
    /// Listens on `address` (`host:port`); `stop` ends all its connections.
    pub(crate) async fn bind(
        network: &dyn Network,
        address: &str,
        limits: GuestLimits,
        stop: CancellationToken,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self, ServerError> {
        let failed = |error: io::Error| ServerError::Listen {
            address: address.to_owned(),
            why: error.to_string(),
        };
        let listener = network.listen(address).await.map_err(failed)?;
        let guests = Guests::new(limits, runtime.clone());
        Ok(Self { listener, stop, runtime, guests, bytes_max: u64::MAX })
    }

    /// Reads no more than this from any connection.
    pub(crate) fn bytes_max(self, bytes_max: u64) -> Self {
        Self { bytes_max, ..self }
    }

    /// Where it really listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    async fn next(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(Accepted { io, peer }) => {
                    let guest = self.guests.admit(&self.stop);
                    let left = Box::pin(guest.leave().clone().cancelled_owned());
                    let bytes_left = self.bytes_max;
                    return (Connection { io, peer, guest, left, bytes_left }, peer);
                }
                Err(error) => {
                    let address = self.address();
                    tracing::warn!(%address, %error, "cannot accept a connection");
                    self.runtime.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// As the gRPC server wants it.
    pub(crate) fn into_stream(self) -> impl Stream<Item = io::Result<Connection>> + Send {
        futures::stream::unfold(self, |mut incoming| async move {
            let (connection, _) = incoming.next().await;
            Some((Ok(connection), incoming))
        })
    }
}

/// As the HTTP server wants it.
impl axum::serve::Listener for Incoming {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address())
    }
}

/// One connection.
pub(crate) struct Connection {
    io: Box<dyn Io>,
    peer: SocketAddr,
    guest: Arc<Guest>,
    /// Completes when it has to end.
    left: Pin<Box<WaitForCancellationFutureOwned>>,
    bytes_left: u64,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        let count = (buffer.filled().len() - before) as u64;
        if count > 0 {
            self.guest.heard();
        }
        // When there is nothing to read, to cost nothing under load: what a peer has sent before the
        // stop may still be served. But one that floods the node does not stay for it.
        let leaves = match read.is_pending() {
            true => self.left.as_mut().poll(context).is_ready(),
            false => self.bytes_left < count || self.guest.is_shown_out(),
        };
        if leaves {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        self.bytes_left -= count;
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl Connected for Connection {
    type ConnectInfo = Visitor;

    fn connect_info(&self) -> Visitor {
        Visitor { address: PeerAddress(self.peer), guest: self.guest.clone() }
    }
}
