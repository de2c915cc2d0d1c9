//! The handle: links by destination, and what all of them share.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cribwork_proto::cribwork::peer::peer_server::PeerServer;
use cribwork_types::{Runtime, StoreId};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::handshake::Refusal;
use crate::inbound::Inbound;
use crate::link::Link;
use crate::{
    AddressResolver, Class, Connector, FRAME_BYTES_MAX, Message, MessageHandler, PeerIdentity,
    PeerService, SendError, TransportMetrics, TransportOptions, dialer,
};

/// What links, their tasks and the service share.
pub(crate) struct Shared {
    pub(crate) identity: PeerIdentity,
    /// Random for each start: tells this process's streams from those of an earlier one.
    pub(crate) incarnation: u64,
    pub(crate) resolver: Arc<dyn AddressResolver>,
    pub(crate) handler: Arc<dyn MessageHandler>,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) options: TransportOptions,
    pub(crate) metrics: TransportMetrics,
    pub(crate) inbound: Inbound,
    /// True from [`Transport::shutdown`] on.
    pub(crate) shutdown: watch::Sender<bool>,
    links: RwLock<HashMap<StoreId, Arc<Link>>>,
    attempts: AtomicU64,
    /// The refusal logged last, so that a peer that keeps calling is logged once.
    refusal_logged: Mutex<Option<Refusal>>,
}

impl Shared {
    pub(crate) fn next_attempt(&self) -> u64 {
        self.attempts.fetch_add(1, Ordering::Relaxed)
    }

    /// Removes a link whose task ends.
    pub(crate) fn forget(&self, link: &Arc<Link>) {
        let mut links = self.links.write();
        if links.get(&link.peer).is_some_and(|current| Arc::ptr_eq(current, link)) {
            links.remove(&link.peer);
        }
    }

    /// `peer` is there: if a link to it pauses, it should try again.
    pub(crate) fn hurry(&self, peer: StoreId) {
        if let Some(link) = self.links.read().get(&peer) {
            link.hurry();
        }
    }

    pub(crate) fn note_refusal(&self, refusal: Refusal, address: Option<SocketAddr>) {
        self.metrics.handshake_refused(refusal.reason());
        if self.refusal_logged.lock().replace(refusal) != Some(refusal) {
            tracing::warn!(?address, %refusal, "refused a peer's stream");
        }
    }
}

/// Sends messages to other stores and takes theirs. Clones share everything.
///
/// Each destination costs one task and one connection from its first message on, until
/// [`Self::shutdown`] or until its store is no longer known.
#[derive(Clone)]
pub struct Transport {
    shared: Arc<Shared>,
}

impl Transport {
    /// A transport without connections yet. Mount [`Self::service`] to receive.
    pub fn start(
        identity: PeerIdentity,
        resolver: Arc<dyn AddressResolver>,
        handler: Arc<dyn MessageHandler>,
        connector: Arc<dyn Connector>,
        runtime: Arc<dyn Runtime>,
        options: TransportOptions,
        metrics: TransportMetrics,
    ) -> Self {
        let shared = Shared {
            identity,
            incarnation: runtime.random_u64(),
            resolver,
            handler,
            connector,
            runtime,
            options,
            metrics,
            inbound: Inbound::default(),
            shutdown: watch::Sender::new(false),
            links: RwLock::default(),
            attempts: AtomicU64::new(1),
            refusal_logged: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Queues a message for `to` and returns at once. `Ok` promises nothing but order within range
    /// and class: a broken stream loses what was queued and under way.
    ///
    /// # Errors
    /// [`SendError`]; the message was not queued.
    pub fn send(&self, to: StoreId, class: Class, message: Message) -> Result<(), SendError> {
        let (bytes, max) = (message.payload.len(), TransportOptions::payload_bytes_max(class));
        let result = if bytes > max {
            Err(SendError::TooLarge { class: class.name(), bytes, max })
        } else {
            self.link(to).and_then(|link| link.send(class, message, &self.shared))
        };
        result.inspect_err(|error| self.shared.metrics.send_failed(error))
    }

    /// Opens the link to `peer` ahead of its first message, and ends a pause between attempts.
    ///
    /// # Errors
    /// [`SendError::UnknownStore`], [`SendError::Shutdown`].
    pub fn connect(&self, peer: StoreId) -> Result<(), SendError> {
        self.link(peer).map(|link| link.hurry())
    }

    /// The gRPC service that takes peers' streams, with its size limit set.
    pub fn service(&self) -> PeerServer<PeerService> {
        PeerServer::new(PeerService::new(Arc::clone(&self.shared)))
            .max_decoding_message_size(FRAME_BYTES_MAX)
    }

    /// Ends all streams, both ways, and all tasks; what is queued is dropped. Later sends fail.
    pub fn shutdown(&self) {
        // Under the lock, so that no link starts after it.
        let links = self.shared.links.write();
        self.shared.shutdown.send_replace(true);
        drop(links);
        self.shared.inbound.close();
    }

    fn link(&self, to: StoreId) -> Result<Arc<Link>, SendError> {
        if let Some(link) = self.shared.links.read().get(&to) {
            return Ok(Arc::clone(link));
        }
        if to == self.shared.identity.store || self.shared.resolver.address(to).is_none() {
            return Err(SendError::UnknownStore { store: to });
        }
        let mut links = self.shared.links.write();
        if *self.shared.shutdown.borrow() {
            return Err(SendError::Shutdown);
        }
        if let Some(link) = links.get(&to) {
            return Ok(Arc::clone(link));
        }
        let link = Link::new(to);
        links.insert(to, Arc::clone(&link));
        drop(links);
        let task = dialer::run(Arc::clone(&self.shared), Arc::clone(&link));
        self.shared.runtime.spawn(Box::pin(task));
        Ok(link)
    }
}
