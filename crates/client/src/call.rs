//! One call of a user: its deadline, its pauses, and what is known about its outcome.

use std::time::Duration;

use cribwork_types::Runtime;

use crate::ClientError;
use crate::backoff::Backoff;
use crate::request::Effect;

/// How long to wait before the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// Not at all, a few times: what was wrong is repaired.
    None,
    /// Longer each time.
    Grow,
    /// At least so long, because somebody said so.
    AtLeast(Duration),
}

/// Why an attempt has to be repeated.
#[derive(Clone, Debug)]
pub(crate) struct Setback {
    pub(crate) pause: Pause,
    pub(crate) why: String,
    /// True if the attempt may have taken effect.
    pub(crate) lost: bool,
}

impl Setback {
    /// An attempt that certainly had no effect.
    pub(crate) fn new(pause: Pause, why: impl Into<String>) -> Self {
        Self { pause, why: why.into(), lost: false }
    }
}

/// The state of a call between its attempts.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) what: &'static str,
    /// On the clock of [`Runtime::now`].
    pub(crate) deadline: Duration,
    /// Attempts so far; says whose turn it is when nobody is known to lead.
    pub(crate) turn: usize,
    /// True if some attempt may have taken effect.
    pub(crate) lost: bool,
    effect: Effect,
    backoff: Backoff,
}

impl Call {
    pub(crate) fn new(
        runtime: &dyn Runtime,
        what: &'static str,
        effect: Effect,
        limit: Duration,
    ) -> Self {
        Self {
            what,
            deadline: runtime.now() + limit,
            turn: 0,
            lost: false,
            effect,
            backoff: Backoff::default(),
        }
    }

    /// Time left.
    pub(crate) fn remaining(&self, runtime: &dyn Runtime) -> Duration {
        self.deadline.saturating_sub(runtime.now())
    }

    /// Waits as long as the worst of `setbacks` asks for.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] if the call's time would be up by then; [`ClientError::Unknown`]
    /// instead if an earlier attempt of a write may have taken effect.
    pub(crate) async fn pause(
        &mut self,
        runtime: &dyn Runtime,
        setbacks: Vec<Setback>,
    ) -> Result<(), ClientError> {
        self.turn += 1;
        let mut pause = Duration::ZERO;
        let (mut grown, mut why) = (false, String::new());
        for setback in setbacks {
            self.lost |= setback.lost;
            let wanted = match setback.pause {
                Pause::None => self.backoff.next_immediate(runtime),
                Pause::Grow if grown => Duration::ZERO,
                Pause::Grow => self.backoff.next(runtime),
                Pause::AtLeast(least) => self.backoff.next(runtime).max(least),
            };
            grown |= setback.pause == Pause::Grow;
            pause = pause.max(wanted);
            why = setback.why;
        }
        if runtime.now() + pause >= self.deadline {
            return Err(self.out_of_time(why));
        }
        if !pause.is_zero() {
            tracing::debug!(call = self.what, ?pause, why, "retrying");
            runtime.sleep(pause).await;
        }
        Ok(())
    }

    /// A part of the call is done: what delayed it says nothing about the next part.
    pub(crate) fn progressed(&mut self) {
        self.turn = 0;
        self.backoff = Backoff::default();
    }

    /// The error of a call whose time is up.
    pub(crate) fn out_of_time(&self, why: String) -> ClientError {
        if self.lost && self.effect != Effect::Read {
            return ClientError::Unknown { what: self.what, why };
        }
        ClientError::Timeout { what: self.what, why }
    }
}
