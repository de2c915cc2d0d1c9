//! The wire format: code generated from `proto/*.proto`, and conversions between its messages and
//! [`cribwork_types`].
//!
//! Modules carry the names of the proto packages. `bytes` fields are [`prost::bytes::Bytes`], so a
//! decoded message shares the buffer that it came in. The services that TiKV's clients speak are
//! [`tikvpb`] and [`pdpb`]; people and nodes use [`cribwork`].
//!
//! Invariant: what a node takes in grows to no more than [`DECODED_BYTES_MAX`] beside its own bytes when it
//! is decoded; whatever would is refused first.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may unwrap"))]

mod codec;
mod convert;
#[cfg(test)]
mod fuzz;
mod generated;
#[cfg(test)]
mod tests;
mod weight;

pub use convert::ConvertError;
pub use generated::{
    FILE_DESCRIPTOR_SET, cribwork, deadlock, errorpb, kvrpcpb, metapb, pdpb, tikvpb,
};
pub use weight::DECODED_BYTES_MAX;
