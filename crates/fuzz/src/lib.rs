//! Hostile bytes for decoders: the engine behind the tests in the modules named `fuzz`.
//!
//! ```text
//!  seeds (valid encodings) --> corpus --> mutate --> repair (checksums) --> check: decode, encode, compare
//!                                ^                                            |
//!                                +-------- inputs of a shape not seen before -+--> finding: panic, memory
//! ```
//!
//! A target is an ordinary test that names its seeds and a check. Under `cargo test` it tries a few
//! thousand inputs, always the same ones; under `make fuzz` ([`Settings`]) it goes on for as long as
//! it is told to, from a new seed. There is no instrumentation: what a check returns, a [`Shape`], says
//! which way through the decoder an input took, because every refusal of a decoder has words of its own.
//! That is enough for formats of some dozen branches, needs no second compiler, and reaches private
//! decoders from where they are.
//!
//! This crate is a dev-dependency only. It counts the memory that a check asks for, so whatever links
//! it runs with its allocator.

#![allow(
    clippy::disallowed_methods,
    reason = "this is test code: it may panic, and how long a target runs is real time"
)]

mod allocator;
mod caught;
mod mutate;
mod random;
mod settings;
mod shape;
mod target;

pub use allocator::measure;
pub use random::Random;
pub use settings::Settings;
pub use shape::Shape;
pub use target::{Target, hex, target};
