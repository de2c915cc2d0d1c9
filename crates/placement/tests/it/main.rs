//! Tests of the schedulers from outside: stories in text, single steps, and simulations that must settle.

// The lint exempts test functions but not their helpers.
#![allow(clippy::unwrap_used)]

mod merges;
mod model;
mod settle;
mod steps;
mod story;
mod story_text;
