//! Panics of a check, those included that a task of its own caught before it returned.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// While a check runs on this thread: what panicked first.
    static WATCHED: RefCell<Option<Option<String>>> = const { RefCell::new(None) };
}

/// Makes panics of watched threads silent: hundreds of them are the way to a short input.
fn watch_panics() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let watched = WATCHED.with_borrow_mut(|watched| match watched {
                Some(first) => {
                    first.get_or_insert_with(|| info.to_string());
                    true
                }
                None => false,
            });
            if !watched {
                before(info);
            }
        }));
    });
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

/// Runs `work` on this thread.
///
/// # Errors
/// The words of the first panic, whether or not somebody caught it.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    watch_panics();
    WATCHED.set(Some(None));
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    match (WATCHED.take().flatten(), result) {
        (None, Ok(value)) => Ok(value),
        (Some(first), _) => Err(first),
        (None, Err(panic)) => Err(words(&*panic)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_that_somebody_caught_is_told_all_the_same() {
        assert_eq!(catch(|| 7), Ok(7));
        assert!(catch(|| panic!("loud")).is_err_and(|words: String| words.contains("loud")));
        let quiet = catch(|| drop(panic::catch_unwind(|| panic!("quiet"))));
        assert!(quiet.is_err_and(|words| words.contains("quiet")));
        assert_eq!(catch(|| 8), Ok(8), "the one before is forgotten");
    }
}
