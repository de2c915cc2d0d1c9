//! The client against a cluster in memory.

mod admin;
mod grpc;
mod raw;
mod repair;
mod tso;
mod txn;
