//! Why a workload could not be run. What it finds out about the cluster is no error but its report.

use cribwork_client::ClientError;
use cribwork_types::CodedError;

/// Why a workload gave up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadError {
    /// An option that cannot be right.
    #[error("{what}: {why}")]
    Invalid {
        /// The option.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The cluster could not be prepared.
    #[error("{stage}: {source}")]
    Setup {
        /// What was being done.
        stage: &'static str,
        /// The last failure.
        source: ClientError,
    },
    /// A worker ended before its time: the runtime stopped, or the worker panicked.
    #[error("a worker ended before its time")]
    WorkerLost,
    /// The record of what was done says what cannot be.
    #[error("the history is not one: {why}")]
    History {
        /// What is impossible.
        why: String,
    },
}

impl WorkloadError {
    pub(crate) fn invalid(what: &'static str, why: impl Into<String>) -> Self {
        WorkloadError::Invalid { what, why: why.into() }
    }
}

impl CodedError for WorkloadError {
    fn code(&self) -> &'static str {
        match self {
            WorkloadError::Invalid { .. } => "CW-WORKLOAD-INVALID",
            WorkloadError::Setup { .. } => "CW-WORKLOAD-SETUP",
            WorkloadError::WorkerLost => "CW-WORKLOAD-WORKER",
            WorkloadError::History { .. } => "CW-WORKLOAD-HISTORY",
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            WorkloadError::Setup { source, .. } => source.is_retryable(),
            WorkloadError::Invalid { .. }
            | WorkloadError::WorkerLost
            | WorkloadError::History { .. } => false,
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            WorkloadError::Invalid { .. } => "correct the option",
            WorkloadError::Setup { source, .. } => source.hint(),
            WorkloadError::WorkerLost => "look for a panic in the log and report it",
            WorkloadError::History { .. } => "a mistake in the workload: report it",
        }
    }
}
