//! White space: rules for every text format.

use super::Report;

/// No trailing white space (so no carriage returns either), and exactly one newline at the end.
pub(super) fn check(text: &str, report: &mut Report<'_>) {
    for (index, line) in text.split('\n').enumerate() {
        if line.ends_with(char::is_whitespace) {
            report.add(index + 1, "trailing white space");
        }
    }
    let lines = text.lines().count();
    if !text.is_empty() && !text.ends_with('\n') {
        report.add(lines, "no newline at the end of the file");
    }
    if text.ends_with("\n\n") {
        report.add(lines, "empty line at the end of the file");
    }
}
