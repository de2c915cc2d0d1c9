//! The words that every other crate of Cribwork shares: ids, keys and their memcomparable
//! encoding, timestamps, epochs, range descriptors, mutations, limits, the error contract, and the
//! [`Runtime`] through which I/O crates reach clock, randomness and tasks.
//!
//! Nothing here does I/O, reads a clock or starts a task.

#![forbid(unsafe_code)]

pub mod codec;
mod descriptor;
mod epoch;
mod error;
#[cfg(test)]
mod fuzz;
mod ids;
pub mod key;
mod key_range;
pub mod limits;
mod mutation;
pub mod quirk;
mod runtime;
pub mod seeded;
mod timestamp;

pub use descriptor::{RangeDescriptor, ReplicaDescriptor, ReplicaRole};
pub use epoch::RangeEpoch;
pub use error::{CodecError, CodedError};
pub use ids::{ClusterId, RangeId, ReplicaId, StoreId};
pub use key_range::KeyRange;
pub use mutation::{Cf, Mutation, WriteBatch};
pub use runtime::{BoxFuture, Runtime, RuntimeExt, TimedOut};
pub use timestamp::Timestamp;
