//! The service over real Raft groups in one process.

mod contexts;
mod raw;
mod stream;
mod txn;
mod undetermined;
