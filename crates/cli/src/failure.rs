//! Why a command failed, as a person and a script see it.

use cribwork_client::ClientError;
use cribwork_server::ServerError;
use cribwork_types::CodedError;
use cribwork_workload::WorkloadError;

/// Exit statuses. 0 means done.
pub(crate) mod exit {
    pub(crate) const FAILED: u8 = 1;
    pub(crate) const VIOLATED: u8 = 2;
    /// `EX_USAGE` of sysexits.h.
    pub(crate) const USAGE: u8 = 64;
}

/// A command that did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: u8,
    pub(crate) message: String,
    pub(crate) hint: String,
    pub(crate) code: String,
}

impl Failure {
    pub(crate) fn new(code: &str, message: impl Into<String>, hint: &str) -> Self {
        Self {
            exit: exit::FAILED,
            message: message.into(),
            hint: hint.to_owned(),
            code: code.to_owned(),
        }
    }

    pub(crate) fn usage(message: impl Into<String>, hint: &str) -> Self {
        Self { exit: exit::USAGE, ..Self::new("CW-CLI-USAGE", message, hint) }
    }

    /// What the machine says when it gives no runtime, directory or the like.
    pub(crate) fn system(what: &str, error: &std::io::Error) -> Self {
        let hint = "the system has refused: look at limits, permissions and disk space";
        Self::new("CW-CLI-SYSTEM", format!("{what}: {error}"), hint)
    }

    fn coded(error: &impl CodedError) -> Self {
        Self::new(error.code(), error.to_string(), error.hint())
    }

    /// Tells it on stderr.
    pub(crate) fn report(&self) {
        eprintln!("error: {}", self.message);
        if !self.hint.is_empty() {
            eprintln!(" hint: {}", self.hint);
        }
        eprintln!(" code: {}", self.code);
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let mut failure = Self::coded(&error);
        match error {
            // What the server said about itself is more than what the client knows.
            ClientError::Refused { server_code, advice, .. } => {
                let given =
                    |given: String, ours: String| if given.is_empty() { ours } else { given };
                failure.code = given(server_code, failure.code);
                failure.hint = given(advice, failure.hint);
            }
            ClientError::Invalid { .. } => failure.exit = exit::USAGE,
            _ => {}
        }
        failure
    }
}

impl From<WorkloadError> for Failure {
    fn from(error: WorkloadError) -> Self {
        let failure = Self::coded(&error);
        match error {
            WorkloadError::Invalid { .. } => Self { exit: exit::USAGE, ..failure },
            WorkloadError::Setup { .. }
            | WorkloadError::WorkerLost
            | WorkloadError::History { .. } => failure,
        }
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        let failure = Self::coded(&error);
        match error {
            ServerError::Config(_) => Self { exit: exit::USAGE, ..failure },
            _ => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_words_go_before_the_clients() {
        let refused = |code: &str, advice: &str| ClientError::Refused {
            server_code: code.to_owned(),
            message: "already initialised".to_owned(),
            advice: advice.to_owned(),
            retryable: false,
        };
        let failure = Failure::from(refused("CW-SERVER-X", "rest"));
        assert_eq!((failure.code.as_str(), failure.hint.as_str()), ("CW-SERVER-X", "rest"));
        let failure = Failure::from(refused("", ""));
        assert_eq!((failure.code.as_str(), failure.exit), ("CW-CLIENT-REFUSED", exit::FAILED));
        assert!(!failure.hint.is_empty());
    }

    #[test]
    fn wrong_arguments_are_wrong_usage() {
        let invalid = ClientError::Invalid { what: "key", why: "too long".to_owned() };
        assert_eq!(Failure::from(invalid).exit, exit::USAGE);
        let invalid = WorkloadError::Invalid { what: "workers", why: "0".to_owned() };
        assert_eq!(Failure::from(invalid).exit, exit::USAGE);
        assert_eq!(Failure::from(ServerError::Config("x".to_owned())).exit, exit::USAGE);
        assert_eq!(Failure::from(WorkloadError::WorkerLost).exit, exit::FAILED);
    }
}
