//! Waiting for a condition, with a deadline. The only place in the tests that sleeps: a test that
//! slept for "long enough" would be slow on fast machines and fail on slow ones.

use std::time::{Duration, Instant};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `look` gives a value; its error says what is still missing.
///
/// # Panics
/// If there is none by the deadline, with the last error.
#[track_caller]
pub fn wait_until<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        match look() {
            Ok(value) => return value,
            Err(missing) if Instant::now() >= end => {
                panic!("{what}: not within {deadline:?}: {missing}")
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// As [`wait_until`], for a look that awaits.
///
/// # Panics
/// If there is no value by the deadline, with the last error.
pub async fn wait_until_async<T, F>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> F,
) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let end = Instant::now() + deadline;
    loop {
        match look().await {
            Ok(value) => return value,
            Err(missing) if Instant::now() >= end => {
                panic!("{what}: not within {deadline:?}: {missing}")
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
