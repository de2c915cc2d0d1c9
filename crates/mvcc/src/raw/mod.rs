//! The raw API's data: plain keys, values with an optional expiry, no versions.
//!
//! Time comes in as `now_ms` (Unix milliseconds by the leader's clock): an expired value is absent to
//! every function here, long before anybody deletes it.

mod checksum;
mod crc64;
mod ops;
mod value;

pub use checksum::{RawChecksum, raw_checksum};
pub use ops::{
    CasOutcome, CasParams, RawScanOptions, raw_cas, raw_cf, raw_get, raw_scan, raw_ttl_left_s,
};
pub use value::{RawValue, expiry_ms};
