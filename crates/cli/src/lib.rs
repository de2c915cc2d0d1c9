//! The command line of Cribwork, as a library so that it can be tested without a process.
//!
//! Data goes to stdout and everything else to stderr, so that output can be piped. `args` says what
//! there is, `run` dispatches it, `shapes` holds the JSON that scripts rely on, and `failure` turns
//! every error into a message, a hint, a code and an exit status.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may unwrap"))]

mod admin;
mod args;
mod data;
mod demo;
mod explain;
mod failure;
mod in_process;
mod logging;
mod moves;
mod output;
mod parse;
mod run;
mod shapes;
mod signals;
mod start;
mod store;
mod verify;
mod workload;

pub use run::main;
