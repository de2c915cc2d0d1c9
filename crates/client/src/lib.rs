//! The public SDK of Cribwork. It speaks TiKV's wire protocol: routes come from `pdpb.PD`, data
//! from `tikvpb.Tikv`.
//!
//! * [`Client`] is what everything begins with: [`Client::raw`] for single keys, [`Client::begin`]
//!   and [`Client::transact`] for transactions, [`Client::snapshot`] for reads at one timestamp.
//! * [`AdminClient`] asks about the cluster and changes its shape.
//! * [`Connector`] and its channels are the seam for programs that hold a node in their own
//!   process; [`GrpcConnector`] is the usual implementation.
//!
//! Clock, randomness and tasks come from the [`cribwork_types::Runtime`] that the caller supplies.
//!
//! A call ends with an answer, with an error that says it had no effect, or with
//! [`ClientError::Unknown`]. It never repeats a write that may have taken effect, unless the
//! repetition would find it done.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may unwrap"))]

mod admin;
mod backoff;
mod call;
mod channel;
mod client;
mod core;
mod error;
mod grpc;
mod options;
mod raw;
mod request;
mod send;
mod stores;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tso;
mod txn;

pub use admin::AdminClient;
pub use channel::{
    AdminChannel, Answer, ChannelError, Command, Connector, Members, PdChannel, Placed,
    StoreAddress, StoreChannel, UnaryAnswer, UnaryRequest,
};
pub use client::Client;
pub use error::{ClientError, Conflict};
pub use grpc::{Dial, GrpcConnector};
pub use options::ClientOptions;
pub use raw::{CasOutcome, Checksum, KvPair, RawClient};
pub use txn::{Snapshot, TransactOptions, Transacted, Transaction};
