//! Processes of the `cribwork` binary, with their output in files.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::poll::wait_until;

/// Where cargo puts the binaries of this profile: the tests of a profile run the nodes of the same.
pub(crate) fn build_directory() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(Path::parent).expect("cargo runs tests from its `deps`").to_owned()
}

fn binary() -> PathBuf {
    let path = build_directory().join("cribwork");
    let missing = "is missing: `make test` builds it; so does `cargo build -p cribwork-cli`";
    assert!(path.exists(), "{} {missing}", path.display());
    path
}

/// A running `cribwork`. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    command: String,
    stdout: PathBuf,
    stderr: PathBuf,
    /// Where the output is, if it is nobody else's.
    _directory: Option<TempDir>,
}

impl Process {
    /// Starts `cribwork` with `args`; its output goes to new files.
    pub fn start(args: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let (out, err) = (directory.path().join("stdout"), directory.path().join("stderr"));
        let mut process = Self::start_into(out, err, args);
        process._directory = Some(directory);
        process
    }

    /// Starts `cribwork` with `args`; its output is appended to the given files.
    pub(crate) fn start_into(stdout: PathBuf, stderr: PathBuf, args: &[&str]) -> Self {
        let append = |path: &Path| -> File {
            OpenOptions::new().create(true).append(true).open(path).unwrap()
        };
        let mut command = Command::new(binary());
        command.args(args).stdin(Stdio::null());
        command.stdout(append(&stdout)).stderr(append(&stderr));
        // Settings of whoever runs the tests are not those of the tests.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CRIBWORK_")) {
                command.env_remove(name);
            }
        }
        let child = command.spawn().unwrap();
        let command = format!("cribwork {}", args.join(" "));
        Self { child, command, stdout, stderr, _directory: None }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ends it as a crash does: it is told nothing. Waits until it is gone.
    pub fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal: `INT` is what Ctrl-C sends, `TERM` what service managers send.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &pid]).status();
        assert!(sent.unwrap().success(), "cannot send {name} to {}", self.command);
    }

    /// Its memory, as the system counts it.
    pub fn memory(&self) -> Memory {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let bytes = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
            let kib = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
            kib << 10
        };
        Memory { resident: bytes("VmRSS:"), peak: bytes("VmHWM:") }
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// If it has not by the deadline.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> Finished {
        let status = wait_until(&self.command.clone(), deadline, || {
            let ended = self.child.try_wait().unwrap();
            ended.ok_or_else(|| format!("it still runs; its stderr:\n{}", self.stderr()))
        });
        let (command, stdout, stderr) = (self.command.clone(), self.stdout(), self.stderr());
        Finished { command, code: status.code(), stdout, stderr }
    }

    /// What it has written to stdout so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stdout).unwrap()).into_owned()
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).unwrap()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// In use now.
    pub resident: u64,
    /// The most that was ever in use.
    pub peak: u64,
}

/// Runs `cribwork` with `args` to its end.
///
/// # Panics
/// If it has not ended by the deadline.
#[track_caller]
pub fn run(args: &[&str], deadline: Duration) -> Finished {
    Process::start(args).wait(deadline)
}

/// What a process left behind.
#[derive(Clone, Debug)]
pub struct Finished {
    command: String,
    /// The exit status; none if a signal ended it.
    pub code: Option<i32>,
    /// Everything from stdout.
    pub stdout: String,
    /// Everything from stderr.
    pub stderr: String,
}

impl Finished {
    /// Checks that it succeeded; gives stdout.
    ///
    /// # Panics
    /// If it did not, with everything that it said.
    #[track_caller]
    pub fn ok(&self) -> &str {
        self.exits(0);
        &self.stdout
    }

    /// Checks that it failed with `code`, saying each of `words` on stderr and nothing on stdout.
    ///
    /// # Panics
    /// If it did not, with everything that it said.
    #[track_caller]
    pub fn fails(&self, code: i32, words: &[&str]) {
        self.exits(code);
        assert!(self.stdout.is_empty(), "a failure prints no data: {self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in the message: {self:?}");
        }
    }

    /// Checks that it succeeded and printed one JSON document on one line, and nothing else.
    ///
    /// # Panics
    /// If it did not, with everything that it said.
    #[track_caller]
    pub fn json(&self) -> Value {
        let text = self.ok();
        let line = text.strip_suffix('\n').unwrap_or_default();
        assert!(!line.is_empty() && !line.contains('\n'), "not one line: {self:?}");
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    fn exits(&self, code: i32) {
        let Self { command, stdout, stderr, .. } = self;
        assert!(
            self.code == Some(code),
            "{command}: exit status {:?}, expected {code}\nstdout: {stdout}\nstderr: {stderr}",
            self.code
        );
    }
}
