//! Tests of the crate from outside: histories written by hand, and simulated ones with mistakes put in.

#![allow(clippy::unwrap_used, reason = "the lint exempts test functions but not their helpers")]

//TMP mod acknowledged;
mod adya_agrees;
mod append;
//TMP mod format;
mod linearizable;
mod lines;
//TMP mod observations;
mod registers;
//TMP mod replay;
mod rng;
//TMP mod run;
mod store;
