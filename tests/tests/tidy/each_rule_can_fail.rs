//! Each rule on a small bad input and on its good neighbour.

use crate::rules::*;
use crate::{Fault, File, Rule};

fn faults(rule: Rule, path: &str, text: &str) -> Vec<Fault> {
    rule(&File {
        path: path.to_owned(),
        text: text.to_owned(),
    })
}

/// The rule finds exactly one fault in the bad text, on that line, and none in the good one.
fn tells_apart(rule: Rule, path: &str, bad: &str, line: usize, good: &str) {
    let found = faults(rule, path, bad);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, line, "{found:?}");
    assert_eq!(faults(rule, path, good), []);
}

#[test]
fn length() {
    tells_apart(
        rust_files_are_short,
        "a.rs",
        &"x\n".repeat(501),
        0,
        &"x\n".repeat(500),
    );
    assert_eq!(faults(rust_files_are_short, "a.md", &"x\n".repeat(501)), []);
}

#[test]
fn first_line() {
    tells_apart(
        rust_files_say_what_they_are,
        "a.rs",
        "use std;\n",
        1,
        "//! Does a thing.\n",
    );
}

#[test]
fn waiting() {
    let bad = concat!("\n  std::thread::sle", "ep(second);");
    tells_apart(
        tests_wait_for_conditions,
        "tests/src/a.rs",
        bad,
        2,
        "exec(\"sleep 5\")",
    );
    tells_apart(tests_wait_for_conditions, "nats/tests/a.rs", bad, 2, "");
    assert_eq!(
        faults(tests_wait_for_conditions, "tests/src/wait.rs", bad),
        []
    );
    assert_eq!(faults(tests_wait_for_conditions, "nats/src/a.rs", bad), []);
}

#[test]
fn vague_names() {
    for path in ["cli/src/utils.rs", "cli/src/common/mod.rs", "docs/misc.md"] {
        assert_eq!(
            faults(names_say_what_is_inside, path, "").len(),
            1,
            "{path}"
        );
    }
    assert_eq!(
        faults(names_say_what_is_inside, "cli/src/common_prefix.rs", ""),
        []
    );
}

#[test]
fn registry_hosts() {
    let bad = concat!("see https://pypi", ".org/project/x");
    tells_apart(
        registries_are_not_named,
        "README.md",
        bad,
        1,
        "pip install x",
    );
}

#[test]
fn unfinished_work() {
    for mark in [
        concat!("to", "do!()"),
        concat!("unimple", "mented!()"),
        concat!("// FIX", "ME: x"),
    ] {
        tells_apart(nothing_is_left_for_later, "a.rs", mark, 1, "// done");
    }
    tells_apart(
        nothing_is_left_for_later,
        "a.rs",
        concat!("// XX", "X"),
        1,
        concat!("mktemp a.XX", "XXXX"),
    );
}

#[test]
fn knowledge_of_nats() {
    let bad = concat!("async", "-nats = \"1\"");
    tells_apart(
        only_one_crate_knows_nats,
        "cli/Cargo.toml",
        bad,
        1,
        "air-nats.workspace = true",
    );
    tells_apart(
        only_one_crate_knows_nats,
        "cli/src/a.rs",
        concat!("use async", "_nats;"),
        1,
        "use air_nats;",
    );
    assert_eq!(
        faults(only_one_crate_knows_nats, "nats/Cargo.toml", bad),
        []
    );
    assert_eq!(faults(only_one_crate_knows_nats, "docs/why.md", bad), []);
    let client = "examples/rust-client/Cargo.toml";
    assert_eq!(faults(only_one_crate_knows_nats, client, bad), []);
}

#[test]
fn dependencies_of_protocol() {
    let path = "protocol/Cargo.toml";
    let eight: String = (0..8)
        .map(|n| format!("crate-{n}.workspace = true\n"))
        .collect();
    let good = format!(
        "[package]\nname = \"x\"\n[dependencies]\n{eight}[dev-dependencies]\ninsta = \"1\"\n"
    );
    tells_apart(
        protocol_stays_small,
        path,
        &format!("[dependencies]\n{eight}ninth = \"1\"\n"),
        0,
        &good,
    );
    tells_apart(
        protocol_stays_small,
        path,
        &format!("{good}[dependencies.ninth]\nversion = \"1\"\n"),
        0,
        &good,
    );
    tells_apart(
        protocol_stays_small,
        path,
        "[dev-dependencies]\ntokio.workspace = true\n",
        2,
        &good,
    );
}

#[test]
fn trailing_whitespace() {
    tells_apart(
        no_trailing_whitespace,
        "a.md",
        "one\ntwo \n",
        2,
        "one\ntwo\n",
    );
    assert_eq!(faults(no_trailing_whitespace, "a.md", "one\r\n").len(), 1);
}

#[test]
fn dead_links() {
    let good =
        "[a](Cargo.toml) [b](/tests#x) [c](https://a.test/x) [d](#e) `[f](g)`\n```\n[h](i)\n```\n";
    tells_apart(
        links_lead_somewhere,
        "README.md",
        "\n[a](Cargo.toml) and [b](nowhere.md#x)\n",
        2,
        good,
    );
    tells_apart(
        links_lead_somewhere,
        "README.md",
        "[`code`](nowhere.rs)\n",
        1,
        "[`code`](Cargo.toml)\n",
    );
    tells_apart(
        links_lead_somewhere,
        "tests/a.md",
        "[a](Cargo.lock)\n",
        1,
        "[a](Cargo.toml)\n",
    );
}
