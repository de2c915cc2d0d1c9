//! Data on stdout: a table for people, one JSON document on one line for scripts.

use std::fmt;
use std::io::{ErrorKind, Write};

use comfy_table::{Table, presets};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::args::Format;
use crate::failure::Failure;

/// Prints `value`: as JSON, or as the table that `table` makes of it.
pub(crate) fn print<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce(&T) -> Table,
) -> Result<(), Failure> {
    let text = match format {
        Format::Json => json(value)?,
        Format::Table => table(value).trim_fmt(),
    };
    line(text.as_bytes())
}

/// Prints one object: as JSON, or as a table with a row a field.
pub(crate) fn print_fields<T: Serialize>(format: Format, value: &T) -> Result<(), Failure> {
    let json = json(value)?;
    let text = match format {
        Format::Json => json,
        Format::Table => fields(&json)?.trim_fmt(),
    };
    line(text.as_bytes())
}

/// Prints bytes and a newline. A reader that has gone away wants no more: that is no failure.
pub(crate) fn line(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let written =
        out.write_all(bytes).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::system("stdout", &error))
        }
        _ => Ok(()),
    }
}

/// A table without lines.
pub(crate) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.map(str::to_owned).to_vec());
    table
}

fn json<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| {
        let hint = "this is a mistake in the program: report it";
        Failure::new("CW-CLI-JSON", error.to_string(), hint)
    })
}

/// The fields of a JSON object in the order in which they were written.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        input.deserialize_map(InOrder)
    }
}

fn fields(json: &str) -> Result<Table, Failure> {
    let Fields(fields) = serde_json::from_str(json)
        .map_err(|error| Failure::new("CW-CLI-JSON", error.to_string(), ""))?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (name, value) in fields {
        let value = match value {
            Value::String(text) => text,
            Value::Null => "-".to_owned(),
            Value::Array(values) => {
                let lines = values
                    .iter()
                    .map(|value| value.as_str().map_or(value.to_string(), str::to_owned));
                lines.collect::<Vec<_>>().join("\n")
            }
            other => other.to_string(),
        };
        table.add_row(vec![name, value]);
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order() {
        let text = fields(r#"{"z":1,"a":"text","m":null,"l":["x","y"]}"#).unwrap().trim_fmt();
        let words: Vec<_> = text.split_whitespace().collect();
        assert_eq!(words, ["z", "1", "a", "text", "m", "-", "l", "x", "y"]);
    }

    #[test]
    fn json_is_one_line() {
        assert_eq!(json(&["a\nb"]).unwrap(), r#"["a\nb"]"#);
    }
}
