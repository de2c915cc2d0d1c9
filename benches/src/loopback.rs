//! Transports of several stores in one process, over TCP on loopback.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;

use cribwork_transport::{
    AddressResolver, MessageHandler, PeerIdentity, TcpConnector, Transport, TransportMetrics,
    TransportOptions, tune_server,
};
use cribwork_types::{ClusterId, StoreId};
use prometheus_client::registry::Registry;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::Host;

const CLUSTER: ClusterId = ClusterId(1);

struct Addresses(BTreeMap<StoreId, String>);

impl AddressResolver for Addresses {
    fn address(&self, store: StoreId) -> Option<String> {
        self.0.get(&store).cloned()
    }
}

/// Ports of stores, bound before any store starts so that each knows all others.
pub struct Loopback {
    addresses: Arc<Addresses>,
    listeners: BTreeMap<StoreId, TcpListener>,
}

impl Loopback {
    /// Binds a free port for each store.
    pub fn bind(stores: &[StoreId]) -> Self {
        let listeners: BTreeMap<_, _> = stores
            .iter()
            .map(|store| (*store, TcpListener::bind("127.0.0.1:0").unwrap()))
            .collect();
        let address = |(store, listener): (&StoreId, &TcpListener)| {
            (*store, listener.local_addr().unwrap().to_string())
        };
        let addresses = Arc::new(Addresses(listeners.iter().map(address).collect()));
        Self { addresses, listeners }
    }

    /// Starts the transport of `store` on `host`, and its server on the port bound for it.
    pub fn start(
        &mut self,
        store: StoreId,
        host: &Host,
        handler: Arc<dyn MessageHandler>,
    ) -> Transport {
        let listener = self.listeners.remove(&store).expect("each store starts once");
        let transport = Transport::start(
            PeerIdentity { cluster: CLUSTER, store },
            self.addresses.clone(),
            handler,
            Arc::new(TcpConnector),
            host.runtime(),
            TransportOptions::default(),
            TransportMetrics::new(&mut Registry::default()),
        );
        listener.set_nonblocking(true).unwrap();
        let server = tune_server(Server::builder()).add_service(transport.service());
        host.handle().spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            server.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
        });
        transport
    }
}
