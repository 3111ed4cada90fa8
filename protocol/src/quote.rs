//! The words of others within our own sentences: on one line, and not long.
//!
//! A message may hold anything, and what is wrong with it is told to people, in records and on terminals. Texts of
//! errors put foreign words through [`quote`].

use std::fmt::{self, Display, Write as _};

use crate::limits::QUOTE_CHARS_MAX;

/// A foreign text as it stands in a sentence: control characters are escaped, and what is too long ends with `…`.
pub fn quote(text: &str) -> impl Display + '_ {
    Quoted(text)
}

struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut room = QUOTE_CHARS_MAX;
        for letter in self.0.chars() {
            let escaped = letter.is_control().then(|| letter.escape_default());
            let width = escaped.as_ref().map_or(1, ExactSizeIterator::len);
            let Some(left) = room.checked_sub(width) else {
                return f.write_char('…');
            };
            room = left;
            match escaped {
                Some(escaped) => escaped.fmt(f)?,
                None => f.write_char(letter)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_and_lines_do_not() {
        assert_eq!(quote("a `ü` b").to_string(), "a `ü` b");
        assert_eq!(
            quote("a\nb\u{1b}[0m\u{85}").to_string(),
            "a\\nb\\u{1b}[0m\\u{85}"
        );
        assert_eq!(
            quote(&"x".repeat(1 << 20)).to_string().chars().count(),
            QUOTE_CHARS_MAX + 1
        );
        assert!(quote(&"\n".repeat(1 << 20)).to_string().len() <= QUOTE_CHARS_MAX + 3);
    }
}
