//! One node: a process, and whatever of its own it runs in.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::clock::Clock;
use crate::disk::Disk;
use crate::eio::Failing;
use crate::process::{Process, words};
use crate::stop::Stop;

const HTTP_LIMIT: Duration = Duration::from_millis(500);

/// A node, running or not. Fields that end the process come before what it runs in.
#[derive(Debug)]
pub(crate) struct Node {
    process: Option<Process>,
    pub(crate) disk: Option<Disk>,
    pub(crate) clock: Option<Clock>,
    pub(crate) failing: Option<Failing>,
    pub(crate) setup: Setup,
}

/// What it is started with.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) binary: PathBuf,
    /// Where its output goes.
    pub(crate) directory: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) name: String,
    pub(crate) listen: String,
    pub(crate) http: String,
    pub(crate) join: String,
    /// What goes before the command.
    pub(crate) enter: Vec<String>,
    /// Libraries to preload.
    pub(crate) preload: Vec<String>,
}

impl Node {
    /// One that does not run yet.
    pub(crate) fn new(setup: Setup) -> Self {
        Self { process: None, disk: None, clock: None, failing: None, setup }
    }

    /// Starts it; it may end at once.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let setup = &self.setup;
        let data = setup.data.display().to_string();
        let mut line: Vec<String> = setup.enter.clone();
        let mut variables: Vec<String> = Vec::new();
        if !setup.preload.is_empty() {
            variables.push(format!("LD_PRELOAD={}", setup.preload.join(":")));
        }
        let clock = self.clock.iter().flat_map(Clock::environment);
        let failing = self.failing.iter().map(Failing::environment);
        variables.extend(clock.chain(failing).map(|(name, value)| format!("{name}={value}")));
        // By `env`, so that nothing is preloaded into what goes before.
        line.push("env".to_owned());
        line.extend(variables);
        line.push(setup.binary.display().to_string());
        let flags = ["start", "--data-dir", &data, "--listen", &setup.listen];
        line.extend(flags.map(str::to_owned));
        line.extend(["--http", &setup.http, "--join", &setup.join].map(str::to_owned));
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]);
        self.process = Some(Process::start(command, &setup.directory, &setup.name)?);
        Ok(())
    }

    fn running(&mut self) -> anyhow::Result<&mut Process> {
        let name = &self.setup.name;
        self.process.as_mut().with_context(|| format!("{name} does not run"))
    }

    pub(crate) fn pid(&mut self) -> anyhow::Result<u32> {
        Ok(self.running()?.pid())
    }

    pub(crate) fn signal(&mut self, name: &str) -> anyhow::Result<()> {
        self.running()?.signal(name)
    }

    /// Ends it as a crash does; one that has ended stays so.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill9();
        }
    }

    /// How it ended, if it was started and has ended by itself.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<String>> {
        let Some(process) = &mut self.process else { return Ok(None) };
        Ok(process.ended()?.map(words))
    }

    /// Starts it again if it has ended, or was killed; gives how it had ended by itself.
    pub(crate) fn revive(&mut self) -> anyhow::Result<Option<String>> {
        let ended = self.ended()?;
        if ended.is_some() || self.process.is_none() {
            self.kill9();
            self.start()?;
        }
        Ok(ended)
    }

    /// Tells it to stop and waits; fails if it is not gone in time, or not with status 0.
    pub(crate) fn terminate(&mut self, stop: &Stop, limit: Duration) -> anyhow::Result<()> {
        let process = self.running()?;
        process.signal("TERM")?;
        let ended = stop.wait("SIGTERM", limit, || process.ended()?.context("it still runs"));
        let name = &self.setup.name;
        let status = ended.with_context(|| format!("{name} was told to stop"))?;
        self.process = None;
        match status.success() {
            true => Ok(()),
            false => bail!("{name} was told to stop and ended with {}", words(status)),
        }
    }

    /// What it has said on stderr, all its lives together.
    pub(crate) fn log(&self) -> String {
        let path = self.setup.directory.join(format!("{}.err", self.setup.name));
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    }

    /// Fails unless `/ready` says yes.
    pub(crate) fn ready(&mut self) -> anyhow::Result<()> {
        let name = self.setup.name.clone();
        if let Some(how) = self.ended()? {
            bail!("{name} has ended: {how}");
        }
        let said = http_get(&self.setup.http, "/ready").with_context(|| name.clone())?;
        match said.split_whitespace().nth(1) {
            Some("200") => Ok(()),
            _ => bail!("{name}: {}", said.lines().last().unwrap_or_default()),
        }
    }
}

/// The whole answer.
fn http_get(address: &str, path: &str) -> anyhow::Result<String> {
    let address: SocketAddr = address.parse()?;
    let mut stream = TcpStream::connect_timeout(&address, HTTP_LIMIT)?;
    stream.set_read_timeout(Some(HTTP_LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}
