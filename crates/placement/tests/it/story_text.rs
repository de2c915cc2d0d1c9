//! The words of the stories: `word name=value name=value`, lists as `1,2,3` or `1-3`.

use std::collections::BTreeMap;

/// One command line, taken apart.
pub(crate) struct Line {
    pub(crate) words: Vec<String>,
    options: BTreeMap<String, String>,
}

impl Line {
    pub(crate) fn parse(line: &str) -> Self {
        let (mut words, mut options) = (Vec::new(), BTreeMap::new());
        for word in line.split_whitespace() {
            match word.split_once('=') {
                Some((name, value)) => drop(options.insert(name.to_owned(), value.to_owned())),
                None => words.push(word.to_owned()),
            }
        }
        Self { words, options }
    }

    pub(crate) fn command(&self) -> &str {
        &self.words[0]
    }

    /// The ids of the first word behind the command.
    pub(crate) fn ids(&self) -> Vec<u64> {
        ids(&self.words[1])
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    pub(crate) fn list(&self, name: &str) -> Option<Vec<u64>> {
        self.text(name).map(ids)
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.text(name).map(number)
    }

    /// Fails for an option that no command reads: a typing error would make a story tell another one.
    pub(crate) fn check(&self, known: &[&str]) {
        for name in self.options.keys() {
            assert!(known.contains(&name.as_str()), "{}: unknown option {name}", self.words[0]);
        }
    }
}

fn ids(list: &str) -> Vec<u64> {
    let part = |part: &str| match part.split_once('-') {
        Some((from, to)) => number(from)..=number(to),
        None => number(part)..=number(part),
    };
    list.split(',').flat_map(part).collect()
}

/// A plain number, milliseconds of `10s` or `5m`, bytes of `64MiB`.
pub(crate) fn number(text: &str) -> u64 {
    let units = [("MiB", 1 << 20), ("GiB", 1 << 30), ("ms", 1), ("s", 1_000), ("m", 60_000)];
    let found = units.into_iter().find_map(|(unit, factor)| {
        let digits = text.strip_suffix(unit)?;
        Some(digits.parse::<u64>().ok()? * factor)
    });
    found.unwrap_or_else(|| text.parse().unwrap_or_else(|_| panic!("no number: {text}")))
}
