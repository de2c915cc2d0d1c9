//! One node in the foreground.

use cribwork_server::{Config, LogFormat, Node, NodeOptions, RunningNode, tokio_runtime};

use crate::args::{Global, LogForm, Start};
use crate::failure::Failure;
use crate::logging;
use crate::signals::Signals;

/// What a shell reports for a process ended by Ctrl-C.
const INTERRUPTED: i32 = 130;

/// Runs a node until it is told to stop.
pub(crate) fn start(global: &Global, flags: Start) -> Result<(), Failure> {
    let config = settings(global, flags)?;
    let form = match config.log.format {
        LogFormat::Text => LogForm::Human,
        LogFormat::Json => LogForm::Json,
    };
    logging::start(&config.log.level, form)?;
    let tokio =
        tokio_runtime(config.workers).map_err(|error| Failure::system("runtime", &error))?;
    tokio.block_on(serve(config))
}

/// Flags, which clap has taken from the environment if they were not given, over the file, over the
/// defaults.
fn settings(global: &Global, flags: Start) -> Result<Config, Failure> {
    let mut config = match &flags.config {
        Some(path) => Config::from_file(path)?,
        None => Config::default(),
    };
    fn set<T>(setting: &mut T, flag: Option<T>) {
        if let Some(flag) = flag {
            *setting = flag;
        }
    }
    set(&mut config.data_dir, flags.data_dir);
    set(&mut config.listen, flags.listen);
    set(&mut config.http, flags.http);
    set(&mut config.join, flags.join);
    set(&mut config.zone, flags.zone);
    set(&mut config.workers, flags.workers);
    config.rebuild_damaged |= flags.rebuild_damaged;
    set(&mut config.log.level, global.log_level.clone());
    config.advertise = flags.advertise.or(config.advertise);
    config.log.format = match global.log_format {
        Some(LogForm::Human) => LogFormat::Text,
        Some(LogForm::Json) => LogFormat::Json,
        None => config.log.format,
    };
    config.check()?;
    Ok(config)
}

async fn serve(config: Config) -> Result<(), Failure> {
    let mut signals = Signals::take()?;
    let node = tokio::select! {
        started = Node::start(NodeOptions::new(config)) => started?,
        () = signals.next() => return Ok(()),
    };
    announce(&node);
    signals.next().await;
    eprintln!("stopping: leaderships move to other nodes; Ctrl-C again stops at once");
    tokio::select! {
        stopped = node.shutdown() => Ok(stopped?),
        () = signals.next() => std::process::exit(INTERRUPTED),
    }
}

fn announce(node: &RunningNode) {
    eprintln!("gRPC on {}, HTTP on {}", node.grpc_addr(), node.http_addr());
    match node.identity() {
        Some((cluster, store)) => eprintln!("store {store} of cluster {cluster}"),
        None => eprintln!(
            "no member of a cluster yet: `cribwork init --endpoints {}` makes one, once all its \
             nodes are started",
            node.advertised()
        ),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};
    use crate::failure::exit;

    fn settings_of(line: &str) -> Result<Config, Failure> {
        let words = ["cribwork", "start"].into_iter().chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).unwrap();
        let Command::Start(flags) = cli.command else { panic!("{line}") };
        settings(&cli.global, *flags)
    }

    #[test]
    fn flags_go_over_the_file_and_the_file_over_defaults() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cribwork.toml");
        let text = "listen = \"127.0.0.1:1\"\nzone = \"file\"\n[log]\nlevel = \"error\"\n";
        std::fs::write(&path, text).unwrap();
        let config = settings_of(&format!(
            "--config {} --zone flag --join a:1,b:2 --log-format json",
            path.display()
        ))
        .unwrap();
        assert_eq!((config.zone.as_str(), config.listen.as_str()), ("flag", "127.0.0.1:1"));
        assert_eq!(config.join, ["a:1", "b:2"]);
        assert_eq!((config.log.level.as_str(), config.log.format), ("error", LogFormat::Json));
        assert_eq!(config.http, Config::default().http);
    }

    #[test]
    fn a_wildcard_needs_an_address_for_others() {
        let failure = settings_of("--listen 0.0.0.0:20160").unwrap_err();
        assert_eq!(failure.exit, exit::USAGE);
        assert!(failure.message.contains("advertise"), "{failure:?}");
        assert!(settings_of("--listen 0.0.0.0:20160 --advertise db1.example:20160").is_ok());
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let failure = settings_of("--config /nonexistent/cribwork.toml").unwrap_err();
        assert!(failure.message.contains("/nonexistent/cribwork.toml"), "{failure:?}");
    }
}
