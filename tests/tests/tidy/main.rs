//! The rules of this repository that no other tool checks, as tests.
//!
//! A rule is a function from one file to its faults; each fault says what is wrong, where, and how to mend it. To add a
//! rule, write the function in `rules.rs`, name it in [`RULES`], and show in `each_rule_can_fail.rs` that it can fail.
//! Only the standard library is used. Nothing here changes a file.

mod each_rule_can_fail;
mod rules;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use rules::*;

/// One text file of the repository: its path from the root, with `/`, and what is in it.
struct File {
    path: String,
    text: String,
}

/// One thing that is wrong with a file: the line (0 for the whole file), what, and how to mend it.
type Fault = (usize, String);

type Rule = fn(&File) -> Vec<Fault>;

/// Inputs of the fuzzer: bytes, which are text by accident.
const INPUTS: &str = "fuzz/corpus/";

const RULES: &[Rule] = &[
    rust_files_are_short,
    rust_files_say_what_they_are,
    tests_wait_for_conditions,
    names_say_what_is_inside,
    registries_are_not_named,
    nothing_is_left_for_later,
    only_one_crate_knows_nats,
    protocol_stays_small,
    no_trailing_whitespace,
    links_lead_somewhere,
];

#[test]
fn the_tree_is_tidy() -> Result<(), Box<dyn Error>> {
    let files = tracked_files()?;
    assert!(
        files.iter().any(|file| file.path == "Cargo.toml"),
        "the list of files looks wrong"
    );
    let faults: Vec<_> = files.iter().flat_map(faults_of).collect();
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
    Ok(())
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// One fault for each line that has one of the words, not as a part of a longer word.
    fn lines_with(&self, words: &[&str], mend: &str) -> Vec<Fault> {
        let word_in = |line: &str| words.iter().find(|word| has_word(line, word)).copied();
        let lines = (1..).zip(self.text.lines());
        lines
            .filter_map(|(number, line)| {
                word_in(line).map(|word| (number, format!("`{word}` {mend}")))
            })
            .collect()
    }
}

/// Whether `line` has `word`, and neither a letter, a digit nor `_` touches it.
fn has_word(line: &str, word: &str) -> bool {
    let letter = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        let (before, after) = (&line[..start], &line[start + word.len()..]);
        let open = word.ends_with('(') || !after.starts_with(letter);
        !before.ends_with(letter) && open
    })
}

fn faults_of(file: &File) -> Vec<String> {
    let faults = RULES.iter().flat_map(|rule| rule(file));
    faults
        .map(|(line, what)| format!("{}:{line}: {what}", file.path))
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What git knows, and what it would add: a new file is checked before it is committed. Binary files are left out.
fn tracked_files() -> Result<Vec<File>, Box<dyn Error>> {
    let mut git = Command::new("git");
    git.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ])
    .current_dir(root());
    let listed = git.output()?;
    if !listed.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&listed.stderr)).into());
    }
    let listed = String::from_utf8(listed.stdout)?;
    let paths = listed
        .split('\0')
        .filter(|path| !path.is_empty() && !path.starts_with(INPUTS));
    let read = |path: &str| {
        std::fs::read(root().join(path))
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
    };
    Ok(paths
        .filter_map(|path| {
            read(path).map(|text| File {
                path: path.to_owned(),
                text,
            })
        })
        .collect())
}
