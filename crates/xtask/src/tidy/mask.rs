//! Blanks out what is not code in Rust source, so that later rules need no knowledge of literals.
//!
//! Invariants: one ASCII byte for each `char` of the source, newlines kept in place (so byte offsets and
//! line numbers of the result are positions in the source); comments, string, byte-string, C-string, raw
//! string and character literals become spaces; everything else stays, lifetimes included.

/// `source` with comments and literals blanked out.
pub(super) fn mask(source: &str) -> String {
    let mut scanner = Scanner { chars: source.chars().collect(), at: 0, out: String::new() };
    while scanner.at < scanner.chars.len() {
        scanner.step();
    }
    scanner.out
}

struct Scanner {
    chars: Vec<char>,
    at: usize,
    out: String,
}

impl Scanner {
    fn step(&mut self) {
        match (self.peek(0), self.peek(1)) {
            (Some('/'), Some('/')) => {
                while self.peek(0).is_some_and(|c| c != '\n') {
                    self.blank(1);
                }
            }
            (Some('/'), Some('*')) => self.block_comment(),
            (Some('"'), _) => self.quoted('"'),
            (Some('r'), Some('"' | '#')) if self.starts_literal() => self.raw_string_or_code(),
            (Some('\''), _) => self.character_or_lifetime(),
            _ => self.keep(),
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn keep(&mut self) {
        if let Some(c) = self.peek(0) {
            // `_` so that an identifier with other letters stays one word.
            self.out.push(if c.is_ascii() { c } else { '_' });
            self.at += 1;
        }
    }

    fn blank(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(c) = self.peek(0) {
                self.out.push(if c == '\n' { '\n' } else { ' ' });
                self.at += 1;
            }
        }
    }

    /// Block comments nest.
    fn block_comment(&mut self) {
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => {
                    depth += 1;
                    self.blank(2);
                }
                (Some('*'), Some('/')) => {
                    depth -= 1;
                    self.blank(2);
                    if depth == 0 {
                        return;
                    }
                }
                (Some(_), _) => self.blank(1),
                (None, _) => return,
            }
        }
    }

    /// A literal with escapes, from its opening to its closing quote.
    fn quoted(&mut self, quote: char) {
        self.blank(1);
        while let Some(c) = self.peek(0) {
            self.blank(if c == '\\' { 2 } else { 1 });
            if c == quote {
                return;
            }
        }
    }

    /// Whether the `r` here is a literal's prefix and not the end of a word: `r`, `br` and `cr` are.
    fn starts_literal(&self) -> bool {
        let before = |back: usize| self.at.checked_sub(back).map(|at| self.chars[at]);
        let in_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        match before(1) {
            Some('b' | 'c') => !in_word(before(2)),
            other => !in_word(other),
        }
    }

    /// `r"…"`, `r#"…"#` and so on; `r#name` is code.
    fn raw_string_or_code(&mut self) {
        let hashes = (1..).take_while(|&ahead| self.peek(ahead) == Some('#')).count();
        if self.peek(1 + hashes) != Some('"') {
            return self.keep();
        }
        self.blank(2 + hashes);
        while let Some(c) = self.peek(0) {
            let closes = c == '"' && (1..=hashes).all(|ahead| self.peek(ahead) == Some('#'));
            self.blank(1);
            if closes {
                return self.blank(hashes);
            }
        }
    }

    /// `'x'` and `'\n'` are literals; `'a` without a closing quote is a lifetime or label.
    fn character_or_lifetime(&mut self) {
        if self.peek(1) == Some('\\') || self.peek(2) == Some('\'') {
            self.quoted('\'');
        } else {
            self.keep();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::mask;

    /// The masked text with runs of blanks made one.
    fn words(source: &str) -> String {
        let masked = mask(source);
        assert_eq!(masked.len(), source.chars().count(), "{source:?}");
        masked.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_vanish_and_nest() {
        assert_eq!(words("a // } fn\nb /* { /* \" */ ' */ c"), "a b c");
        assert_eq!(words("a /* never closed {"), "a");
    }

    #[test]
    fn strings_vanish_with_their_escapes() {
        assert_eq!(words(r#"a("\"}", b"\\", c"{") d"#), "a( , b , c ) d");
        assert_eq!(words("a \"two\nlines }\" b"), "a b");
    }

    #[test]
    fn raw_strings_vanish_and_raw_names_stay() {
        assert_eq!(words("a(r\"\\\", br#\"}\"\"#, r##\"\"# }\"##) b"), "a( , b , ) b");
        assert_eq!(words("r#fn bar #[x]"), "r#fn bar #[x]");
    }

    #[test]
    fn characters_vanish_and_lifetimes_stay() {
        assert_eq!(words(r"f('{', '\'', b'}', '\u{7d}', '/') x"), "f( , , b , , ) x");
        assert_eq!(
            words("impl<'a> X<'a, 'static> { 'x: loop {} }"),
            "impl<'a> X<'a, 'static> { 'x: loop {} }"
        );
    }

    #[test]
    fn positions_survive_other_scripts() {
        assert_eq!(mask("é\"ü\"\n'→' x"), "_   \n    x");
    }
}
