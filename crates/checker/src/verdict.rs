//! What a checker found.

use serde::Serialize;

/// Most violations that one verdict lists; [`Verdict::unlisted`] counts the others.
pub const VIOLATIONS_MAX: usize = 100;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// What, in words: first the name of the rule or anomaly, then the evidence.
    pub what: String,
    /// The operations that show it: their indexes in the history. In a file, the line is one more.
    pub ops: Vec<usize>,
}

/// What one checker found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Name of the checker.
    pub checker: &'static str,
    /// How many items it could judge; each checker says what an item is. Zero proves nothing.
    pub checked: u64,
    /// What is wrong, at most [`VIOLATIONS_MAX`].
    pub violations: Vec<Violation>,
    /// How many more are wrong.
    pub unlisted: u64,
    /// Whether it gave up for lack of budget. Nothing is proved then.
    pub exhausted: bool,
}

impl Verdict {
    pub(crate) fn new(checker: &'static str) -> Self {
        Self { checker, checked: 0, violations: Vec::new(), unlisted: 0, exhausted: false }
    }

    /// Whether nothing is wrong and everything was looked at.
    pub fn ok(&self) -> bool {
        self.violations.is_empty() && !self.exhausted
    }

    pub(crate) fn violation(&mut self, what: impl Into<String>, ops: impl Into<Vec<usize>>) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(Violation { what: what.into(), ops: ops.into() });
        } else {
            self.unlisted += 1;
        }
    }
}
