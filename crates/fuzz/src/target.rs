//! One decoder under fire.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::caught::catch;
use crate::{Random, Settings, Shape, measure, mutate};

/// Most inputs that are kept to be mutated further.
const CORPUS_MAX: usize = 4_096;
/// Longest input, unless a target says otherwise.
const LENGTH_MAX: usize = 4_096;
/// What a check may hold beside what depends on the input: errors, the first blocks of collections.
const MEMORY_BASE: usize = 16 * 1024;
/// Bytes that a check may hold for each byte of input, unless a target says otherwise: the decoded
/// value twice and its encoding.
const MEMORY_PER_BYTE: usize = 32;
/// Attempts to make an input shorter.
const SHORTENINGS: usize = 2_000;

/// Names a target. Its test should bear the same name, in a module `fuzz`.
pub fn target(name: &'static str) -> Target {
    Target {
        name,
        corpus: Vec::new(),
        words: Vec::new(),
        repair: None,
        length_max: LENGTH_MAX,
        memory_per_byte: Some(MEMORY_PER_BYTE),
    }
}

/// How bytes for one decoder are made.
pub struct Target {
    name: &'static str,
    corpus: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    repair: Option<fn(&mut [u8])>,
    length_max: usize,
    memory_per_byte: Option<usize>,
}

impl Target {
    /// Adds a valid encoding to begin with.
    pub fn seed(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.corpus.push(bytes.as_ref().to_vec());
        self
    }

    /// Adds valid encodings to begin with.
    pub fn seeds<B: AsRef<[u8]>>(self, seeds: impl IntoIterator<Item = B>) -> Self {
        seeds.into_iter().fold(self, Self::seed)
    }

    /// Adds byte strings that mean something to the decoder.
    pub fn words<B: AsRef<[u8]>>(mut self, words: impl IntoIterator<Item = B>) -> Self {
        self.words.extend(words.into_iter().map(|word| word.as_ref().to_vec()));
        self
    }

    /// Makes most mutated inputs pass a first hurdle that random changes never pass: a checksum.
    pub fn repair(mut self, repair: fn(&mut [u8])) -> Self {
        self.repair = Some(repair);
        self
    }

    /// Sets the longest input.
    pub fn length_max(mut self, length_max: usize) -> Self {
        self.length_max = length_max;
        self
    }

    /// Sets how many bytes the check may hold at a time for each byte of input.
    pub fn memory_per_byte(mut self, bytes: usize) -> Self {
        self.memory_per_byte = Some(bytes);
        self
    }

    /// The check holds more than its input: a whole node, for example.
    pub fn memory_unbounded(mut self) -> Self {
        self.memory_per_byte = None;
        self
    }

    /// Tries inputs. The check panics to report a finding.
    ///
    /// # Panics
    /// On the first finding, with the shortest input found that shows it.
    pub fn run(self, check: impl FnMut(&[u8]) -> Shape) {
        self.run_with(&Settings::from_environment(), check);
    }

    fn run_with(mut self, settings: &Settings, mut check: impl FnMut(&[u8]) -> Shape) {
        if let Some(input) = &settings.input {
            match self.try_one(input, &mut check) {
                Ok(_) => println!("fuzz: {}: no finding for this input", self.name),
                Err(why) => panic!("{}: {why}", self.name),
            }
            return;
        }
        let (mut shapes, mut tried) = (HashSet::new(), 0);
        for seed in self.corpus.clone() {
            tried += 1;
            match self.try_one(&seed, &mut check) {
                Ok(shape) => drop(shapes.insert(shape)),
                Err(why) => self.report(&seed, &why),
            }
        }
        let (mut random, started) = (Random::new(settings.seed), Instant::now());
        let mut elapsed = Duration::ZERO;
        while settings.goes_on(tried, elapsed) {
            let mut input = mutate::input(&mut random, &self.corpus, &self.words, self.length_max);
            if let Some(repair) = self.repair.filter(|_| !random.once_in(4)) {
                repair(&mut input);
            }
            tried += 1;
            match self.try_one(&input, &mut check) {
                Ok(shape) if shapes.insert(shape) && self.corpus.len() < CORPUS_MAX => {
                    self.corpus.push(input);
                }
                Ok(_) => {}
                Err(why) => {
                    let (input, why) = self.shorten(input, why, &mut check);
                    self.report(&input, &why);
                }
            }
            elapsed = started.elapsed();
        }
        let (name, shapes) = (self.name, shapes.len());
        println!("fuzz: {name}: {tried} inputs, {shapes} shapes, no finding");
    }

