//! The `cribwork-chaos` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    cribwork_chaos::main()
}
