//! One file: its size, content, language, lines, and marks of unfinished work.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::names;
use crate::part::{Content, Language, Large, Mark, Part, Unread};

/// Bytes that are searched for marks; what is larger is data, not text that people write.
const SEARCHED_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Characters of a marked line that are kept.
const LINE_CHARS_MAX: usize = 100;
/// Words that mark unfinished work (put together so that this file has none of them).
const MARKS: [&str; 4] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("HA", "CK"),
];

/// What is known of one file, if only that it cannot be read.
pub(crate) fn measure(path: &Path) -> Part {
    read(path).unwrap_or_else(|error| Part::of_unread_file(Unread::new(path, &error)))
}

fn read(path: &Path) -> io::Result<Part> {
    let mut file = File::open(path)?;
    let (mut hash, mut text) = (Sha256::new(), Vec::new());
    let (mut bytes, mut lines, mut last, mut is_binary) = (0, 0, b'\n', false);
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let chunk = match file.read(&mut chunk)? {
            0 => break,
            read => &chunk[..read],
        };
        is_binary |= bytes == 0 && chunk.contains(&0);
        bytes += chunk.len() as u64;
        hash.update(chunk);
        lines += chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
        last = chunk[chunk.len() - 1];
        if bytes <= SEARCHED_BYTES_MAX {
            text.extend_from_slice(chunk);
        }
    }
    lines += u64::from(last != b'\n');
    let name = names::to_text(path);
    let language = if is_binary {
        "(binary)"
    } else {
        language(path, &text)
    };
    let lines = if is_binary { 0 } else { lines };
    let mut part = Part {
        files: 1,
        bytes,
        languages: [(
            language.to_owned(),
            Language {
                files: 1,
                lines,
                bytes,
            },
        )]
        .into(),
        largest: vec![Large {
            bytes,
            path: name.clone(),
        }],
        ..Part::default()
    };
    if bytes > 0 {
        let content = Content {
            bytes,
            files: 1,
            paths: vec![name.clone()],
        };
        part.contents.insert(digits(&hash.finalize()), content);
    }
    if !is_binary && bytes <= SEARCHED_BYTES_MAX {
        marks(&name, &text, &mut part);
    }
    Ok(part)
}

/// 128 of the 256 bits: more than enough, and the outputs stay small.
fn digits(hash: &[u8]) -> String {
    hash.iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn marks(path: &str, text: &[u8], part: &mut Part) {
    for (line, text) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let Some(word) = MARKS.iter().find(|word| has_word(text, word.as_bytes())) else {
            continue;
        };
        *part.marked.entry((*word).to_owned()).or_default() += 1;
        let text = String::from_utf8_lossy(text);
        let clean = |letter: char| if letter.is_control() { ' ' } else { letter };
        let text = text
            .trim()
            .chars()
            .take(LINE_CHARS_MAX)
            .map(clean)
            .collect();
        part.marks.push(Mark {
            path: path.to_owned(),
            line,
            text,
        });
    }
}

/// Whether a line has a word that neither a letter, a digit nor `_` touches.
fn has_word(line: &[u8], word: &[u8]) -> bool {
    let is_letter =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let mut places = line
        .windows(word.len())
        .enumerate()
        .filter(|(_, part)| *part == word);
    places.any(|(at, _)| {
        let before = at.checked_sub(1).and_then(|at| line.get(at));
        !is_letter(before) && !is_letter(line.get(at + word.len()))
    })
}

/// The language by the file's name, else by its first line.
fn language(path: &Path, text: &[u8]) -> &'static str {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    let ending = path
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    by_ending(&ending)
        .or_else(|| by_name(&name))
        .or_else(|| by_first_line(text))
        .unwrap_or("(other text)")
}

fn by_ending(ending: &str) -> Option<&'static str> {
    Some(match ending {
        "rs" => "Rust",
        "py" | "pyi" => "Python",
        "go" => "Go",
        "c" | "h" => "C",
        "cc" | "cpp" | "cxx" | "hh" | "hpp" => "C++",
        "java" => "Java",
        "kt" | "kts" => "Kotlin",
        "scala" => "Scala",
        "cs" => "C#",
        "swift" => "Swift",
        "rb" => "Ruby",
        "php" => "PHP",
        "pl" | "pm" => "Perl",
        "lua" => "Lua",
        "zig" => "Zig",
        "ex" | "exs" => "Elixir",
        "hs" => "Haskell",
        "js" | "mjs" | "cjs" | "jsx" => "JavaScript",
        "ts" | "tsx" | "mts" => "TypeScript",
        "sh" | "bash" | "zsh" | "fish" => "Shell",
        "sql" => "SQL",
        "proto" => "Protocol Buffers",
        "html" | "htm" => "HTML",
        "css" | "scss" | "less" => "CSS",
        "vue" | "svelte" => "Web component",
        "json" | "jsonl" => "JSON",
        "yaml" | "yml" => "YAML",
        "toml" => "TOML",
        "xml" | "xsd" => "XML",
        "ini" | "cfg" | "conf" => "Configuration",
        "md" | "markdown" => "Markdown",
        "rst" => "reStructuredText",
        "adoc" => "AsciiDoc",
        "tex" => "TeX",
        "txt" => "Plain text",
        "csv" | "tsv" => "Tables",
        "tf" => "Terraform",
        "nix" => "Nix",
        "cmake" => "CMake",
        "snap" => "Snapshot",
        "lock" | "sum" => "Lock file",
        _ => return None,
    })
}

fn by_name(name: &str) -> Option<&'static str> {
    Some(match name {
        "makefile" | "gnumakefile" => "Make",
        "dockerfile" | "containerfile" => "Dockerfile",
        "cmakelists.txt" => "CMake",
        "readme" | "license" | "copying" | "notice" | "authors" => "Plain text",
        ".gitignore" | ".gitattributes" | ".editorconfig" | ".dockerignore" => "Configuration",
        _ if name.starts_with("license-") => "Plain text",
        _ => return None,
    })
}

fn by_first_line(text: &[u8]) -> Option<&'static str> {
    let line = text
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let line = String::from_utf8_lossy(line);
    let has = |word: &str| line.contains(word);
    [
        ("python", "Python"),
        ("perl", "Perl"),
        ("ruby", "Ruby"),
        ("node", "JavaScript"),
        ("sh", "Shell"),
    ]
    .into_iter()
    .find_map(|(word, language)| has(word).then_some(language))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_a_word_of_its_own() {
        let word = MARKS[1];
        for (line, found) in [
            (format!("// {word}: later"), true),
            (word.to_owned(), true),
            (format!("{word}S"), false),
            (format!("NO_{word}"), false),
            (word.to_lowercase(), false),
            (format!("{word}S, {word}"), true),
        ] {
            assert_eq!(has_word(line.as_bytes(), word.as_bytes()), found, "{line}");
        }
    }

    #[test]
    fn a_language_is_known_by_ending_name_or_first_line() {
        let of = |name: &str, text: &str| language(Path::new(name), text.as_bytes());
        assert_eq!(of("a/b.RS", ""), "Rust");
        assert_eq!(of("Makefile", ""), "Make");
        assert_eq!(of("run", "#!/usr/bin/env bash\n"), "Shell");
        assert_eq!(of("run", "bash"), "(other text)");
    }
}
