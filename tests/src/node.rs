//! One node: what it is started with, and its process while it runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::poll::wait_until;
use crate::ports::{free_address, http_get};
use crate::process::{Finished, Memory, Process};

/// How long a node may take to stop: as long as it may take to hand leaderships over, and its disk.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// How long a process may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(30);

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeFlags {
    /// `--data-dir`.
    pub data: PathBuf,
    /// `--listen`.
    pub listen: String,
    /// `--http`.
    pub http: String,
    /// `--join`, separated by commas.
    pub join: String,
    /// `--rebuild-damaged`.
    pub rebuild_damaged: bool,
}

impl NodeFlags {
    /// A node with the given data directory, on free ports, that knows only itself.
    pub fn alone(data: &Path) -> Self {
        let listen = free_address();
        let (data, http, join) = (data.to_owned(), free_address(), listen.clone());
        Self { data, listen, http, join, rebuild_damaged: false }
    }

    /// Starts a process with these flags; it may end at once.
    pub fn start(&self) -> Process {
        let beside = |ending: &str| self.data.with_extension(ending);
        let args = [
            ["--data-dir", self.data.to_str().unwrap()],
            ["--listen", &self.listen],
            ["--http", &self.http],
            ["--join", &self.join],
        ];
        let rebuild = self.rebuild_damaged.then_some("--rebuild-damaged");
        let args = args.into_iter().flatten().chain(rebuild);
        let args: Vec<&str> = ["start"].into_iter().chain(args).collect();
        Process::start_into(beside("stdout"), beside("stderr"), &args)
    }
}

/// A node that may be running.
#[derive(Debug)]
pub struct Node {
    flags: NodeFlags,
    process: Option<Process>,
}

impl Node {
    /// Starts a node and waits until its HTTP port answers.
    ///
    /// # Errors
    /// What the process said, if it ended instead.
    pub fn start(flags: NodeFlags) -> Result<Self, Finished> {
        let mut process = flags.start();
        wait_until("a node listens", START_LIMIT, || match http_get(&flags.http, "/health") {
            Ok((200, _)) => Ok(Ok(())),
            _ if !process.is_running() => Ok(Err(process.wait(START_LIMIT))),
            Ok(answer) => Err(format!("/health says {answer:?}")),
            Err(error) => Err(error),
        })?;
        Ok(Self { flags, process: Some(process) })
    }

    /// What it is started with.
    pub fn flags(&self) -> &NodeFlags {
        &self.flags
    }

    /// Has it set its store aside if that is damaged, from the next start on.
    pub fn rebuild_damaged(&mut self) {
        self.flags.rebuild_damaged = true;
    }

    /// Whether it was started and neither killed nor stopped since.
    pub(crate) fn process_runs(&self) -> bool {
        self.process.is_some()
    }

    /// Whether its process runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// The memory of its process.
    ///
    /// # Panics
    /// If it is not running.
    #[track_caller]
    pub fn memory(&self) -> Memory {
        self.process.as_ref().expect("a node that runs").memory()
    }

    /// Ends it as a crash does.
    ///
    /// # Panics
    /// If it is not running.
    #[track_caller]
    pub fn kill9(&mut self) {
        let mut process = self.process.take().expect("a node that runs");
        assert!(process.is_running(), "the node had ended by itself:\n{}", process.stderr());
        process.kill9();
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it is not running.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        self.process.as_ref().expect("a node that runs").signal(name);
    }

    /// Sends it a signal and waits for its end.
    ///
    /// # Panics
    /// If it is not running, or does not end.
    #[track_caller]
    pub fn stop(&mut self, signal: &str) -> Finished {
        let mut process = self.process.take().expect("a node that runs");
        process.signal(signal);
        process.wait(STOP_LIMIT)
    }

    /// Waits for the end of one that ends by itself.
    ///
    /// # Panics
    /// If it was not started, or does not end.
    #[track_caller]
    pub fn reap(&mut self) -> Finished {
        self.process.take().expect("a node that was started").wait(STOP_LIMIT)
    }

    /// Starts it again, with the same flags.
    ///
    /// # Panics
    /// If it is running, or does not start.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "the node runs");
        match Self::start(self.flags.clone()) {
            Ok(node) => *self = node,
            Err(ended) => panic!("the node did not start again: {ended:?}"),
        }
    }

    /// Whether it says that it serves.
    ///
    /// # Errors
    /// Why not.
    pub fn is_ready(&self) -> Result<(), String> {
        match http_get(&self.flags.http, "/ready")? {
            (200, _) => Ok(()),
            (status, body) => Err(format!("{}: {status} {body}", self.flags.listen)),
        }
    }

    /// Everything that its processes have written to stderr.
    pub fn log(&self) -> String {
        let path = self.flags.data.with_extension("stderr");
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    }
}
