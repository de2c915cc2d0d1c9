//! Each rule on a sample that must fail beside one that must not.

use super::*;

/// Messages, with line numbers, for a file at `path`.
fn findings(path: &str, text: &str) -> Vec<String> {
    check_file(path, text)
        .iter()
        .map(|found| format!("{}: {}", found.line, found.message))
        .collect()
}

/// Messages for a documented module in an ordinary place; line 1 is its documentation.
fn module(body: &str) -> Vec<String> {
    findings("crates/mvcc/src/sample.rs", &format!("//! Sample.\n{body}"))
}

fn assert_one(found: &[String], line: usize, part: &str) {
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with(&format!("{line}: ")) && found[0].contains(part), "{found:?}");
}

#[test]
fn white_space_is_clean_in_text_formats_only() {
    assert_one(&findings("a.md", "x \ny\n"), 1, "trailing white space");
    assert_one(&findings("deploy/Dockerfile", "x\r\ny\n"), 1, "trailing white space");
    assert_one(&findings("a.toml", "x\ny"), 2, "no newline");
    assert_one(&findings("a.toml", "x\n\n"), 2, "empty line at the end");
    assert!(findings("a.png", "x \ny").is_empty());
    assert!(findings("Cargo.lock", "x \ny").is_empty());
    assert!(findings("a.md", "").is_empty());
}

#[test]
fn tabs_are_banned_in_rust_only() {
    assert_one(&module("\tmod a;\n"), 2, "tab");
    assert!(findings("Makefile", "a:\n\tb\n").is_empty());
}

#[test]
fn files_end_at_the_limit() {
    let lines = |count: usize| "// x\n".repeat(count - 1);
    assert!(module(&lines(policy::FILE_LINES_MAX)).is_empty());
    assert_one(&module(&lines(policy::FILE_LINES_MAX + 1)), 801, "801 lines");
}

#[test]
fn functions_end_at_the_limit_test_functions_too() {
    let sample = |lines: usize| {
        format!("#[test]\nfn long() {{\n{}}}\n", "    work(\"}\");\n".repeat(lines - 2))
    };
    assert!(module(&sample(policy::FUNCTION_LINES_MAX)).is_empty());
    assert_one(&module(&sample(policy::FUNCTION_LINES_MAX + 1)), 3, "fn long has 71 lines");
}

#[test]
fn unfinished_and_debugging_macros_are_banned_in_code() {
    for (name, _) in policy::BANNED_MACROS {
        let called = format!("{name}!");
        assert_one(&module(&format!("fn a() {{ {called}() }}\n")), 2, &called);
        assert_one(&module(&format!("fn a() {{\n    std::{called}(1);\n}}\n")), 3, &called);
        assert!(module(&format!("// {called}\nconst A: &str = \"{called}\";\n")).is_empty());
        let sample = format!("fn a({name}: bool) -> bool {{ {name} != my_{called}() }}\n");
        assert!(module(&sample).is_empty(), "{sample}");
    }
}

#[test]
fn ignored_tests_are_banned() {
    for attribute in ["ignore", "ignore = \"slow\"", "cfg_attr(miri, ignore)"] {
        let sample = format!("#[test]\n#[{attribute}]\nfn a() {{}}\n");
        assert_one(&module(&sample), 3, "ignored test");
    }
    assert!(module("#[test]\nfn a() { ignore(); }\n").is_empty());
}

#[test]
fn modules_begin_with_their_documentation() {
    let path = "crates/mvcc/src/sample.rs";
    for text in
        ["", "mod a;\n", "// a\n//! b\n", "#![allow(\n    x,\n)]\nmod a;\n", "/// a\nmod a;\n"]
    {
        assert_one(&findings(path, text), 1, "no //! documentation");
    }
    for text in
        ["//! a\n", "\n#![allow(x)]\n//! a\n", "#![allow(\n    x,\n)]\n//! a\n", "/*! a */\n"]
    {
        assert!(findings(path, text).is_empty(), "{text:?}");
    }
}

#[test]
fn crate_roots_hold_no_code() {
    let root = |body: &str| findings("crates/mvcc/src/lib.rs", &format!("//! Crate.\n{body}"));
    assert_one(&root("pub struct A;\n"), 2, "struct in lib.rs");
    assert_one(&root("mod a;\nimpl a::A {}\n"), 3, "impl in lib.rs");
    assert_one(&root("pub fn a() {}\n"), 2, "fn in lib.rs");
    assert!(root("//! No fn here.\n#![forbid(unsafe_code)]\nmod a;\npub use a::A;\n").is_empty());
    assert!(module("pub struct A;\n").is_empty());
}

#[test]
fn region_is_said_only_where_the_wire_format_says_it() {
    for text in ["struct RegionId;\n", "// the region's end\n", "fn a(region_id: u64) {}\n"] {
        assert_one(&module(text), 2, "say range");
    }
    assert!(module("// `metapb.RegionEpoch` on the wire\n").is_empty());
    let wire = "//! A region.\n";
    assert!(findings("crates/server/src/wire/range.rs", wire).is_empty());
    assert!(findings("crates/server/src/kv.rs", wire).is_empty());
    assert_one(&findings("crates/server/src/admission.rs", wire), 1, "say range");
    assert!(findings("docs/a.md", "region\n").is_empty());
}

#[test]
fn tests_do_not_sleep() {
    let test = |body: &str| findings("crates/mvcc/tests/a.rs", &format!("//! Test.\n{body}"));
    assert_one(&test("tokio::time::sleep(x).await;\n"), 2, "sleep in a test");
    assert_one(&test("a();\nstd::thread::sleep(x);\n"), 3, "sleep in a test");
    assert_one(&test("use tokio::time::{Duration, sleep};\n"), 2, "sleep in a test");
    assert_one(&test("use std::thread::sleep;\n"), 2, "sleep in a test");
    assert!(test("// thread::sleep\nlet time = 1;\nruntime.sleep(time).await;\n").is_empty());
    assert_eq!(findings("crates/a/src/b/tests.rs", "//! T.\nthread::sleep(x);\n").len(), 1);
    assert!(module("thread::sleep(x);\n").is_empty(), "clippy watches code that is not a test");
    assert!(findings("tests/src/poll.rs", "//! T.\nthread::sleep(x);\n").is_empty());
}

#[test]
fn findings_read_as_clickable_places() {
    assert_eq!(check_file("a.md", "x \n")[0].to_string(), "a.md:1: trailing white space");
}
