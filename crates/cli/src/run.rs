//! From arguments to an exit status.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use cribwork_client::{AdminClient, Client, ClientOptions};
use cribwork_server::{TokioRuntime, tokio_runtime};
use cribwork_types::Runtime;

use crate::args::{Cli, Command, Global, LogForm};
use crate::failure::{Failure, exit};
use crate::{admin, data, demo, explain, logging, moves, start, store, verify, workload};

/// What a command that talks to a cluster needs.
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) runtime: Arc<dyn Runtime>,
}

impl Context {
    pub(crate) fn options(&self) -> ClientOptions {
        let defaults = ClientOptions::new(&self.global.endpoints);
        let timeout = self.global.timeout();
        ClientOptions {
            timeout,
            attempt_timeout: defaults.attempt_timeout.min(timeout),
            connect_timeout: defaults.connect_timeout.min(timeout),
            ..defaults
        }
    }

    pub(crate) fn admin(&self) -> AdminClient {
        AdminClient::new(self.options(), self.runtime.clone())
    }

    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(self.options(), self.runtime.clone()).await?)
    }
}

/// Runs the process's arguments.
pub fn main() -> ExitCode {
    match execute(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(end) => {
            end.report();
            end.status().into()
        }
    }
}

/// Why a command line came to nothing.
enum End {
    /// It asks for help, or is wrong.
    Arguments(clap::Error),
    Failed(Failure),
}

impl End {
    fn status(&self) -> u8 {
        match self {
            // Help and version are answers; everything else is a mistake.
            End::Arguments(error) if !error.use_stderr() => 0,
            End::Arguments(_) => exit::USAGE,
            End::Failed(failure) => failure.exit,
        }
    }

    fn report(&self) {
        match self {
            // Whoever closed the pipe does not want to hear of it.
            End::Arguments(error) => drop(error.print()),
            End::Failed(failure) => failure.report(),
        }
    }
}

/// Runs a command line, the program's name first.
fn execute(words: impl IntoIterator<Item = OsString>) -> Result<(), End> {
    let cli = Cli::try_parse_from(words).map_err(End::Arguments)?;
    run(cli).map_err(End::Failed)
}

fn run(Cli { global, command }: Cli) -> Result<(), Failure> {
    match command {
        Command::Start(flags) => start::start(&global, *flags),
        Command::Demo(flags) => {
            log(&global, "warn")?;
            demo::demo(&global, &flags)
        }
        Command::Store(asked) => {
            log(&global, "warn")?;
            store::store(&global, &asked)
        }
        command => {
            log(&global, "warn")?;
            let tokio = tokio_runtime(1).map_err(|error| Failure::system("runtime", &error))?;
            let runtime = Arc::new(TokioRuntime::new(tokio.handle().clone()));
            tokio.block_on(dispatch(Context { global, runtime }, command))
        }
    }
}

fn log(global: &Global, default: &str) -> Result<(), Failure> {
    let level = global.log_level.as_deref().unwrap_or(default);
    logging::start(level, global.log_format.unwrap_or(LogForm::Human))
}

async fn dispatch(context: Context, command: Command) -> Result<(), Failure> {
    let context = &context;
    match command {
        Command::Init(init) => admin::init(context, init).await,
        Command::Status => admin::status(context).await,
        Command::Nodes => admin::nodes(context).await,
        Command::Ranges => admin::ranges(context).await,
        Command::Range { id } => admin::range(context, id).await,
        Command::Split { key } => admin::split(context, key).await,
        Command::TransferLeader { id, store } => admin::transfer_leader(context, id, store).await,
        Command::MoveReplica { id, from, to } => moves::replica(context, id, from, to).await,
        Command::Merge { id } => moves::merge(context, id).await,
        Command::Drain { node, undo } => moves::drain(context, node, undo).await,
        Command::Decommission { node } => moves::decommission(context, node).await,
        Command::Explain(subject) => explain::explain(context, subject).await,
        Command::Config(command) => admin::config(context, command).await,
        Command::Verify { range } => verify::verify(context, range).await,
        Command::Kv(data) => data::kv(context, data).await,
        Command::Txn(data) => data::txn(context, data).await,
        Command::Workload(workload) => workload::workload(context, workload).await,
        Command::Demo(_) | Command::Start(_) | Command::Store(_) => {
            unreachable!("they have runtimes of their own, or need none")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(line: &str) -> u8 {
        let words = std::iter::once("cribwork").chain(line.split_whitespace()).map(OsString::from);
        execute(words).map_or_else(|end| end.status(), |()| 0)
    }

    #[test]
    fn wrong_usage_is_64() {
        for line in [
            "",
            "frobnicate",
            "status --frobnicate",
            "workload ycsb",
            "workload bank --mode pessimistic",
            "explain table 1",
            "kv get 0xzz",
            "store compare one",
            "status --log-level ]=[",
            "start --listen 0.0.0.0:1",
        ] {
            assert_eq!(status(line), exit::USAGE, "{line}");
        }
    }

    #[test]
    fn help_and_version_are_answers() {
        for line in ["--help", "--version", "help start", "workload kv --help"] {
            assert_eq!(status(line), 0, "{line}");
        }
    }

    /// Port 1 answers nobody.
    #[test]
    fn no_cluster_is_a_failure() {
        let line = "status --endpoints 127.0.0.1:1 --timeout 200ms";
        assert_eq!(status(line), exit::FAILED);
    }
}
