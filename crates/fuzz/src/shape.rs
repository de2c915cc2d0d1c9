//! What a check says about an input: which way through the decoder it took.

use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A fingerprint of what happened. An input whose shape is new is worth mutating further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape(u64);

impl Shape {
    /// The shape of anything that tells inputs apart: coarse, or every input would be new.
    pub fn of(what: &impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        Self(hasher.finish())
    }

    /// The shape of a decoder's answer: an error by its words, a success by the magnitude of `size`.
    pub fn decoded<T, E: Display>(result: &Result<T, E>, size: impl FnOnce(&T) -> usize) -> Self {
        match result {
            Ok(value) => Self::of(&(true, size(value).checked_ilog2())),
            Err(error) => Self::of(&(false, error.to_string())),
        }
    }
}
