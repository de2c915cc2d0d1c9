//! Being asked to stop: every wait of the harness ends early then, with an error, and owners clean up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

/// Pause between two looks at whether to stop, and at whatever else is waited for.
const PERIOD: Duration = Duration::from_millis(20);

/// Whether Ctrl-C or SIGTERM has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Takes both signals over for the rest of the process.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let stop = Self::default();
        let seen = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                let take = |kind| signal(kind).expect("nobody else has taken the signal");
                let (mut interrupt, mut terminate) =
                    (take(SignalKind::interrupt()), take(SignalKind::terminate()));
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    eprintln!("stopping: nodes, mounts and namespaces are removed");
                    seen.0.store(true, Ordering::Relaxed);
                }
            });
        })?;
        Ok(stop)
    }

    /// Fails if it is time to stop.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => bail!("interrupted"),
            false => Ok(()),
        }
    }

    /// Waits.
    pub(crate) fn sleep(&self, duration: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + duration;
        loop {
            self.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(PERIOD));
        }
    }

    /// Looks until there is a value; the error of a look says what is missing.
    pub(crate) fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let until = Instant::now() + limit;
        loop {
            match look() {
                Ok(value) => return Ok(value),
                Err(missing) if Instant::now() >= until => {
                    return Err(missing).with_context(|| format!("{what}: not within {limit:?}"));
                }
                Err(_) => self.sleep(PERIOD)?,
            }
        }
    }
}
