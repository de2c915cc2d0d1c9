//! Whole nodes in one process, on a simulated network and clock: the server, its groups and its gRPC as
//! they are, over stores that lose what was not synced when their host crashes.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "this is test code: it may panic, and the clock it reads is the simulated one"
)]

mod client;
mod host;
mod network;
mod runtime;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::Client;
use host::{HOSTS, Store};
use runtime::until;

/// Simulated time after which the test has failed.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn a_write_outlives_the_crash_of_its_leader() -> turmoil::Result {
    let mut sim = turmoil::Builder::new()
        .rng_seed(1)
        .simulation_duration(LIMIT)
        .tick_duration(Duration::from_millis(2))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(4))
        .tcp_capacity(4096)
        .build();
    let stores: Vec<Arc<Store>> = HOSTS.iter().map(|_| Arc::default()).collect();
    for (number, name) in HOSTS.into_iter().enumerate() {
        let store = stores[number].clone();
        sim.host(name, move || host::run(name, number as u64, store.clone()));
    }
    let (written, crashed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (tell_written, is_crashed) = (written.clone(), crashed.clone());
    sim.client("client", async move {
        let client = Client::new();
        client.init().await;
        client.put(b"k", b"before").await;
        assert_eq!(client.get(b"k").await.as_deref(), Some(&b"before"[..]));
        tell_written.store(true, Ordering::SeqCst);
        until(async || is_crashed.load(Ordering::SeqCst).then_some(())).await;
        let dead = tokio::time::Instant::now();
        client.put(b"l", b"after").await;
        assert!(dead.elapsed() < Duration::from_secs(2), "{:?} without a leader", dead.elapsed());
        assert_eq!(client.get(b"k").await.as_deref(), Some(&b"before"[..]));
        Ok(())
    });
    let mut restart_at = None;
    while !sim.step()? {
        // The first node of the join list leads every range of a new cluster.
        if written.swap(false, Ordering::SeqCst) {
            sim.crash(HOSTS[0]);
            stores[0].lose_power();
            crashed.store(true, Ordering::SeqCst);
            restart_at = Some(sim.elapsed() + Duration::from_millis(1500));
        }
        if restart_at.is_some_and(|at| sim.elapsed() >= at) {
            restart_at = None;
            sim.bounce(HOSTS[0]);
        }
    }
    Ok(())
}
