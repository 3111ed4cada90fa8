//! The rules themselves. The forbidden words are put together with `concat!`, so that this file obeys its own rules.

use std::path::Path;

use crate::{Fault, File, root};

const LINES_MAX: usize = 500;
const PROTOCOL_DEPENDENCIES_MAX: usize = 8;

pub(crate) fn rust_files_are_short(file: &File) -> Vec<Fault> {
    let lines = file.text.lines().count();
    let long = file.is_rust() && lines > LINES_MAX;
    let what = format!("{lines} lines, more than {LINES_MAX}; split it by what its parts do");
    long.then_some((0, what)).into_iter().collect()
}

pub(crate) fn rust_files_say_what_they_are(file: &File) -> Vec<Fault> {
    let silent = file.is_rust() && !file.text.starts_with("//!");
    let what = "does not start with `//!`; say on the first lines what the module is for, and what it never does";
    silent.then(|| (1, what.to_owned())).into_iter().collect()
}

/// The one file whose function looks again and again, so that no test has to.
const WAITS: &str = "tests/src/wait.rs";

pub(crate) fn tests_wait_for_conditions(file: &File) -> Vec<Fault> {
    let in_tests = file.path.split('/').any(|part| part == "tests");
    if !file.is_rust() || !in_tests || file.path == WAITS {
        return Vec::new();
    }
    let mend = format!("in a test; wait for the condition itself, as {WAITS} does");
    file.lines_with(&[concat!("sle", "ep(")], &mend)
}

pub(crate) fn names_say_what_is_inside(file: &File) -> Vec<Fault> {
    const VAGUE: [&str; 6] = ["util", "utils", "common", "helper", "helpers", "misc"];
    let stem = |part: &str| part.split('.').next().unwrap_or(part).to_owned();
    let vague = file
        .path
        .split('/')
        .map(stem)
        .find(|part| VAGUE.contains(&part.as_str()));
    let what = |part| format!("`{part}` says nothing; name it by what it does");
    vague.map(|part| (0, what(part))).into_iter().collect()
}

pub(crate) fn registries_are_not_named(file: &File) -> Vec<Fault> {
    let hosts = [
        concat!("index.", "crates.io"),
        concat!("static.", "crates.io"),
        concat!("pypi", ".org"),
        concat!("python", "hosted.org"),
        concat!("proxy.", "golang.org"),
        concat!("sum.", "golang.org"),
        concat!("npmjs", ".org"),
        concat!("npmjs", ".com"),
        concat!("repo1.", "maven.org"),
        concat!("repo.", "maven.apache.org"),
        concat!("deb.", "debian.org"),
    ];
    let mend = "is a registry's host; name the package only, the client knows its registry";
    file.lines_with(&hosts, mend)
}

pub(crate) fn nothing_is_left_for_later(file: &File) -> Vec<Fault> {
    let marks = [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    let mend = "is unfinished work; finish it, or open an issue and take the mark out";
    file.lines_with(&marks, mend)
}

/// A client as anybody might write it elsewhere: it uses nothing of this workspace, and so has to know NATS itself.
const FOREIGN_CLIENT: &str = "examples/rust-client/";

pub(crate) fn only_one_crate_knows_nats(file: &File) -> Vec<Fault> {
    if file.path.starts_with(FOREIGN_CLIENT) {
        return Vec::new();
    }
    let mend = "outside of the crate air-nats; add what you need to that crate's interface instead";
    if file.name() == "Cargo.toml" && file.path != "Cargo.toml" && file.path != "nats/Cargo.toml" {
        return file.lines_with(&[concat!("async", "-nats")], mend);
    }
    if file.is_rust() && !file.path.starts_with("nats/") {
        return file.lines_with(&[concat!("async", "_nats")], mend);
    }
    Vec::new()
}

pub(crate) fn protocol_stays_small(file: &File) -> Vec<Fault> {
    if file.path != "protocol/Cargo.toml" {
        return Vec::new();
    }
    let (mut section, mut count, mut faults) = (String::new(), 0, Vec::new());
    for (number, line) in (1..).zip(file.text.lines()) {
        let table = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        // `[dependencies]` is a section, `[dependencies.serde]` a section and a name in one.
        let name = match table.and_then(|table| table.split_once("dependencies.")) {
            Some((kind, name)) => {
                section = format!("{kind}dependencies");
                Some(name)
            }
            None => {
                table.inspect(|table| section = (*table).to_owned());
                line.split(['.', '=', ' '])
                    .next()
                    .filter(|_| table.is_none() && line.contains('='))
            }
        };
        let Some(name) =
            name.filter(|name| section.ends_with("dependencies") && is_crate_name(name))
        else {
            continue;
        };
        if name == "tokio" || name == concat!("async", "-nats") {
            faults.push((
                number,
                format!("`{name}` in protocol, which does no I/O; let its caller do it"),
            ));
        }
        count += usize::from(section == "dependencies");
    }
    if count > PROTOCOL_DEPENDENCIES_MAX {
        faults.push((
            0,
            format!("{count} dependencies, more than {PROTOCOL_DEPENDENCIES_MAX}; do without one"),
        ));
    }
    faults
}

fn is_crate_name(word: &str) -> bool {
    let known = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    !word.is_empty() && word.chars().all(known)
}

pub(crate) fn no_trailing_whitespace(file: &File) -> Vec<Fault> {
    if file.path.ends_with(".snap") {
        return Vec::new();
    }
    let spaced = (1..)
        .zip(file.text.split('\n'))
        .filter(|(_, line)| line.trim_end() != *line);
    spaced
        .map(|(number, _)| {
            (
                number,
                "white space at the end of the line; delete it".to_owned(),
            )
        })
        .collect()
}

pub(crate) fn links_lead_somewhere(file: &File) -> Vec<Fault> {
    if !file.path.ends_with(".md") {
        return Vec::new();
    }
    let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
    let mut faults = Vec::new();
    for (number, target) in links(&file.text) {
        let elsewhere =
            target.contains("://") || target.starts_with("mailto:") || target.starts_with('#');
        let local = target.split('#').next().unwrap_or(target);
        let path = match local.strip_prefix('/') {
            Some(from_root) => root().join(from_root),
            None => root().join(folder).join(local),
        };
        if !elsewhere && !path.exists() {
            faults.push((
                number,
                format!("the link to `{target}` leads nowhere; correct it or take it out"),
            ));
        }
    }
    faults
}

/// The targets of all `[text](target)` outside of code, with their lines.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            for prose in line.split('`').step_by(2) {
                let targets = prose
                    .split("](")
                    .skip(1)
                    .filter_map(|rest| rest.split([')', ' ']).next());
                found.extend(targets.map(|target| (number, target)));
            }
        }
    }
    found
}
