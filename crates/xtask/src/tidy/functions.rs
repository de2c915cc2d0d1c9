//! Finds functions and their lengths in masked Rust source (see `mask`).

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    /// Line of the `fn` keyword, counted from 1.
    pub(super) line: usize,
    /// From the `fn` keyword to the closing brace, both included.
    pub(super) lines: usize,
}

/// All functions, nested ones and those in macros included. A nested function also counts towards the
/// one around it.
pub(super) fn functions(masked: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, word) in words(masked) {
        if word != "fn" || masked[..at].ends_with('#') {
            continue;
        }
        let after = &masked[at + 2..];
        let name_at = at + 2 + (after.len() - after.trim_start().len());
        let name = leading_name(&masked[name_at..]);
        if name.is_empty() {
            continue; // `fn(u8)`: a type.
        }
        let Some(open) = body_start(masked, name_at + name.len()) else {
            continue;
        };
        let close = closing_brace(masked, open);
        let lines = newlines(&masked[at..close]) + 1;
        found.push(Function { name: name.to_owned(), line: newlines(&masked[..at]) + 1, lines });
    }
    found
}

/// Every word of the masked text with its offset.
pub(super) fn words(masked: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut at = 0;
    std::iter::from_fn(move || {
        at += masked[at..].find(is_word)?;
        let start = at;
        at += masked[start..].find(|c| !is_word(c)).unwrap_or(masked.len() - start);
        Some((start, &masked[start..at]))
    })
}

/// A name, a raw name, or a macro's `$name`.
fn leading_name(text: &str) -> &str {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '#');
    &text[..text.find(|c| !is_part(c)).unwrap_or(text.len())]
}

/// Offset of the brace that opens the body; none for a declaration without one. Braces inside the
/// signature's own brackets (`[u8; { N }]`, `Set<{ N }>`) are not it.
fn body_start(masked: &str, from: usize) -> Option<usize> {
    let mut open = Vec::new();
    let mut previous = ' ';
    for (offset, c) in masked[from..].char_indices() {
        let in_types = matches!(open.last(), None | Some('<'));
        match c {
            '{' if open.is_empty() => return Some(from + offset),
            ';' if open.is_empty() => return None,
            '(' | '[' | '{' => open.push(c),
            // Only between types does `<` open anything; in an array's length it is a comparison.
            '<' if in_types => open.push(c),
            '>' if open.last() == Some(&'<') && previous != '-' => drop(open.pop()),
            ')' | ']' | '}' => drop(open.pop()?),
            _ => {}
        }
        previous = c;
    }
    None
}

/// Offset just after the brace that closes the one at `open`, or the end of the text.
fn closing_brace(masked: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, c) in masked[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + offset + 1;
        }
    }
    masked.len()
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::super::mask::mask;
    use super::*;

    fn found(source: &str) -> Vec<(String, usize, usize)> {
        functions(&mask(source)).into_iter().map(|f| (f.name, f.line, f.lines)).collect()
    }

    #[test]
    fn measures_from_keyword_to_closing_brace() {
        let source = "/// Doc.\n#[inline]\npub const fn a() -> u8 {\n    match '{' { _ => 1 }\n}\n";
        assert_eq!(found(source), [("a".to_owned(), 3, 3)]);
    }

    #[test]
    fn signatures_over_several_lines_count() {
        let source = "fn a<T>(\n    x: [u8; { 1 << 3 }],\n) -> Set<{ 4 }>\nwhere\n    T: Fn(u8) -> Vec<u8>,\n{\n}\n";
        assert_eq!(found(source), [("a".to_owned(), 1, 7)]);
    }

    #[test]
    fn declarations_and_function_types_have_no_length() {
        assert_eq!(found("trait T { fn a(&self) -> [u8; 2]; }\ntype F = fn(u8) -> u8;\n"), []);
    }

    #[test]
    fn nested_and_macro_functions_are_found() {
        let source =
            "fn a() {\n    fn b() {\n    }\n}\nmacro_rules! m { ($n:ident) => { fn $n() {} } }\n";
        let expected = [("a", 1, 4), ("b", 2, 2), ("$n", 5, 1)];
        assert_eq!(
            found(source),
            expected.map(|(name, line, lines)| (name.to_owned(), line, lines))
        );
    }

    #[test]
    fn words_in_text_open_nothing() {
        assert_eq!(found("// fn a() {\nconst S: &str = \"fn b() {\";\nlet r#fn = 1;\n"), []);
    }
}
