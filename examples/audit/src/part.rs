//! What the audit knows of a part of the tree. Two parts make one, in any order: that is all a merge does.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::names;

/// Largest files that are kept.
const LARGEST: usize = 10;
/// Paths that are kept of files with the same content.
const PATHS: usize = 5;
/// Marks, and files that cannot be read, that are kept; all are counted.
const KEPT: usize = 50;

/// What is known of a part of the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Part {
    /// Files that were read.
    pub(crate) files: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// By language.
    pub(crate) languages: BTreeMap<String, Language>,
    /// The largest files, the largest first.
    pub(crate) largest: Vec<Large>,
    /// Files by their content; not those that are empty.
    pub(crate) contents: BTreeMap<String, Content>,
    /// Marks of unfinished work, by word.
    pub(crate) marked: BTreeMap<String, u64>,
    /// The first of them.
    pub(crate) marks: Vec<Mark>,
    /// Files that could not be read.
    pub(crate) unread_files: u64,
    /// Folders that could not be read.
    pub(crate) unread_folders: u64,
    /// Some of both.
    pub(crate) unread: Vec<Unread>,
}

/// What is in a language.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Language {
    pub(crate) files: u64,
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
}

/// A large file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Large {
    pub(crate) bytes: u64,
    pub(crate) path: String,
}

/// A content that one or more files have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) bytes: u64,
    pub(crate) files: u64,
    pub(crate) paths: Vec<String>,
}

/// A line that says that something is left to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) path: String,
    pub(crate) line: u64,
    pub(crate) text: String,
}

/// A file or folder that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Unread {
    pub(crate) path: String,
    pub(crate) why: String,
}

impl Unread {
    pub(crate) fn new(path: &Path, why: &std::io::Error) -> Self {
        Self {
            path: names::to_text(path),
            why: why.to_string(),
        }
    }
}

impl Part {
    /// A file of which nothing is known but that it could not be read.
    pub(crate) fn of_unread_file(unread: Unread) -> Self {
        Self {
            unread_files: 1,
            unread: vec![unread],
            ..Self::default()
        }
    }

    /// Folders of which nothing is known but that they could not be read.
    pub(crate) fn of_unread_folders(unread: Vec<Unread>) -> Self {
        let part = Self {
            unread_folders: unread.len() as u64,
            unread,
            ..Self::default()
        };
        part.cut()
    }

    /// Adds what is known of another part.
    pub(crate) fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        for (name, more) in other.languages {
            let known = self.languages.entry(name).or_default();
            known.files += more.files;
            known.lines += more.lines;
            known.bytes += more.bytes;
        }
        for (hash, more) in other.contents {
            let known = self.contents.entry(hash).or_default();
            known.bytes = more.bytes;
            known.files += more.files;
            known.paths.extend(more.paths);
            known.paths.sort();
            known.paths.truncate(PATHS);
        }
        for (word, count) in other.marked {
            *self.marked.entry(word).or_default() += count;
        }
        self.largest.extend(other.largest);
        self.marks.extend(other.marks);
        self.unread_files += other.unread_files;
        self.unread_folders += other.unread_folders;
        self.unread.extend(other.unread);
        *self = std::mem::take(self).cut();
    }

    /// Keeps of each list what the report may show.
    fn cut(mut self) -> Self {
        self.largest
            .sort_by(|a, b| (b.bytes, &a.path).cmp(&(a.bytes, &b.path)));
        self.largest.truncate(LARGEST);
        self.marks.sort();
        self.marks.truncate(KEPT);
        self.unread.sort();
        self.unread.truncate(KEPT);
        self
    }

    /// The sum of many parts.
    pub(crate) fn sum(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut sum = Self::default();
        parts.into_iter().for_each(|part| sum.add(part));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(n: u64) -> Part {
        let path = format!("f{n}");
        Part {
            files: 1,
            bytes: n,
            languages: [(
                "Rust".to_owned(),
                Language {
                    files: 1,
                    lines: n,
                    bytes: n,
                },
            )]
            .into(),
            largest: vec![Large {
                bytes: n / 2,
                path: path.clone(),
            }],
            contents: [(
                (n % 3).to_string(),
                Content {
                    bytes: 7,
                    files: 1,
                    paths: vec![path.clone()],
                },
            )]
            .into(),
            marked: [("word".to_owned(), 1)].into(),
            marks: vec![Mark {
                path: path.clone(),
                line: n,
                text: String::new(),
            }],
            unread_files: 1,
            unread_folders: 0,
            unread: vec![Unread {
                path,
                why: String::new(),
            }],
        }
    }

    #[test]
    fn the_sum_does_not_depend_on_the_order() {
        let parts: Vec<_> = (0..200).map(part).collect();
        let forward = Part::sum(parts.clone());
        assert_eq!(Part::sum(parts.clone().into_iter().rev()), forward);
        let tree = parts.chunks(7).map(|chunk| Part::sum(chunk.to_vec()));
        assert_eq!(Part::sum(tree), forward);
        assert_eq!(
            (
                forward.files,
                forward.unread_files,
                forward.languages["Rust"].lines
            ),
            (200, 200, 19_900)
        );
        assert_eq!(
            (forward.largest.len(), forward.largest[0].bytes),
            (LARGEST, 99)
        );
        assert_eq!(
            (
                forward.contents["0"].files,
                forward.contents["0"].paths.len()
            ),
            (67, PATHS)
        );
    }
}
