//! Rules for Rust source: sizes, banned forms, words, module documentation.

use super::functions::{functions, words};
use super::mask::mask;
use super::{Report, policy};

/// Runs every rule on one Rust file.
pub(super) fn check(text: &str, report: &mut Report<'_>) {
    let masked = mask(text);
    sizes(text, &masked, report);
    tabs(text, report);
    banned_macros(&masked, report);
    ignored_tests(&masked, report);
    module_docs(text, report);
    if report.path.ends_with("lib.rs") {
        crate_root(&masked, report);
    }
    if !policy::covers(policy::REGION_ALLOWED, report.path) {
        region(text, report);
    }
    if is_test_path(report.path) && !policy::covers(policy::SLEEP_ALLOWED, report.path) {
        sleeps(&masked, report);
    }
}

fn sizes(text: &str, masked: &str, report: &mut Report<'_>) {
    let lines = text.lines().count();
    if lines > policy::FILE_LINES_MAX {
        let max = policy::FILE_LINES_MAX;
        report.add(max + 1, format!("{lines} lines, at most {max}: split the file by concept"));
    }
    for function in functions(masked) {
        if function.lines > policy::FUNCTION_LINES_MAX {
            let (name, lines, max) = (function.name, function.lines, policy::FUNCTION_LINES_MAX);
            report.add(function.line, format!("fn {name} has {lines} lines, at most {max}"));
        }
    }
}

fn tabs(text: &str, report: &mut Report<'_>) {
    for (index, _) in text.lines().enumerate().filter(|(_, line)| line.contains('\t')) {
        report.add(index + 1, "tab character");
    }
}

fn banned_macros(masked: &str, report: &mut Report<'_>) {
    for (at, word) in words(masked) {
        let called = masked[at + word.len()..].starts_with('!');
        for (name, instead) in policy::BANNED_MACROS {
            if called && word == *name {
                report.add(line_of(masked, at), format!("{name}! is banned: {instead}"));
            }
        }
    }
}

/// Tests that the runner is told to leave out, by an attribute of their own or behind `cfg_attr`.
fn ignored_tests(masked: &str, report: &mut Report<'_>) {
    for (at, _) in words(masked).filter(|(_, word)| *word == "ignore") {
        let start = masked[..at].rfind("#[").unwrap_or(at);
        let opened = masked[start..at].bytes().fold(0_i32, |depth, byte| match byte {
            b'[' => depth + 1,
            b']' => depth - 1,
            _ => depth,
        });
        if opened > 0 {
            report.add(line_of(masked, at), "ignored test: make it pass or delete it");
        }
    }
}

/// The first thing in a file, after inner attributes, is what the module is for.
fn module_docs(text: &str, report: &mut Report<'_>) {
    let mut in_attribute = false;
    for line in text.lines().map(str::trim) {
        if in_attribute || line.starts_with("#!") {
            in_attribute = line.starts_with("#![") && !line.ends_with(']')
                || in_attribute && !line.ends_with(']');
        } else if !line.is_empty() {
            if !line.starts_with("//!") && !line.starts_with("/*!") {
                report.add(1, "no //! documentation at the top of the file");
            }
            return;
        }
    }
    report.add(1, "no //! documentation at the top of the file");
}

/// A crate's root only says what there is and where.
fn crate_root(masked: &str, report: &mut Report<'_>) {
    const ITEMS: &[&str] = &["fn", "impl", "struct", "enum", "trait", "macro_rules"];
    for (at, word) in words(masked).filter(|(_, word)| ITEMS.contains(word)) {
        let message =
            format!("{word} in lib.rs: only documentation, mods and `pub use` belong here");
        report.add(line_of(masked, at), message);
    }
}

fn region(text: &str, report: &mut Report<'_>) {
    for (index, line) in text.lines().enumerate() {
        let rest = line.replace("metapb.Region", "").to_ascii_lowercase();
        if rest.contains("region") {
            report.add(index + 1, "say range: region is the wire format's word (see policy.rs)");
        }
    }
}

/// Whether everything in the file is test code.
fn is_test_path(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// Calls and imports of a sleep, and imports in braces (`use tokio::time::{Duration, sleep}`).
fn sleeps(masked: &str, report: &mut Report<'_>) {
    for (at, word) in words(masked).filter(|(_, word)| matches!(*word, "sleep" | "sleep_until")) {
        let statement = &masked[masked[..at].rfind(';').map_or(0, |end| end + 1)..at];
        let path = &statement[statement.rfind(|c: char| !is_path(c)).map_or(0, |end| end + 1)..];
        let imported = words(statement).any(|(_, word)| word == "use");
        let of_clock = |text: &str| words(text).any(|(_, w)| matches!(w, "time" | "thread"));
        if of_clock(path) || imported && of_clock(statement) {
            report.add(line_of(masked, at), format!("{word} in a test: wait for a condition"));
        }
    }
}

fn is_path(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | ':')
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}
