//! File names as text, and ids made of them.
//!
//! A file name is any bytes, JSON holds text, and a report holds lines. So a name is written with `\n`, `\t`, `\r`,
//! `\\` and `\xNN` for what is no printable text, and can be read back exactly.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// The path as one line of text.
pub(crate) fn to_text(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                letter if letter.is_control() => {
                    let mut bytes = [0; 4];
                    hex(&mut text, letter.encode_utf8(&mut bytes).as_bytes());
                }
                letter => text.push(letter),
            }
        }
        hex(&mut text, chunk.invalid());
    }
    text
}

fn hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// The path that [`to_text`] has written; none when it has not.
pub(crate) fn of_text(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&kind, after) = rest.split_first()?;
        rest = after;
        bytes.push(match kind {
            b'\\' => b'\\',
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            _ => return None,
        });
    }
    Some(OsString::from_vec(bytes).into())
}

/// A number that is the same for the same path at any time on any machine.
pub(crate) fn number(path: &Path) -> u64 {
    let digest = Sha256::digest(path.as_os_str().as_bytes());
    digest
        .iter()
        .take(8)
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// What stands for a folder in the ids of its tasks: something to recognise it by, and something unlike any other.
pub(crate) fn tag(folder: &Path) -> String {
    const CHARS_MAX: usize = 24;
    let Some(name) = folder.file_name() else {
        return "root".to_owned();
    };
    let known = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let name: String = name
        .to_string_lossy()
        .chars()
        .take(CHARS_MAX)
        .map(|letter| if known(letter) { letter } else { '-' })
        .collect();
    format!("{name}-{:012x}", number(folder) >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_one_line_and_comes_back() {
        for name in [
            &b"plain/name.rs"[..],
            b"two\nlines\\n\ttab",
            b"\xff\xfe no text \x80",
            "f\u{fc}r \u{1f980} \u{85}".as_bytes(),
            b"\\",
            b"\\x41",
        ] {
            let path = PathBuf::from(OsString::from_vec(name.to_vec()));
            let text = to_text(&path);
            assert!(!text.contains(char::is_control), "{text:?}");
            assert_eq!(of_text(&text), Some(path), "{text}");
        }
        assert_eq!(to_text(Path::new("a\nb")), "a\\nb");
        for broken in ["\\", "\\q", "\\x4", "\\xzz"] {
            assert_eq!(of_text(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_tag_is_fit_for_an_id() {
        assert_eq!(tag(Path::new("")), "root");
        let tag_of = |text: &str| tag(Path::new(text));
        assert_ne!(tag_of("a/b"), tag_of("c/b"));
        let odd = tag_of("x/\u{fc} a\nb");
        assert!(odd.starts_with("--a-b-") && odd.is_ascii(), "{odd}");
        assert_eq!(tag_of(&"n".repeat(200)).len(), 24 + 13);
    }
}
