//! Rules on the text of the repository that neither rustfmt nor clippy can state.
//!
//! Data flow: `files` lists what git would keep; each text file runs through `forms` (white space) and,
//! if it is Rust, through `rust` (sizes, banned forms, words, module documentation). Rules that speak
//! about code look at the text with comments and literals blanked out by `mask`, so that a comment may
//! name what code may not do. Limits and exceptions, each with its reason, are in [`policy`].

mod files;
mod forms;
mod functions;
mod mask;
pub mod policy;
mod rust;

use std::fmt;
use std::path::Path;

/// One violation at one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Path from the repository's root, with `/`.
    pub path: String,
    /// Counted from 1.
    pub line: usize,
    /// What is wrong and, where it is not plain, what to do.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Checks every tracked file, and every new one that is not ignored, below `root`.
///
/// # Errors
/// When the files cannot be listed or read.
pub fn check_repository(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for path in files::list(root)? {
        if let Some(text) = files::read_text(root, &path)? {
            findings.extend(check_file(&path, &text));
        }
    }
    Ok(findings)
}

/// Checks one file; `path` is from the repository's root, with `/`. Files that are not of a known text
/// format give no findings.
pub fn check_file(path: &str, text: &str) -> Vec<Finding> {
    let mut report = Report { path, findings: Vec::new() };
    if policy::is_text(path) {
        forms::check(text, &mut report);
    }
    if path.ends_with(".rs") {
        rust::check(text, &mut report);
    }
    report.findings
}

/// Collects the findings of one file.
struct Report<'a> {
    path: &'a str,
    findings: Vec<Finding>,
}

impl Report<'_> {
    fn add(&mut self, line: usize, message: impl Into<String>) {
        self.findings.push(Finding { path: self.path.to_owned(), line, message: message.into() });
    }
}

#[cfg(test)]
mod tests;
