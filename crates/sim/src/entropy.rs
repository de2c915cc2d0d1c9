//! The operating system's randomness, replaced: what hash maps and libraries draw comes from the seed.
//!
//! `std` seeds every `HashMap` from the C library's `getrandom`. This crate defines that symbol, so that
//! the linker takes it instead, in its own binary and tests only. Without it, the order in which hash maps
//! of third parties are walked would differ from run to run. madsim does the same.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

static STATE: AtomicU64 = AtomicU64::new(0);

/// From here on, the system's randomness follows `seed`. Call it first of all, before any hash map is
/// made on this thread.
pub fn seed(seed: u64) {
    STATE.store(seed, Ordering::Relaxed);
}

/// The next number.
fn draw() -> u64 {
    let before = STATE.fetch_add(crate::random::STEP, Ordering::Relaxed);
    crate::random::mix(before.wrapping_add(crate::random::STEP))
}

/// `getrandom(2)`, from the seed. Never fails.
///
/// # Safety
/// `buffer` points to `length` writable bytes, as for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    let mut filled = 0;
    while filled < length {
        let bytes = draw().to_ne_bytes();
        let count = bytes.len().min(length - filled);
        // SAFETY: `filled + count <= length`, and the caller vouches for `length` bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.add(filled), count) };
        filled += count;
    }
    length as isize
}
