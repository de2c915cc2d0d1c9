//! The wire format: code generated from `proto/*.proto`, and conversions between its messages and
//! [`cribwork_types`].
//!
//! Modules carry the names of the proto packages. `bytes` fields are [`prost::bytes::Bytes`], so a
//! decoded message shares the buffer that it came in. The services that TiKV's clients speak are
//! [`tikvpb`] and [`pdpb`]; people and nodes use [`cribwork`].

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may unwrap"))]

mod convert;
mod generated;
#[cfg(test)]
mod tests;

pub use convert::ConvertError;
pub use generated::{
    FILE_DESCRIPTOR_SET, cribwork, deadlock, errorpb, kvrpcpb, metapb, pdpb, tikvpb,
};
