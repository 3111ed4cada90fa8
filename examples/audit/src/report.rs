//! The report, in Markdown that also reads well on a terminal.

use std::fmt::Write as _;

use serde::Serialize;

use crate::part::{Content, Part};

/// Groups of duplicates, and marks, that are shown.
const SHOWN: usize = 15;

/// What the last task leaves.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// Whether every file that was listed has been read, or is named as unreadable.
    pub(crate) complete: bool,
    pub(crate) listed: u64,
    pub(crate) files: u64,
    pub(crate) unread: u64,
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
    pub(crate) duplicates: u64,
    pub(crate) marks: u64,
    /// All of it for people.
    pub(crate) text: String,
}

/// Writes the report on a tree in which `listed` files were seen at the beginning.
pub(crate) fn write(root: &str, sum: &Part, listed: u64) -> Report {
    let seen = sum.files + sum.unread_files;
    let groups = duplicates(sum);
    let mut report = Report {
        complete: seen == listed,
        listed,
        files: sum.files,
        unread: sum.unread_files + sum.unread_folders,
        lines: sum.languages.values().map(|language| language.lines).sum(),
        bytes: sum.bytes,
        duplicates: groups.iter().map(|content| content.files - 1).sum(),
        marks: sum.marked.values().sum(),
        text: String::new(),
    };
    let mut text = format!("# Audit of {}\n\n", code(root));
    let _ = writeln!(
        text,
        "{} files, {} lines, {}; {} copies of other files, {} marks of unfinished work, {} unreadable.",
        report.files,
        report.lines,
        size(report.bytes),
        report.duplicates,
        report.marks,
        report.unread
    );
    if !report.complete {
        let _ = writeln!(
            text,
            "\n**The tree changed while it was read:** {listed} files were listed, {seen} were looked at."
        );
    }
    languages(&mut text, sum);
    largest(&mut text, sum);
    copies(&mut text, &groups);
    marks(&mut text, sum);
    unread(&mut text, sum);
    report.text = text;
    report
}

fn languages(text: &mut String, sum: &Part) {
    let mut all: Vec<_> = sum.languages.iter().collect();
    all.sort_by(|a, b| (b.1.lines, b.1.bytes, a.0).cmp(&(a.1.lines, a.1.bytes, b.0)));
    text.push_str("\n## Languages\n\n");
    let rows = all.iter().map(|(name, language)| {
        [
            (*name).clone(),
            language.files.to_string(),
            language.lines.to_string(),
            size(language.bytes),
        ]
    });
    table(text, ["language", "files", "lines", "size"], rows.collect());
}

fn largest(text: &mut String, sum: &Part) {
    text.push_str("\n## Largest files\n\n");
    for large in &sum.largest {
        let _ = writeln!(text, "- {:>9}  {}", size(large.bytes), code(&large.path));
    }
    nothing(text, sum.largest.is_empty());
}

/// Contents that several files have; those first that waste most.
fn duplicates(sum: &Part) -> Vec<&Content> {
    let mut groups: Vec<_> = sum
        .contents
        .values()
        .filter(|content| content.files > 1)
        .collect();
    let waste = |content: &Content| content.bytes * (content.files - 1);
    groups.sort_by(|a, b| (waste(b), &a.paths).cmp(&(waste(a), &b.paths)));
    groups
}

fn copies(text: &mut String, groups: &[&Content]) {
    text.push_str("\n## Duplicates\n\n");
    for content in groups.iter().take(SHOWN) {
        let paths: Vec<_> = content.paths.iter().map(|path| code(path)).collect();
        let hidden = content.files - paths.len() as u64;
        let more = if hidden > 0 {
            format!(", and {hidden} more")
        } else {
            String::new()
        };
        let _ = writeln!(
            text,
            "- {} x {}: {}{more}",
            content.files,
            size(content.bytes),
            paths.join(", ")
        );
    }
    rest(text, groups.len());
    nothing(text, groups.is_empty());
}

fn marks(text: &mut String, sum: &Part) {
    text.push_str("\n## Unfinished work\n\n");
    let counts: Vec<_> = sum
        .marked
        .iter()
        .map(|(word, count)| format!("{count} {word}"))
        .collect();
    if !counts.is_empty() {
        let _ = writeln!(text, "{}\n", counts.join(", "));
    }
    for mark in sum.marks.iter().take(SHOWN) {
        let _ = writeln!(
            text,
            "- {}:{}  {}",
            code(&mark.path),
            mark.line,
            code(&mark.text)
        );
    }
    let all = usize::try_from(sum.marked.values().sum::<u64>()).unwrap_or(usize::MAX);
    rest(text, all);
    nothing(text, all == 0);
}

fn unread(text: &mut String, sum: &Part) {
    let all = sum.unread_files + sum.unread_folders;
    if all > 0 {
        let _ = writeln!(text, "\n## Not read\n");
        for unread in sum.unread.iter().take(SHOWN) {
            let _ = writeln!(text, "- {}: {}", code(&unread.path), unread.why);
        }
        rest(text, usize::try_from(all).unwrap_or(usize::MAX));
    }
}

fn rest(text: &mut String, all: usize) {
    if all > SHOWN {
        let _ = writeln!(text, "- and {} more", all - SHOWN);
    }
}

fn nothing(text: &mut String, is_empty: bool) {
    if is_empty {
        text.push_str("None.\n");
    }
}

/// A table whose columns line up without being rendered; the first is text, the others numbers.
fn table<const N: usize>(text: &mut String, heads: [&str; N], rows: Vec<[String; N]>) {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].len()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut line = |cells: [String; N]| {
        for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let _ = match column {
                0 => write!(text, "| {cell:<width$} |"),
                _ => write!(text, " {cell:>width$} |"),
            };
        }
        text.push('\n');
    };
    line(heads.map(str::to_owned));
    line(std::array::from_fn(|column| {
        let dashes = "-".repeat(widths[column].saturating_sub(1));
        if column == 0 {
            format!("-{dashes}")
        } else {
            format!("{dashes}:")
        }
    }));
    rows.into_iter().for_each(line);
}

/// Code that no letter of the text can end.
fn code(text: &str) -> String {
    if text.contains('`') {
        format!("`` {text} ``")
    } else {
        format!("`{text}`")
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "one digit after the point is shown"
)]
fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut name) = (bytes as f64, "B");
    for unit in units {
        if value < 1024.0 {
            break;
        }
        (value, name) = (value / 1024.0, unit);
    }
    if name == "B" {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::{Language, Unread};

    #[test]
    fn a_report_says_what_is_missing() {
        let mut sum = Part {
            files: 3,
            ..Part::default()
        };
        assert!(write("r", &sum, 3).complete);
        let report = write("r", &sum, 5);
        assert!(
            !report.complete && report.text.contains("5 files were listed, 3 were"),
            "{}",
            report.text
        );
        sum.add(Part::of_unread_file(Unread {
            path: "a|b".into(),
            why: "no".into(),
        }));
        let report = write("r", &sum, 4);
        assert!(
            report.complete && report.text.contains("- `a|b`: no"),
            "{}",
            report.text
        );
    }

    #[test]
    fn columns_line_up() {
        let language = Language {
            files: 2,
            lines: 1234,
            bytes: 2048,
        };
        let sum = Part {
            languages: [("Rust".to_owned(), language)].into(),
            ..Part::default()
        };
        let text = write("r", &sum, 0).text;
        let table = "| language | files | lines |    size |\n| -------- | ----: | ----: | ------: |\n| Rust     |     2 |  1234 | 2.0 KiB |\n";
        assert!(text.contains(table), "{text}");
    }
}
