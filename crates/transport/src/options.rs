//! Limits of the transport and their defaults.

use std::time::Duration;

use cribwork_types::limits::MESSAGE_BYTES_MAX;
use tonic::transport::Server;

use crate::Class;

/// What the handshake and the frames mean; ends with different versions refuse each other.
pub const PROTOCOL_VERSION: u64 = 1;

/// Upper bound of what a message takes in a frame beside its payload: four ids and a kind as
/// varints with their tags, and two length prefixes.
pub const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// Largest payload of class [`Class::Bulk`]: a heartbeat may share its frame with one.
pub const BULK_BYTES_MAX: usize = 1024 * 1024;

/// Largest frame that a receiver decodes: the largest message, one bulk message, and framing.
pub const FRAME_BYTES_MAX: usize = MESSAGE_BYTES_MAX + BULK_BYTES_MAX + 64 * 1024;

/// Most messages in one frame.
pub(crate) const FRAME_MESSAGES_MAX: usize = 1024;

/// How many of these only bulk may use.
pub(crate) const FRAME_BULK_MESSAGES: usize = 16;

/// Most inbound streams, one a peer.
pub(crate) const INBOUND_STREAMS_MAX: usize = 1024;

/// Receive window of one HTTP/2 stream: over the default of
/// [`TransportOptions::window_bytes_max`], so that acks alone limit what is under way and nothing
/// queues inside HTTP/2 where it could not be overtaken.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 5 * 1024 * 1024;
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 2 * HTTP2_STREAM_WINDOW_BYTES;
const HTTP2_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const HTTP2_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How much one lane may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLimit {
    /// Most messages.
    pub messages_max: usize,
    /// Most bytes of payload and overhead; a message that is larger alone fits an empty lane.
    pub bytes_max: usize,
}

/// Limits and times. The defaults fit a cluster in one data centre.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportOptions {
    /// What may wait in each lane of a link, in the order of [`Class::ALL`].
    pub lanes: [LaneLimit; 3],
    /// Most bytes of control and data in a frame; a larger message travels without others of these
    /// classes.
    pub frame_bytes_max: usize,
    /// Most bytes of bulk in a frame, one message at least.
    pub frame_bulk_bytes_max: usize,
    /// Most unacknowledged frames.
    pub window_frames_max: usize,
    /// No further frame is sent while this many bytes are unacknowledged.
    pub window_bytes_max: usize,
    /// No further bulk is sent while this many bytes of bulk are unacknowledged.
    pub window_bulk_bytes_max: usize,
    /// Frames of control messages that may be sent over a full window.
    pub control_reserve_frames: usize,
    /// The receiver acknowledges at the latest this long after a frame; sooner at half a window, so
    /// that a longer delay holds up no sender and saves a quiet link most of its packets.
    pub ack_delay_max: Duration,
    /// Time for a connection to come about.
    pub connect_timeout: Duration,
    /// Time for the peer to answer the handshake.
    pub handshake_timeout: Duration,
    /// A stream with frames under way and no ack for this long, plus
    /// [`Self::stall_bytes_per_second`], is given up.
    pub stall_limit: Duration,
    /// Slowest link that is still useful; grants time for large frames under way.
    pub stall_bytes_per_second: u64,
    /// Pause after the first failed attempt; doubles up to [`Self::backoff_max`], with jitter.
    pub backoff_min: Duration,
    /// Longest pause between attempts.
    pub backoff_max: Duration,
    /// A control message, or a stream from the peer, ends a pause early, but attempts start no
    /// closer together than this.
    pub hurried_interval_min: Duration,
}

impl Default for TransportOptions {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            lanes: [
                LaneLimit { messages_max: 16 * 1024, bytes_max: 16 * MIB },
                LaneLimit { messages_max: 16 * 1024, bytes_max: 64 * MIB },
                LaneLimit { messages_max: 1024, bytes_max: 16 * MIB },
            ],
            frame_bytes_max: MIB / 2,
            frame_bulk_bytes_max: MIB / 8,
            window_frames_max: 16,
            window_bytes_max: 4 * MIB,
            window_bulk_bytes_max: MIB,
            control_reserve_frames: 4,
            ack_delay_max: Duration::from_secs(1),
            connect_timeout: Duration::from_millis(500),
            handshake_timeout: Duration::from_secs(1),
            stall_limit: Duration::from_secs(3),
            stall_bytes_per_second: MIB as u64,
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            hurried_interval_min: Duration::from_millis(100),
        }
    }
}

impl TransportOptions {
    /// Largest payload of a class, bytes.
    pub const fn payload_bytes_max(class: Class) -> usize {
        match class {
            Class::Control | Class::Data => MESSAGE_BYTES_MAX,
            Class::Bulk => BULK_BYTES_MAX,
        }
    }
}

/// Settings that a server should have which carries [`crate::PeerService`]: receive windows that do
/// not get in the way of the transport's own, and pings that end half-open connections.
pub fn tune_server(server: Server) -> Server {
    server
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(HTTP2_KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(HTTP2_KEEPALIVE_TIMEOUT))
        .tcp_nodelay(true)
}

/// The same for the calling side, for every [`crate::Connector`].
pub fn tune_endpoint(endpoint: tonic::transport::Endpoint) -> tonic::transport::Endpoint {
    endpoint
        .http2_keep_alive_interval(HTTP2_KEEPALIVE_INTERVAL)
        .keep_alive_timeout(HTTP2_KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
}
