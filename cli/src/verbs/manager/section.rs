//! One table of a TOML file: its keys as values of the wanted kind, and what is wrong with them, with its place.

use std::fmt;
use std::num::NonZeroU32;

use air_protocol::codec::nearest;
use air_protocol::quote::quote;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::config::Remark;

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// From 1.
    pub(super) line: usize,
    /// In characters, from 1.
    pub(super) column: usize,
}

impl Place {
    /// The place of a byte.
    pub(super) fn of(text: &str, byte: usize) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        Self {
            line: 1 + before.matches('\n').count(),
            column: 1 + before[line_start..].chars().count(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A table, and the keys of it that were asked for.
pub(super) struct Section<'a> {
    text: &'a str,
    /// Its first byte.
    start: usize,
    table: &'a DeTable<'a>,
    known: Vec<&'static str>,
}

type Read<T> = Result<T, Remark>;

impl<'a> Section<'a> {
    /// A table of a text.
    pub(super) fn new(text: &'a str, start: usize, table: &'a DeTable<'a>) -> Self {
        Self {
            text,
            start,
            table,
            known: Vec::new(),
        }
    }

    /// Something is wrong with the table as a whole.
    pub(super) fn wrong(&self, text: String) -> Remark {
        let place = Place::of(self.text, self.start);
        Remark { place, text }
    }

    fn at(&self, value: &Spanned<DeValue<'_>>, text: String) -> Remark {
        let place = Place::of(self.text, value.span().start);
        Remark { place, text }
    }

    fn get(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// A value of another kind than the wanted one.
    fn other(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) -> Remark {
        let found = value.get_ref().type_str();
        self.at(value, format!("`{key}` is a {found}; write {wanted}"))
    }

    /// A text.
    pub(super) fn text(&mut self, key: &'static str) -> Read<Option<String>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.get_ref().as_str() {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(self.other(key, value, "a text")),
        }
    }

    /// One of these words.
    pub(super) fn one_of(
        &mut self,
        key: &'static str,
        words: &[&'static str],
    ) -> Read<Option<&'static str>> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        let known = words.iter().find(|word| **word == text);
        if let Some(word) = known {
            return Ok(Some(*word));
        }
        let hint = match nearest(&text, words) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write one of {}", words.join(", ")),
        };
        let wrong = format!("`{key}` is `{}`; {hint}", quote(&text));
        let value = self.table.get(key);
        Err(value.map_or_else(
            || self.wrong(wrong.clone()),
            |value| self.at(value, wrong.clone()),
        ))
    }

    /// Yes or no; no where it does not say.
    pub(super) fn flag(&mut self, key: &'static str) -> Read<bool> {
        let Some(value) = self.get(key) else {
            return Ok(false);
        };
        let flag = value.get_ref().as_bool();
        flag.ok_or_else(|| self.other(key, value, "true or false"))
    }

    /// A number from 1 on.
    pub(super) fn count(&mut self, key: &'static str) -> Read<Option<usize>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let Some(number) = value.get_ref().as_integer() else {
            return Err(self.other(key, value, "a number"));
        };
        let number = number.as_str();
        if number == "0" {
            return Err(self.at(value, format!("`{key}` is 0, but 1 is the least")));
        }
        let count: Result<NonZeroU32, _> = number.parse();
        match count.map(|count| usize::try_from(count.get())) {
            Ok(Ok(count)) => Ok(Some(count)),
            _ => {
                let text = format!("`{key}` is {number}; write a number from 1 to {}", u32::MAX);
                Err(self.at(value, text))
            }
        }
    }

    /// Texts.
    pub(super) fn texts(&mut self, key: &'static str) -> Read<Vec<String>> {
        let Some(value) = self.get(key) else {
            return Ok(Vec::new());
        };
        let Some(list) = value.get_ref().as_array() else {
            return Err(self.other(key, value, "a list of texts"));
        };
        let text = |one: &Spanned<DeValue<'_>>| match one.get_ref().as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(self.other(key, one, "texts in this list")),
        };
        list.iter().map(text).collect()
    }

    /// Tables, written `[[key]]`, with their places.
    pub(super) fn sections(&mut self, key: &'static str) -> Read<Vec<(Place, Section<'a>)>> {
        let Some(value) = self.get(key) else {
            return Ok(Vec::new());
        };
        let wanted = || format!("tables, each begun by [[{key}]]");
        let Some(list) = value.get_ref().as_array() else {
            return Err(self.other(key, value, &wanted()));
        };
        let mut sections = Vec::new();
        for one in list.iter() {
            let DeValue::Table(table) = one.get_ref() else {
                return Err(self.other(key, one, &wanted()));
            };
            let start = one.span().start;
            let place = Place::of(self.text, start);
            sections.push((place, Section::new(self.text, start, table)));
        }
        Ok(sections)
    }

    /// Tells of keys that nobody asked for.
    pub(super) fn finish(self, warnings: &mut Vec<Remark>) {
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let near = nearest(name, &self.known);
            let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            let place = Place::of(self.text, key.span().start);
            let text = format!("`{}` is no key of this table{hint}", quote(name));
            warnings.push(Remark { place, text });
        }
    }
}
