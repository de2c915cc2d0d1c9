//! How long a target runs and from where: what `make fuzz` says by the environment.

use std::time::Duration;

/// Inputs that a target tries under plain `cargo test`: a fraction of a second.
const INPUTS: usize = 3_000;

/// Read from the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `CRIBWORK_FUZZ_MS`: how long to go on; by default a fixed number of inputs.
    pub duration: Option<Duration>,
    /// `CRIBWORK_FUZZ_SEED`.
    pub seed: u64,
    /// `CRIBWORK_FUZZ_INPUT`, hexadecimal: the one input to try.
    pub input: Option<Vec<u8>>,
}

impl Settings {
    /// Name of the setting in milliseconds.
    pub const DURATION: &str = "CRIBWORK_FUZZ_MS";
    /// Name of the setting of the seed.
    pub const SEED: &str = "CRIBWORK_FUZZ_SEED";
    /// Name of the setting of one input.
    pub const INPUT: &str = "CRIBWORK_FUZZ_INPUT";

    /// # Panics
    /// If a setting cannot be read: a run with other settings than were asked for would prove nothing.
    pub(crate) fn from_environment() -> Self {
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")))
        };
        let input = std::env::var(Self::INPUT).ok().map(|text| {
            bytes(&text).unwrap_or_else(|| panic!("{}={text:?} is not hexadecimal", Self::INPUT))
        });
        Self {
            duration: number(Self::DURATION).map(Duration::from_millis),
            seed: number(Self::SEED).unwrap_or(1),
            input,
        }
    }

    /// Whether more inputs are to be tried after `tried` of them and this time.
    pub(crate) fn goes_on(&self, tried: usize, elapsed: Duration) -> bool {
        match self.duration {
            Some(duration) => elapsed < duration,
            None => tried < INPUTS,
        }
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        hex.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_hexadecimal() {
        assert_eq!(bytes("00fF"), Some(vec![0, 0xFF]));
        assert_eq!(bytes(""), Some(Vec::new()));
        assert_eq!((bytes("0"), bytes("0g")), (None, None));
    }
}
