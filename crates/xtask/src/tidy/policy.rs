//! Limits and exceptions of the tidy check. An exception is a path prefix with the reason beside it;
//! to add one, add a row.

/// Longest Rust file, in lines.
pub const FILE_LINES_MAX: usize = 800;

/// Longest function, from `fn` to its closing brace, in lines.
pub const FUNCTION_LINES_MAX: usize = 70;

/// Macros that no committed code calls, and what to do instead.
pub const BANNED_MACROS: &[(&str, &str)] = &[
    ("todo", "build it or leave it out"),
    ("unimplemented", "build it or return a typed error"),
    ("dbg", "remove it, or log through tracing"),
];

/// Where Rust code may say "region", the wire format's word for a range. Everywhere else only the name
/// of a wire message (`metapb.Region…`) may be written.
pub const REGION_ALLOWED: &[(&str, &str)] = &[
    ("crates/proto/", "generated from and converting the wire format"),
    ("crates/server/src/wire", "converts between the wire format and our types"),
    ("crates/server/src/kv", "implements the wire format's key-value service"),
    ("crates/server/src/pd", "implements the wire format's placement service"),
    ("crates/client/src/", "speaks the wire format to nodes"),
    ("crates/cli/src/in_process.rs", "speaks the wire format to nodes in the same process"),
    ("crates/server/src/tests/single.rs", "speaks the wire format to a node"),
    ("benches/benches/node.rs", "speaks the wire format to a node"),
    ("tests/", "drives nodes through foreign clients that use the wire format's words"),
    ("crates/xtask/", "states this rule"),
];

/// Test code that may sleep: only what pauses between two looks at a condition.
pub const SLEEP_ALLOWED: &[(&str, &str)] = &[
    ("tests/src/poll.rs", "the one loop that waits, with a deadline, for a condition to hold"),
    ("crates/multiraft/tests/cluster/harness.rs", "the test clock, and the loop that waits"),
    ("crates/server/src/tests/harness.rs", "the loop that waits for a condition"),
    ("crates/transport/src/tests/support.rs", "the test clock"),
    ("crates/workload/src/drive/tests.rs", "the test clock"),
    ("crates/client/src/tests/", "the test clock"),
    ("tests/tests/simulated/runtime.rs", "the simulated clock, and the loop that waits on it"),
    ("benches/", "the benchmarks' clock"),
];

/// Whether a row of `exceptions` covers `path`.
pub fn covers(exceptions: &[(&str, &str)], path: &str) -> bool {
    exceptions.iter().any(|(prefix, _)| path.starts_with(prefix))
}

/// Whether `path` is of a text format whose white space we keep clean. Lock files and recorded test
/// data belong to the tools that write them.
pub fn is_text(path: &str) -> bool {
    const EXTENSIONS: &[&str] = &[
        "rs",
        "toml",
        "md",
        "proto",
        "sh",
        "yml",
        "yaml",
        "env",
        "service",
        "html",
        "css",
        "js",
        "ts",
        "json",
        "dockerignore",
        "gitignore",
    ];
    const NAMES: &[&str] = &["Makefile", "Dockerfile", "LICENSE", "run"];
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    NAMES.contains(&name) || extension.is_some_and(|e| EXTENSIONS.contains(&e))
}
