//! Closed-loop load on etcd's gRPC key-value service, for comparison with `cribwork workload kv`.
//!
//! N workers each keep one request in flight for the given time. Reads are linearizable (etcd's default).
//! Everything goes to the leader unless asked otherwise, so that etcd is spared its internal forwarding.
//! The result is one JSON line on stdout; all else goes to stderr.

#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "a load generator measures real time, and no simulator ever runs it"
)]

mod etcd;
mod load;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Closed-loop puts and gets against an etcd cluster; prints one JSON line.
#[derive(Parser)]
#[command(name = "etcd-load")]
struct Options {
    /// Client addresses, HOST:PORT separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:2379")]
    endpoints: Vec<String>,
    /// Requests in flight.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65536))]
    workers: u32,
    /// How long to send.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Share of gets, the rest are puts.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    read_percent: u8,
    /// Bytes in a key; decimal numbers padded with zeros.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    key_size: u16,
    /// Bytes in a value; random, so that no store gains by compressing them.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    value_size: u32,
    /// Keys drawn from, uniformly.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// HTTP/2 connections for each endpoint used; workers share them evenly.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    connections: u32,
    /// Who serves gets. Puts always go to the leader.
    #[arg(long, value_enum, default_value_t = Gets::Leader)]
    gets: Gets,
}

/// Which members serve gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Gets {
    /// The leader, without forwarding.
    Leader,
    /// All members in turn; followers ask the leader for a read index.
    All,
}

#[tokio::main]
async fn main() -> ExitCode {
    match load::run(&Options::parse()).await.and_then(|report| Ok(serde_json::to_string(&report)?))
    {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("etcd-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}
