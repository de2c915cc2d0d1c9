//! Command line of the repository checks: `cargo run -p cribwork-xtask -- layering|seeded|tidy|bench-table|fuzz`.
//!
//! Findings go to stderr. Exit codes: 0 clean, 1 findings or failure, 64 wrong usage.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use cribwork_xtask::{bench_table, fuzz, layering, seeded, tidy};

const USAGE: &str = "\
usage: cargo run -p cribwork-xtask -- COMMAND

  layering     crates use only what their layer may use
  seeded       bugs put in on purpose stay in the simulator
  tidy         file and function sizes, banned forms and words, module documentation
  bench-table  print the last benchmark run as a table
  fuzz         run the fuzz targets for long:
               --duration 10m (each)  --target NAME  --input HEX  --seed N  --jobs N (at a time)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.as_slice() {
        [command] => (command, &[][..]),
        [command, rest @ ..] if command == "fuzz" => (command, rest),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(64);
        }
    };
    // Not as it was when this was built: clones share a target directory, and cargo may run a binary
    // that it built for another one.
    let Some(own) = std::env::var_os("CARGO_MANIFEST_DIR") else {
        eprintln!(
            "run it by cargo, which says where the repository is: cargo run -p cribwork-xtask"
        );
        return ExitCode::from(64);
    };
    let root = PathBuf::from(own).join("../..");
    let outcome = match command.as_str() {
        "layering" => layering::check_repository(&root),
        "seeded" => seeded::check_repository(&root),
        "tidy" => tidy::check_repository(&root)
            .map(|findings| findings.iter().map(ToString::to_string).collect()),
        "bench-table" => bench_table::render_repository(&root).map(|table| {
            print!("{table}");
            Vec::new()
        }),
        "fuzz" => {
            fuzz::Options::parse(rest).and_then(|options| fuzz::run_repository(&root, &options))
        }
        _ => {
            eprintln!("unknown command {command:?}\n\n{USAGE}");
            return ExitCode::from(64);
        }
    };
    match outcome {
        Ok(findings) if findings.is_empty() => ExitCode::SUCCESS,
        Ok(findings) => {
            findings.iter().for_each(|finding| eprintln!("{finding}"));
            eprintln!("{command}: {} finding(s)", findings.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{command}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
