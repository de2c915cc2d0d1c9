//! What tests run against: a runtime on tokio's (paused) clock, and a cluster in memory with
//! scripted faults.

mod cluster;
mod data;
mod runtime;

pub(crate) use cluster::{Cluster, Fault};
pub(crate) use runtime::TestRuntime;

use bytes::Bytes;

/// Static bytes.
pub(crate) fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}
