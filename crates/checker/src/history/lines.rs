//! JSON lines: one JSON value a line, nothing else.

use std::io::{BufRead, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::CheckerError;

/// Longest line that is read, in bytes: far beyond what a client may put into one transaction.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Hands every line, with its number counted from 1, to `take`.
pub(crate) fn read_lines<T: DeserializeOwned>(
    mut input: impl BufRead,
    mut take: impl FnMut(usize, T) -> Result<(), CheckerError>,
) -> Result<(), CheckerError> {
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let read = input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text)?;
        if read == 0 {
            break;
        }
        if read as u64 == LINE_BYTES_MAX && text.last() != Some(&b'\n') {
            return Err(CheckerError::Syntax { line, why: "longer than 64 MiB".to_owned() });
        }
        let value = serde_json::from_slice(&text)
            .map_err(|error| CheckerError::Syntax { line, why: error.to_string() })?;
        take(line, value)?;
    }
    Ok(())
}

/// Writes one line.
pub(crate) fn write_line<T: Serialize>(
    output: &mut impl Write,
    value: &T,
) -> Result<(), CheckerError> {
    // The types of this crate always serialise, so an error is the writer's.
    serde_json::to_writer(&mut *output, value).map_err(std::io::Error::from)?;
    output.write_all(b"\n")?;
    Ok(())
}
