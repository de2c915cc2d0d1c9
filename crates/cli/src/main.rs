//! The `cribwork` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    cribwork_cli::main()
}