    fn try_one(
        &self,
        input: &[u8],
        check: &mut impl FnMut(&[u8]) -> Shape,
    ) -> Result<Shape, String> {
        let (shape, held) = measure(|| catch(|| check(input)));
        let shape = shape?;
        let allowed = self.memory_per_byte.map(|each| MEMORY_BASE + each * input.len());
        match allowed {
            Some(allowed) if held > allowed => {
                let length = input.len();
                Err(format!("{held} bytes held for an input of {length}, {allowed} are allowed"))
            }
            _ => Ok(shape),
        }
    }

    /// Cuts pieces out of an input as long as something is found.
    fn shorten(
        &self,
        mut input: Vec<u8>,
        mut why: String,
        check: &mut impl FnMut(&[u8]) -> Shape,
    ) -> (Vec<u8>, String) {
        let (mut piece, mut attempts) = (input.len() / 2, 0);
        while piece > 0 && attempts < SHORTENINGS {
            let mut at = 0;
            while at < input.len() && attempts < SHORTENINGS {
                let mut shorter = input.clone();
                shorter.drain(at..(at + piece).min(input.len()));
                if let Some(repair) = self.repair {
                    repair(&mut shorter);
                }
                attempts += 1;
                match self.try_one(&shorter, check) {
                    Ok(_) => at += piece,
                    Err(new) if shorter.len() < input.len() => (input, why) = (shorter, new),
                    Err(_) => at += piece,
                }
            }
            piece /= 2;
        }
        (input, why)
    }

    fn report(&self, input: &[u8], why: &str) -> ! {
        let (name, input) = (self.name, hex(input));
        println!("fuzz: {name}: FINDING: {}", why.lines().collect::<Vec<_>>().join(" "));
        println!("fuzz: {name}: again: make fuzz ARGS=\"--target {name} --input {input}\"");
        panic!("{name}: {why}\ninput: {input}");
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: Settings = Settings { duration: None, seed: 1, input: None };

    fn found(target: Target, check: impl FnMut(&[u8]) -> Shape) -> String {
        catch(|| target.run_with(&FEW, check)).expect_err("a finding")
    }

    #[test]
    fn a_rare_panic_is_found_by_way_of_new_shapes_and_made_short() {
        let ladder = target("ladder").seed(b"word").words(["f", "u", "z"]);
        let finding = found(ladder, |input| {
            let prefix = b"fuzz".iter().zip(input).take_while(|(want, has)| want == has).count();
            assert!(prefix < 4, "fell off the ladder");
            Shape::of(&prefix)
        });
        assert!(finding.contains("fell off the ladder"), "{finding}");
        assert!(finding.contains("input: 66757a7a"), "{finding}");
        let end = finding.split("input: 66757a7a").nth(1).unwrap_or_default();
        assert!(end.lines().next().unwrap_or_default().is_empty(), "the shortest: {finding}");
    }

    #[test]
    fn memory_that_a_length_field_asks_for_is_found() {
        let decode = |input: &[u8]| {
            let count = input.first().map_or(0, |count| usize::from(*count));
            let numbers: Vec<u64> = Vec::with_capacity(count * 1_000);
            Shape::of(&numbers.is_empty())
        };
        let finding = found(target("greedy").seed([0, 1]), decode);
        assert!(finding.contains("bytes held for an input of"), "{finding}");
        target("greedy").seed([0, 1]).memory_unbounded().run_with(&FEW, decode);
    }

    #[test]
    fn checksums_are_repaired() {
        fn repair(input: &mut [u8]) {
            if let Some((sum, body)) = input.split_first_mut() {
                *sum = body.iter().fold(0, |sum: u8, byte| sum.wrapping_mul(31) ^ *byte);
            }
        }
        let mut passed = 0;
        target("summed").seed([0, 0]).repair(repair).run_with(&FEW, |input| {
            let mut right = input.to_vec();
            repair(&mut right);
            passed += usize::from(right == input);
            Shape::of(&(right == input))
        });
        assert!(passed > 1_000, "{passed}");
    }

    #[test]
    fn one_input_can_be_tried_again() {
        let one = Settings { input: Some(vec![7]), ..FEW };
        let mut seen = Vec::new();
        target("one").seed([1]).run_with(&one, |input| {
            seen.push(input.to_vec());
            Shape::of(&0)
        });
        assert_eq!(seen, [[7]]);
    }
}
