//! The task behind each link: connect, shake hands, take acks until the stream breaks, pause, again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use cribwork_proto::cribwork::peer::Ack;
use cribwork_proto::cribwork::peer::peer_client::PeerClient;
use cribwork_types::{CodedError, RuntimeExt};
use tonic::{Code, Request, Status, Streaming};

use crate::backoff::Backoff;
use crate::link::Link;
use crate::transport::Shared;
use crate::{PROTOCOL_VERSION, TransportError, handshake::Hello};

/// How often an open stream is checked for a stall.
const STALL_CHECKS_PER_LIMIT: u32 = 4;

struct Dialer {
    shared: Arc<Shared>,
    link: Arc<Link>,
    backoff: Backoff,
    /// The stream of this attempt was accepted.
    opened: bool,
    /// Some stream was accepted since the start.
    ever_opened: bool,
    /// What was logged last, so that a lasting failure is logged once.
    logged: Option<&'static str>,
}

/// Keeps the link connected until the transport shuts down or the store is no longer known.
pub(crate) async fn run(shared: Arc<Shared>, link: Arc<Link>) {
    let options = &shared.options;
    let mut dialer = Dialer {
        backoff: Backoff::new(options.backoff_min, options.backoff_max),
        shared: Arc::clone(&shared),
        link: Arc::clone(&link),
        opened: false,
        ever_opened: false,
        logged: None,
    };
    let mut shutdown = shared.shutdown.subscribe();
    tokio::select! {
        biased;
        _ = shutdown.wait_for(|shutdown| *shutdown) => {}
        () = dialer.stay_connected() => {}
    }
    shared.forget(&link);
    link.end_session(&shared, true);
    if dialer.opened {
        shared.handler.on_disconnected(link.peer);
    }
}

impl Dialer {
    /// Returns when the store is no longer known.
    async fn stay_connected(&mut self) {
        loop {
            let started = self.shared.runtime.now();
            let Err(error) = self.attempt().await;
            self.log(&error);
            self.shared.metrics.stream_failed(&error);
            self.link.end_session(&self.shared, false);
            self.opened = false;
            self.shared.handler.on_disconnected(self.link.peer);
            if matches!(error, TransportError::UnknownStore { .. }) {
                return;
            }
            self.pause(&error, started).await;
        }
    }

    /// One connection from its start to its end, which is always an error.
    async fn attempt(&mut self) -> Result<Infallible, TransportError> {
        let mut acks = self.open_stream().await?;
        self.opened = true;
        self.logged = None;
        self.shared.metrics.streams_opened.inc();
        if std::mem::replace(&mut self.ever_opened, true) {
            self.shared.metrics.reconnects.inc();
        }
        tracing::info!(peer = %self.link.peer, "connected");
        self.shared.handler.on_connected(self.link.peer);
        self.link.open();

        let interval = self.shared.options.stall_limit / STALL_CHECKS_PER_LIMIT;
        let mut check = self.shared.runtime.sleep(interval);
        // A process that was stopped for a while finds the time-out before the acks that wait in
        // its sockets: only the second look counts.
        let mut suspected = false;
        loop {
            tokio::select! {
                biased;
                ack = acks.message() => {
                    let ack = ack.map_err(broken)?.ok_or_else(|| TransportError::Broken {
                        why: "the peer ended it".to_owned(),
                    })?;
                    self.link.acked(ack.sequence, &self.shared)?;
                    self.backoff.reset();
                }
                () = &mut check => {
                    let stalled = self.link.is_stalled(&self.shared);
                    if std::mem::replace(&mut suspected, stalled) && stalled {
                        return Err(TransportError::Stalled { what: "an acknowledgement" });
                    }
                    check = self.shared.runtime.sleep(interval);
                }
            }
        }
    }

    async fn open_stream(&self) -> Result<Streaming<Ack>, TransportError> {
        let Shared { options, runtime, .. } = &*self.shared;
        let store = self.link.peer;
        let address =
            self.shared.resolver.address(store).ok_or(TransportError::UnknownStore { store })?;
        let channel = runtime
            .timeout(options.connect_timeout, self.shared.connector.connect(&address))
            .await
            .map_err(|_| TransportError::Stalled { what: "connecting" })??;
        let source = self.link.start_session(&self.shared);
        let mut request = Request::new(source.into_stream());
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            cluster: self.shared.identity.cluster,
            from: self.shared.identity.store,
            to: store,
            incarnation: self.shared.incarnation,
            attempt: self.shared.next_attempt(),
        };
        hello.write(request.metadata_mut());
        let mut client = PeerClient::new(channel);
        let response = runtime
            .timeout(options.handshake_timeout, client.deliver(request))
            .await
            .map_err(|_| TransportError::Stalled { what: "the handshake" })?;
        Ok(response.map_err(refused_or_broken)?.into_inner())
    }

    /// Waits before the next attempt; shorter if somebody calls for it.
    async fn pause(&mut self, error: &TransportError, started: Duration) {
        let Shared { options, runtime, .. } = &*self.shared;
        if matches!(error, TransportError::Refused { .. }) {
            // Somebody has to change something first: no hurry helps.
            return runtime.sleep(options.backoff_max).await;
        }
        let pause = runtime.sleep(self.backoff.pause(runtime.random_u64()));
        tokio::select! {
            biased;
            () = pause => {}
            () = self.link.hurried() => {
                let since = runtime.now().saturating_sub(started);
                runtime.sleep(options.hurried_interval_min.saturating_sub(since)).await;
            }
        }
    }

    fn log(&mut self, error: &TransportError) {
        let peer = self.link.peer;
        if self.logged == Some(error.code()) {
            tracing::debug!(%peer, %error, "still not connected");
            return;
        }
        self.logged = Some(error.code());
        let (code, hint) = (error.code(), error.hint());
        match error.is_retryable() {
            true => tracing::warn!(%peer, code, %error, hint, "not connected"),
            false => tracing::error!(%peer, code, %error, hint, "not connected"),
        }
    }
}

fn broken(status: Status) -> TransportError {
    TransportError::Broken { why: format!("{:?}: {}", status.code(), status.message()) }
}

fn refused_or_broken(status: Status) -> TransportError {
    match status.code() {
        Code::FailedPrecondition | Code::Unimplemented => {
            TransportError::Refused { why: status.message().to_owned() }
        }
        _ => broken(status),
    }
}
