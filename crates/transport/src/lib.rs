//! Messages between the stores of one cluster.
//!
//! ```text
//!            store A                                             store B
//!  send() -> lanes: Control | Data | Bulk                    service (inbound)
//!                 \    |    /                                  |  checks sequence and sizes
//!                  frame source  -- Frame 1, 2, 3 ... ------>  |  handler.on_message, in order
//!                  window        <- Ack (cumulative) --------  |
//!            one stream A -> B; B opens its own stream for B -> A
//! ```
//!
//! Messages of all ranges for one store share its link. What queued up while the task was not
//! running leaves as one frame, and several frames are under way at a time, so that the cost per
//! message falls as load rises while an idle link sends at once, without a timer.
//!
//! # Invariants
//! - Messages of one range and class arrive in the order in which they were sent, some perhaps not
//!   at all: a broken stream loses what was queued and under way. Raft sends again.
//! - No message is handed over twice, and none of an older stream after one of a newer stream from
//!   the same process.
//! - Nothing queues without a bound: lanes, frames under way and inbound streams are limited, and
//!   over a limit comes a typed error.
//! - A stream is accepted only if both ends agree on cluster, store ids and protocol version.
//!
//! What is deliberately absent: retries of messages, and any judgement about which store is alive.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may unwrap"))]

mod api;
mod backoff;
mod connector;
mod dialer;
mod error;
mod frame;
#[cfg(test)]
mod fuzz;
mod handshake;
mod inbound;
mod lanes;
mod link;
mod metrics;
mod options;
mod service;
mod transport;
mod window;

#[cfg(test)]
mod tests;

pub use api::{AddressResolver, Class, Message, MessageHandler, PeerIdentity};
pub use connector::{Connector, TcpConnector};
pub use error::{SendError, TransportError};
pub use metrics::TransportMetrics;
pub use options::{
    BULK_BYTES_MAX, FRAME_BYTES_MAX, LaneLimit, MESSAGE_OVERHEAD_BYTES, PROTOCOL_VERSION,
    TransportOptions, tune_endpoint, tune_server,
};
pub use service::{PeerAddress, PeerService};
pub use transport::Transport;
