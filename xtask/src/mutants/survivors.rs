//! The mutants that survive, each with the reason why no fast test can or need notice it: `survivors.txt`.
//!
//! A mutant is named by its file and by what cargo-mutants says of it, without line and column, which change with
//! every edit. Two of one name are two lines.

use std::collections::BTreeMap;

use super::Times;
use crate::error::{Error, Result};

/// The list.
const LIST: &str = include_str!("survivors.txt");

/// File and change of a mutant.
pub(super) type Key = String;

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) key: Key,
    pub(super) reason: String,
}

impl Listed {
    pub(super) fn all() -> Result<Vec<Self>> {
        parse(LIST)
    }
}

/// Lines that begin at the margin name mutants; the indented lines below are the reason of all of them.
fn parse(text: &str) -> Result<Vec<Listed>> {
    let mut done: Vec<Listed> = Vec::new();
    let mut open = 0;
    for line in text.lines() {
        let words = line.trim();
        if words.is_empty() || words.starts_with('#') {
            continue;
        }
        if line.starts_with(' ') {
            if done.is_empty() {
                return Err(unclear("a reason without a mutant"));
            }
            for listed in &mut done[open..] {
                let space = if listed.reason.is_empty() { "" } else { " " };
                listed.reason = format!("{}{space}{words}", listed.reason);
            }
            continue;
        }
        if done.last().is_some_and(|last| !last.reason.is_empty()) {
            open = done.len();
        }
        done.push(Listed {
            key: words.to_owned(),
            reason: String::new(),
        });
    }
    match done.iter().find(|listed| listed.reason.is_empty()) {
        Some(bare) => Err(unclear(&format!("no reason for `{}`", bare.key))),
        None => Ok(done),
    }
}

fn unclear(what: &str) -> Error {
    Error::Answer {
        command: "survivors.txt".into(),
        what: what.into(),
    }
}

/// `file:line:column: change` without line and column.
pub(super) fn key(name: &str) -> Key {
    let mut parts = name.splitn(4, ':');
    match (parts.next(), parts.nth(2)) {
        (Some(file), Some(change)) => format!("{file}:{change}"),
        _ => name.to_owned(),
    }
}

/// What is wrong with the list: survivors that it lacks, and lines for what is caught or is not there any more. Of
/// mutants that were not run it says nothing, unless `is_looked_at`.
pub(super) fn compare(
    listed: &[Listed],
    found: &BTreeMap<Key, Times>,
    is_looked_at: impl Fn(&Key) -> bool,
) -> Vec<String> {
    let mut allowed: BTreeMap<&Key, usize> = BTreeMap::new();
    for one in listed {
        *allowed.entry(&one.key).or_default() += 1;
    }
    let mut complaints = Vec::new();
    for (key, times) in found {
        let allowed = allowed.get(key).copied().unwrap_or(0);
        if times.survived > allowed {
            complaints.push(format!(
                "`{key}` survives {} times and is listed {allowed} times: write the test that notices it, or the reason into xtask/src/mutants/survivors.txt",
                times.survived
            ));
        } else if times.caught + times.survived > 0 && times.survived < allowed && is_looked_at(key)
        {
            complaints.push(format!(
                "`{key}` is listed {allowed} times as a survivor, and survives {} times",
                times.survived
            ));
        }
    }
    let gone = allowed
        .keys()
        .filter(|key| !found.contains_key(**key) && is_looked_at(key));
    complaints.extend(gone.map(|key| format!("`{key}` is listed as a survivor, and is no mutant")));
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# a comment
a.rs: delete !
a.rs: replace < with <=
    equal times are
    the same

b.rs: replace + with -
    nobody looks
";

    fn found(entries: &[(&str, usize, usize)]) -> BTreeMap<Key, Times> {
        let entry = |(key, caught, survived): &(&str, usize, usize)| {
            let (caught, survived) = (*caught, *survived);
            ((*key).to_owned(), Times { caught, survived })
        };
        entries.iter().map(entry).collect()
    }

    #[test]
    fn a_reason_is_that_of_all_lines_above_it() {
        let listed = parse(TEXT).unwrap();
        let reasons: Vec<_> = listed.iter().map(|one| one.reason.as_str()).collect();
        let first = "equal times are the same";
        assert_eq!(reasons, [first, first, "nobody looks"]);
        assert!(parse("a.rs: delete !\n").is_err());
        assert!(parse("    a reason\n").is_err());
    }

    #[test]
    fn the_list_must_be_what_survives() {
        let listed = parse(TEXT).unwrap();
        let all = |_: &Key| true;
        let right = [
            ("a.rs: delete !", 0, 1),
            ("a.rs: replace < with <=", 1, 1),
            ("b.rs: replace + with -", 0, 1),
        ];
        assert_eq!(compare(&listed, &found(&right), all), [""; 0]);
        let new = compare(&listed, &found(&[("c.rs: delete !", 0, 1)]), |_| false);
        assert!(new.len() == 1 && new[0].contains("`c.rs: delete !` survives 1 times"));
        let stale = [("a.rs: delete !", 1, 0), ("a.rs: replace < with <=", 0, 1)];
        let stale = compare(&listed, &found(&stale), all);
        assert!(stale[0].contains("survives 0 times") && stale[1].contains("is no mutant"));
        assert_eq!(stale.len(), 2);
        let more = compare(&listed, &found(&[("b.rs: replace + with -", 0, 2)]), |_| {
            false
        });
        assert_eq!(more.len(), 1, "two of one name, and one reason");
    }

    #[test]
    fn a_name_loses_its_place() {
        assert_eq!(
            key("a/b.rs:12:3: replace T::f -> x with y in z"),
            "a/b.rs: replace T::f -> x with y in z"
        );
    }
}
