//! What the program says about itself, on stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::args::LogForm;
use crate::failure::Failure;

/// A plain level means our own messages: the consensus library reports every step of every group at
/// `info`, and at `warn` whatever it will try again.
fn directives(level: &str) -> String {
    match level.to_ascii_lowercase().as_str() {
        "info" | "warn" => format!("{level},openraft=error"),
        _ => level.to_owned(),
    }
}

/// Begins to log; once a process.
pub(crate) fn start(level: &str, form: LogForm) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(directives(level)).map_err(|error| {
        let hint =
            "use error, warn, info, debug, trace, or a filter such as info,cribwork_client=debug";
        Failure::usage(format!("--log-level {level}: {error}"), hint)
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match form {
        LogForm::Human => builder.try_init(),
        LogForm::Json => builder.json().try_init(),
    };
    if let Err(error) = started {
        // Only in tests, which share a process: somebody else logs already.
        tracing::debug!(%error, "logging is on already");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_levels_are_completed() {
        assert_eq!(directives("warn"), "warn,openraft=error");
        assert_eq!(directives("INFO"), "INFO,openraft=error");
        assert_eq!(directives("debug"), "debug");
        assert_eq!(directives("info,openraft=info"), "info,openraft=info");
        for level in ["warn", "debug", "info,openraft=info"] {
            assert!(EnvFilter::try_new(directives(level)).is_ok(), "{level}");
        }
    }
}
