//! What can be asked for.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::kind::Kind;

/// Break a real cluster on purpose, under load, and prove that it keeps its promises.
#[derive(Debug, Parser)]
#[command(name = "cribwork-chaos", version, args_conflicts_with_subcommands = true)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: Run,
}

const AFTER_HELP: &str = "\
Starts real `cribwork` processes, each in a network namespace and on a file system of its own where that
is possible, runs the workloads bank, register and append on them, and meanwhile does one fault after the
other, with time to recover in between. Then the workloads judge what they saw. The faults come from
the seed; timing does not, so that the same seed may find something once and not again.

Kinds that this machine cannot do are named on stderr (SKIP kind: reason) and in the report. Most need
root and some packages; `make chaos` says which.

Examples:
  cribwork-chaos list                           all kinds, and which of them are possible here
  cribwork-chaos --duration 5m --seed 7
  cribwork-chaos --kinds kill-all,power-cut-all --duration 2m --output json
  cribwork-chaos power-cuts --count 10

Exit status: 0 every check holds, 2 one is violated, 1 the run could not be made or proves nothing.";

/// Other things than a run.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the kinds of faults, and try which of them this machine can do
    List {
        /// How the list is printed on stdout
        #[arg(long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Cut the power of all nodes again and again, and look for lost money each time
    PowerCuts(PowerCuts),
}

/// A run.
#[derive(Clone, Debug, Args)]
pub(crate) struct Run {
    /// How long the load lasts; the last fault ends some seconds earlier
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// Kinds of faults, as in `list` [default: all]
    #[arg(long, value_delimiter = ',', value_parser = kind, value_name = "KIND,...")]
    pub(crate) kinds: Vec<Kind>,
    /// Workers of each workload
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) workers: u32,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Power cuts.
#[derive(Clone, Debug, Args)]
pub(crate) struct PowerCuts {
    /// How many
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    /// Let fsync lie on all nodes: something must be found then, which proves that the check can
    #[arg(long)]
    pub(crate) lying_disk: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Options of everything that starts nodes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// The `cribwork` that runs [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) binary: Option<PathBuf>,
    /// Number of nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub(crate) nodes: u32,
    /// Ranges that the cluster begins with
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) ranges: u32,
    /// Chooses the faults [default: random]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Directory for report, logs, histories and data; must not exist
    /// [default: cribwork-chaos-TIME in the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Keep the data of the nodes even if every check holds
    #[arg(long)]
    pub(crate) keep_data: bool,
    /// How the result is printed on stdout; json is one document on one line
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

fn kind(name: &str) -> Result<Kind, String> {
    Kind::from_name(name).ok_or_else(|| "no such kind; `cribwork-chaos list` names them".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_needs_no_word_and_takes_kinds() {
        let cli = Cli::try_parse_from(["x", "--kinds", "pause,loss", "--duration", "90s"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.run.kinds, [Kind::Pause, Kind::Loss]);
        assert_eq!(cli.run.duration, Duration::from_secs(90));
        assert!(Cli::try_parse_from(["x", "--kinds", "flood"]).is_err());
        let cli = Cli::try_parse_from(["x", "power-cuts", "--count", "3", "--nodes", "5"]).unwrap();
        assert!(matches!(cli.command, Some(Command::PowerCuts(PowerCuts { count: 3, .. }))));
    }
}
