//! The fuzz targets for as long as one likes: each in a process of its own, several at a time.
//!
//! A target is a test in a module `fuzz` (see `cribwork-fuzz`). The tests are built as `make test` builds
//! them, so nothing is compiled twice; then each one runs with its duration and a seed in the
//! environment. A target that takes its process down with it is a finding like any other.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use cargo_metadata::Message;

/// What the arguments may be.
pub const USAGE: &str =
    "--duration 10m (each target)  --target NAME  --input HEX  --seed N  --jobs N (at a time)";

/// How long each target runs unless it is said.
const DURATION: Duration = Duration::from_secs(60);

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    duration: Duration,
    target: Option<String>,
    input: Option<String>,
    seed: u64,
    jobs: usize,
}

impl Options {
    /// Reads arguments: pairs of a name and a value.
    ///
    /// # Errors
    /// When one is unknown or has no value that fits.
    pub fn parse(arguments: &[String]) -> anyhow::Result<Self> {
        let mut options = Self {
            duration: DURATION,
            target: None,
            input: None,
            seed: RandomState::new().build_hasher().finish(),
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
        };
        for pair in arguments.chunks(2) {
            let [name, value] = pair else { bail!("{} has no value: {USAGE}", pair[0]) };
            match name.as_str() {
                "--duration" => options.duration = duration(value)?,
                "--target" => options.target = Some(value.clone()),
                "--input" => options.input = Some(value.clone()),
                "--seed" => options.seed = value.parse().context("--seed")?,
                "--jobs" => options.jobs = value.parse::<usize>().context("--jobs")?.max(1),
                _ => bail!("{name} is unknown: {USAGE}"),
            }
        }
        let alone = options.input.is_none() || options.target.is_some();
        ensure!(alone, "--input is for one target: name it by --target");
        Ok(options)
    }
}

/// `90s`, `10m` or `8h`.
fn duration(text: &str) -> anyhow::Result<Duration> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let found = units.iter().find_map(|(unit, seconds)| {
        let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
        count.checked_mul(*seconds).map(Duration::from_secs)
    });
    found.with_context(|| format!("{text:?} is no duration such as 90s, 10m or 8h"))
}

/// One test.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    executable: PathBuf,
    /// Where cargo would run it.
    directory: PathBuf,
    /// With its modules.
    path: String,
}

impl Target {
    fn name(&self) -> &str {
        self.path.rsplit("::").next().unwrap_or(&self.path)
    }

    /// Runs it; gives what is wrong, if anything.
    fn run(&self, options: &Options) -> anyhow::Result<Option<String>> {
        let mut command = Command::new(&self.executable);
        command.args(["--exact", &self.path, "--nocapture"]).current_dir(&self.directory);
        command.env("CARGO_MANIFEST_DIR", &self.directory);
        command.env("CRIBWORK_FUZZ_SEED", options.seed.to_string());
        match &options.input {
            Some(input) => command.env("CRIBWORK_FUZZ_INPUT", input),
            None => command.env("CRIBWORK_FUZZ_MS", options.duration.as_millis().to_string()),
        };
        let output = command.stdin(Stdio::null()).output().context("cannot run a target")?;
        let said = String::from_utf8_lossy(&output.stdout);
        // Tests run beside each other print into each other's lines.
        let lines = said.lines().filter_map(|line| line.find("fuzz: ").map(|at| &line[at + 6..]));
        lines.for_each(|line| println!("{line}"));
        if output.status.success() {
            return Ok(None);
        }
        let (name, status, seed) = (self.name(), output.status, options.seed);
        let why = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = why.lines().rev().take(12).collect();
        let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
        Ok(Some(format!("{name}: {status}, seed {seed}\n{last}")))
    }
}

/// Runs the targets of the workspace at `root`; one message a finding.
///
/// # Errors
/// When the tests cannot be built or run, or no target has the name.
pub fn run_repository(root: &Path, options: &Options) -> anyhow::Result<Vec<String>> {
    let mut targets = list(root)?;
    targets.retain(|target| options.target.as_deref().is_none_or(|name| name == target.name()));
    ensure!(!targets.is_empty(), "there is no such fuzz target");
    let queue = Mutex::new(targets.iter());
    let findings = Mutex::new(Vec::new());
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.min(targets.len()) {
            scope.spawn(|| {
                while let Some(target) = next() {
                    let finding = target.run(options).unwrap_or_else(|e| Some(format!("{e:#}")));
                    if let Ok(mut findings) = findings.lock() {
                        findings.extend(finding);
                    }
                }
            });
        }
    });
    findings.into_inner().map_err(|_| anyhow::anyhow!("a thread that ran targets panicked"))
}

/// Builds the tests and asks each binary for its targets.
fn list(root: &Path) -> anyhow::Result<Vec<Target>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["test", "--locked", "--workspace", "--exclude", "cribwork-sim", "--lib", "--no-run"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(built.status.success(), "the tests cannot be built");
    let mut targets = Vec::new();
    for message in Message::parse_stream(&*built.stdout) {
        let Message::CompilerArtifact(artifact) = message? else { continue };
        let Some(executable) = artifact.executable.filter(|_| artifact.profile.test) else {
            continue;
        };
        let manifest = PathBuf::from(artifact.manifest_path);
        let directory = manifest.parent().context("a manifest lies in a directory")?.to_owned();
        let listed = Command::new(&executable)
            .args(["fuzz::", "--list"])
            .output()
            .with_context(|| format!("cannot run {executable}"))?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        targets.extend(paths(&listed).map(|path| Target {
            executable: executable.clone().into(),
            directory: directory.clone(),
            path,
        }));
    }
    targets.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(targets)
}

/// Tests in a module `fuzz`, out of what a test binary lists.
fn paths(listed: &str) -> impl Iterator<Item = String> {
    listed.lines().filter_map(|line| {
        let path = line.strip_suffix(": test")?;
        let is_target = path.rsplit("::").nth(1) == Some("fuzz");
        is_target.then(|| path.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> anyhow::Result<Options> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_pairs() {
        let options = parse("--duration 10m --target frames --seed 7 --jobs 3").unwrap();
        assert_eq!((options.duration, options.seed), (Duration::from_secs(600), 7));
        assert_eq!((options.target.as_deref(), options.jobs), (Some("frames"), 3));
        assert_eq!(parse("").unwrap().duration, DURATION);
        let wrong = ["--duration", "--duration soon", "--frob 1", "--input 00", "--duration 5"];
        for wrong in wrong {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn targets_are_tests_in_a_module_of_their_own() {
        let listed = "fuzz::frames: test\nraft::codec::fuzz::raft_appends: test\n\
                      target::tests::fuzz_is_a_word: test\nfuzz::inner::other: test\n\n4 tests\n";
        assert!(paths(listed).eq(["fuzz::frames", "raft::codec::fuzz::raft_appends"]));
    }
}
