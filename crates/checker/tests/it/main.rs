//! Tests of the crate from outside: histories written by hand, and simulated ones with mistakes put in.

#![allow(clippy::unwrap_used, reason = "the lint exempts test functions but not their helpers")]

mod acknowledged;
mod adya_agrees;
mod append;
mod format;
mod linearizable;
mod lines;
mod observations;
mod registers;
mod replay;
mod rng;
mod run;
mod store;
