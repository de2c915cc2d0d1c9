//! What a run shows while it lasts, on stderr: a spinner on a terminal, else a line a second.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Counts that workers share, only to be shown.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) ops: AtomicU64,
    pub(crate) errors: AtomicU64,
}

/// How often something is shown.
pub(crate) const PERIOD: Duration = Duration::from_secs(1);

/// The spinner, or the plain lines.
pub(crate) struct Progress {
    name: &'static str,
    bar: Option<ProgressBar>,
    ops_before: u64,
}

impl Progress {
    pub(crate) fn new(name: &'static str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {prefix} {msg}")
                .expect("the template is right");
            ProgressBar::new_spinner().with_style(style).with_prefix(name)
        });
        Self { name, bar, ops_before: 0 }
    }

    /// Shows a state; to be called once a [`PERIOD`].
    pub(crate) fn show(&mut self, elapsed: Duration, total: Duration, live: &Live) {
        let ops = live.ops.load(Ordering::Relaxed);
        let errors = live.errors.load(Ordering::Relaxed);
        let rate = ops - self.ops_before;
        self.ops_before = ops;
        let (elapsed, total) = (elapsed.as_secs(), total.as_secs_f64());
        let message = format!("{elapsed} s of {total} s: {ops} ops, {rate}/s, {errors} errors");
        match &self.bar {
            Some(bar) => {
                bar.set_message(message);
                bar.tick();
            }
            None => eprintln!("{} {message}", self.name),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
