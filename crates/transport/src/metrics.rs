//! What the transport counts. Names begin with `cribwork_transport_`. Messages per frame, the
//! measure of batching, is `messages_sent / frames_sent`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::{Class, SendError, TransportError};
use cribwork_types::CodedError;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabel {
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// Counters and gauges of one transport, all peers together. Clones share them.
#[derive(Clone, Debug)]
pub struct TransportMetrics {
    pub(crate) messages_sent: [Counter; 3],
    pub(crate) queue_depth: [Gauge; 3],
    pub(crate) frames_sent: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) frames_in_flight: Gauge,
    pub(crate) messages_received: Counter,
    pub(crate) frames_received: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) streams_opened: Counter,
    pub(crate) reconnects: Counter,
    dropped: Family<ReasonLabel, Counter>,
    failures: Family<ReasonLabel, Counter>,
    refused: Family<ReasonLabel, Counter>,
}

impl TransportMetrics {
    /// Registers all of them under the prefix `cribwork_transport`.
    pub fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("cribwork_transport");
        let messages_sent = Family::<ClassLabel, Counter>::default();
        let queue_depth = Family::<ClassLabel, Gauge>::default();
        let label = |class: Class| ClassLabel { class: class.name() };
        let metrics = Self {
            messages_sent: Class::ALL.map(|class| messages_sent.get_or_create_owned(&label(class))),
            queue_depth: Class::ALL.map(|class| queue_depth.get_or_create_owned(&label(class))),
            frames_sent: Counter::default(),
            bytes_sent: Counter::default(),
            frames_in_flight: Gauge::default(),
            messages_received: Counter::default(),
            frames_received: Counter::default(),
            bytes_received: Counter::default(),
            streams_opened: Counter::default(),
            reconnects: Counter::default(),
            dropped: Family::default(),
            failures: Family::default(),
            refused: Family::default(),
        };
        let m = &metrics;
        let counters = [
            ("frames_sent", "Frames handed to the network", &m.frames_sent),
            ("bytes_sent", "Payload and overhead handed to the network", &m.bytes_sent),
            ("messages_received", "Messages handed to the handler", &m.messages_received),
            ("frames_received", "Frames handed to the handler", &m.frames_received),
            ("bytes_received", "Payload and overhead handed to the handler", &m.bytes_received),
            ("streams_opened", "Outbound streams that a peer accepted", &m.streams_opened),
            ("reconnects", "Outbound streams accepted after an earlier one broke", &m.reconnects),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register("messages_sent", "Messages handed to the network", messages_sent);
        registry.register("queue_depth", "Messages that wait for a frame", queue_depth);
        registry.register(
            "frames_in_flight",
            "Frames sent and not acknowledged",
            m.frames_in_flight.clone(),
        );
        registry.register("messages_dropped", "Messages not sent, by reason", m.dropped.clone());
        registry.register(
            "stream_failures",
            "Outbound streams that did not open or broke, by error code",
            m.failures.clone(),
        );
        registry.register(
            "handshakes_refused",
            "Inbound streams refused, by reason",
            m.refused.clone(),
        );
        metrics
    }

    pub(crate) fn send_failed(&self, error: &SendError) {
        self.dropped.get_or_create(&ReasonLabel { reason: error.code() }).inc();
    }

    pub(crate) fn dropped_on_disconnect(&self, messages: usize) {
        let label = ReasonLabel { reason: "disconnected" };
        self.dropped.get_or_create(&label).inc_by(messages as u64);
    }

    pub(crate) fn stream_failed(&self, error: &TransportError) {
        self.failures.get_or_create(&ReasonLabel { reason: error.code() }).inc();
    }

    pub(crate) fn handshake_refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabel { reason }).inc();
    }
}

#[cfg(test)]
impl TransportMetrics {
    pub(crate) fn refusals(&self, reason: &'static str) -> u64 {
        self.refused.get_or_create(&ReasonLabel { reason }).get()
    }

    pub(crate) fn drops(&self, reason: &'static str) -> u64 {
        self.dropped.get_or_create(&ReasonLabel { reason }).get()
    }

    pub(crate) fn failures(&self, code: &'static str) -> u64 {
        self.failures.get_or_create(&ReasonLabel { reason: code }).get()
    }
}
