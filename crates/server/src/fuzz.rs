//! Hostile text for settings.

use cribwork_fuzz::{Shape, target};

use crate::{Config, ServerError, parse_duration, parse_size};

/// The parser's words without what it quotes, or every input would be a new shape.
fn kind(error: &ServerError) -> String {
    let words = error.to_string();
    let last = words.lines().last().unwrap_or_default();
    last.chars().filter(|letter| letter.is_alphabetic()).take(24).collect()
}

#[test]
fn configuration_files() {
    let seed = r#"
data-dir = "/var/lib/cribwork"
listen = "0.0.0.0:1"
advertise = "a.example:1"
join = ["a.example:1", "b.example:1"]
workers = 2
[engine]
block-cache = "64MiB"
wal-max = 1048576
[raft]
lease = "900ms"
[limits]
commands-in-flight-max = 7
busy-backoff = "1m 30s"
[log]
level = "info"
format = "json"
"#;
    let words = ["[", "]]", "\"\"\"", "{}", "=", ".", "\n[raft]\n", "1979-05-27", "inf", "0x7f"];
    let target = target("configuration_files").seeds(seed.split_inclusive('\n')).seed(seed);
    // A tree of tables with every key and its place in the text; the parser's own bounds hold it down.
    target.words(words).memory_per_byte(1_024).run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let read = Config::from_toml(&text).and_then(|config| config.check().map(|()| config));
        let read = read.map_err(|error| kind(&error));
        Shape::decoded(&read, |config| config.join.len())
    });
}

#[test]
fn sizes_and_durations() {
    let seeds = ["64MiB", "16B", "1024", "2 kB", "0", "10s", "500ms", "1m 30s", "1y 2months"];
    let words = ["18446744073709551615", "TiB", "ns", "-", "+", ".", "\u{661}", "\u{a0}"];
    target("sizes_and_durations").seeds(seeds).words(words).run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let (size, duration) = (parse_size(&text), parse_duration(&text));
        if let Ok(bytes) = size {
            assert_eq!(parse_size(&bytes.to_string()), Ok(bytes));
        }
        Shape::of(&(size.is_ok(), duration.is_ok()))
    });
}
