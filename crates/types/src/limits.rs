//! Limits of one request, shared by client and server. Over a limit comes a typed error, never a
//! truncated answer.

/// Longest user key, bytes. What TiKV allows by default (`max-key-size` is 8 KiB there).
pub const KEY_BYTES_MAX: usize = 8 * 1024;
/// Longest value, bytes.
pub const VALUE_BYTES_MAX: usize = 6 * 1024 * 1024;
/// Largest command that may enter a Raft log, bytes (`raft-entry-max-size` is 8 MiB in TiKV).
pub const ENTRY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most keys or pairs in one request.
pub const BATCH_KEYS_MAX: usize = 64 * 1024;
/// Most rows a raw scan may ask for, and what a limit over it is refused with (TiKV's clients
/// promise at most 10240).
pub const SCAN_LIMIT_MAX: u32 = 10_240;
/// Largest gRPC message that a node decodes, bytes: an entry and its framing.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest value that sits inside the lock and write records instead of the `default` family, bytes.
pub const SHORT_VALUE_BYTES_MAX: usize = 255;
