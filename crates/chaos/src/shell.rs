//! Commands of the system.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Runs a command line, split at spaces, to its end; gives stdout.
pub(crate) fn run(line: &str) -> anyhow::Result<String> {
    words(&line.split_whitespace().collect::<Vec<_>>(), "")
}

/// Runs a command with `input` on stdin.
pub(crate) fn words(words: &[&str], input: &str) -> anyhow::Result<String> {
    let [program, arguments @ ..] = words else { bail!("no command") };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Some commands do not read; then the pipe is closed.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}: {}", words.join(" "), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program is installed.
pub(crate) fn present(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Fails naming the first program that is not installed, and its package.
pub(crate) fn require(programs: &[(&str, &str)]) -> anyhow::Result<()> {
    for (program, package) in programs {
        if !present(program) {
            bail!("{program} is not installed (package {package})");
        }
    }
    Ok(())
}
