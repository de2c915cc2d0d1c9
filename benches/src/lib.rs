//! Benchmarks of Cribwork: criterion benchmarks of the crates in `benches/`, and in `peers/` a load
//! generator for etcd with a script that runs it side by side with Cribwork.

#![forbid(unsafe_code)]
