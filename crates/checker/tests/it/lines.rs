//! Short ways to write histories by hand.

use cribwork_checker::{Dump, History, Verdict};

/// A history from JSON lines.
pub(crate) fn history(text: &str) -> History {
    History::read(text.trim_start().as_bytes()).unwrap()
}

/// A dump from JSON lines.
pub(crate) fn dump(text: &str) -> Dump {
    Dump::read(text.trim_start().as_bytes()).unwrap()
}

/// A history of lines `process invoke-complete outcome op`, the op in JSON, `complete` a number or `-`;
/// `final` may follow the outcome.
pub(crate) fn short(lines: &[&str]) -> History {
    let lines: Vec<String> = lines.iter().map(|line| expand(line)).collect();
    history(&lines.concat())
}

fn expand(line: &str) -> String {
    let (head, op) = line.split_once('{').unwrap();
    let words: Vec<&str> = head.split_whitespace().collect();
    let (invoke, complete) = words[1].split_once('-').unwrap();
    let complete = if complete.is_empty() { "null" } else { complete };
    let last = if words.get(3) == Some(&"final") { r#","final":true"# } else { "" };
    format!(
        r#"{{"process":{},"invoke":{invoke},"complete":{complete},"outcome":"{}"{last},"op":{{{op}}}"#,
        words[0], words[2],
    ) + "\n"
}

/// Asserts that the verdict has exactly these violations, given by how they begin and their operations.
#[track_caller]
pub(crate) fn assert_found(verdict: &Verdict, expected: &[(&str, &[usize])]) {
    let found = &verdict.violations;
    let fits = found.len() == expected.len()
        && found.iter().zip(expected).all(|(violation, (begin, ops))| {
            violation.what.starts_with(begin) && violation.ops == *ops
        });
    assert!(fits, "{verdict:#?}\nis not {expected:#?}");
    assert!(!verdict.exhausted);
}
