//! Which files the repository consists of: what git tracks, and what it would if asked to add all.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

/// Paths from `root`, with `/`, sorted, without duplicates.
pub(super) fn list(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut paths = if root.join(".git").exists() { tracked(root)? } else { unpacked(root)? };
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// The text of a file; none when it is not UTF-8, not a plain file, or deleted and not yet committed.
pub(super) fn read_text(root: &Path, path: &str) -> anyhow::Result<Option<String>> {
    let full = root.join(path);
    match fs::symlink_metadata(&full) {
        Ok(metadata) if metadata.is_file() => {
            let bytes = fs::read(&full).with_context(|| format!("cannot read {path}"))?;
            Ok(String::from_utf8(bytes).ok())
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {path}")),
    }
}

fn tracked(root: &Path) -> anyhow::Result<Vec<String>> {
    // A checkout that another user owns (a mounted volume in CI) is as good to read as our own.
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("cannot run git")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "git ls-files failed: {errors}");
    let names = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    Ok(names.split_terminator('\0').map(str::to_owned).collect())
}

/// A source archive has no git data: everything but build output belongs to it.
fn unpacked(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut paths = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).context("cannot list the source archive")? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                if entry.file_name() != "target" {
                    pending.push(entry.path());
                }
            } else if let Ok(path) = entry.path().strip_prefix(root) {
                paths.push(path.to_string_lossy().into_owned());
            }
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(root: &Path, arguments: &[&str]) {
        let status = Command::new("git").args(arguments).current_dir(root).status();
        assert!(status.expect("git is installed").success());
    }

    #[test]
    fn lists_tracked_and_new_files_but_not_ignored_or_deleted_ones() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let root = root.path();
        git(root, &["init", "-q"]);
        for (name, text) in [("a.rs", "a"), ("gone.rs", "g"), (".gitignore", "skip\n")] {
            fs::write(root.join(name), text).expect("writable");
        }
        git(root, &["add", "."]);
        fs::remove_file(root.join("gone.rs")).expect("removable");
        fs::write(root.join("new.md"), "n").expect("writable");
        fs::write(root.join("skip"), "s").expect("writable");
        assert_eq!(list(root).expect("listed"), [".gitignore", "a.rs", "gone.rs", "new.md"]);
        assert_eq!(read_text(root, "gone.rs").expect("read"), None);
        assert_eq!(read_text(root, "a.rs").expect("read").as_deref(), Some("a"));
    }

    #[test]
    fn a_source_archive_is_walked_without_build_output() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let root = root.path();
        for directory in ["src", "target"] {
            fs::create_dir(root.join(directory)).expect("creatable");
            fs::write(root.join(directory).join("x.rs"), "x").expect("writable");
        }
        assert_eq!(list(root).expect("listed"), ["src/x.rs"]);
    }
}
