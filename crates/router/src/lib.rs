//! The range map: from a key to its range to the replica that leads it.
//!
//! * [`RangeMap`] holds descriptors and who leads them, and decides by epoch what replaces what. A
//!   store uses it for its local replicas, the placement group for its directory, and a client,
//!   through [`ClientCache`], for its routes.
//! * [`split`] and [`merge`] are the algebra of splits and merges, [`check_epoch`] the comparison that fences commands,
//!   [`check_tiling`] the invariant that ranges cover the key space exactly once.
//! * [`SplitSampler`] finds where a range that has grown too large is cut.
//! * [`evenly_split_bounds`] and [`tagged_bounds`] compute bounds for pre-split ranges.
//!
//! Pure: no I/O, no clock, no randomness, so the same calls give the same answers everywhere.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may unwrap"))]

mod bounds;
mod client_cache;
mod epoch;
mod error;
mod merge;
mod range_map;
mod split;
mod split_key;
#[cfg(test)]
mod testing;
mod tiling;

pub use bounds::{BoundsError, RANGES_MAX, evenly_split_bounds, tagged_bounds};
pub use client_cache::{ClientCache, ROUTES_MAX, Route};
pub use epoch::{EpochNeed, Stale, check_epoch};
pub use error::RouterError;
pub use merge::{MergeError, merge};
pub use range_map::{Inserted, LeaderUpdate, RangeEntry, RangeMap};
pub use split::{SplitError, split};
pub use split_key::{KeyForm, SplitSampler};
pub use tiling::{TilingError, check_tiling};
