//! Tests of the crate from outside: scripted scenarios, a model, and the cost of reads.

// The lint exempts test functions but not their helpers.
#![allow(clippy::unwrap_used)]

mod cost;
mod model;
mod script;
mod script_text;
