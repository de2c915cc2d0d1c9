//! Tests of the engines through their public interface. One binary, because each links RocksDB.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests unwrap")]

mod conformance;
mod differential;
mod recovery;
mod stopped;
mod support;
mod watched;
