//! The `cribwork` binary.

use std::process::ExitCode;

/// glibc's allocator keeps what thousands of Raft instances had, long after they went cold.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cribwork_cli::main()
}
