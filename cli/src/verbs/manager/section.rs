//! One table of a TOML file: its keys as values of the wanted kind, and what is wrong with them, with its place.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use air_manager::Secret;
use air_protocol::codec::nearest;
use air_protocol::quote::quote;
use air_protocol::time::Span;
use serde_json::{Map, Value};
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
        Err(self.wrong_value(key, wrong))
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

    /// A whole number within a range.
    pub(super) fn integer(
        &mut self,
        key: &'static str,
        within: std::ops::RangeInclusive<i32>,
    ) -> Read<Option<i32>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let Some(number) = value.get_ref().as_integer() else {
            return Err(self.other(key, value, "a number"));
        };
        let number = number.as_str();
        match number.parse() {
            Ok(number) if within.contains(&number) => Ok(Some(number)),
            _ => {
                let (least, most) = within.into_inner();
                let text = format!("`{key}` is {number}; write a number from {least} to {most}");
                Err(self.at(value, text))
            }
        }
    }

    /// What is wrong with the value of a key.
    pub(super) fn wrong_value(&self, key: &str, text: String) -> Remark {
        match self.table.get(key) {
            Some(value) => self.at(value, text),
            None => self.wrong(text),
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

    /// A time from `least` to `most`, such as `2s`.
    pub(super) fn span(
        &mut self,
        key: &'static str,
        (least, most): (Duration, Duration),
    ) -> Read<Option<Duration>> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        let (low, high) = (Span(least), Span(most));
        match text.parse() {
            Ok(Span(time)) if (least..=most).contains(&time) => Ok(Some(time)),
            Ok(span) => Err(self.wrong_value(
                key,
                format!("`{key}` is {span}; write a time from {low} to {high}"),
            )),
            Err(_) => Err(self.wrong_value(
                key,
                format!("`{key}` is `{}`; write a time such as {low}", quote(&text)),
            )),
        }
    }

    /// An address of HTTP, without credentials in it.
    pub(super) fn url(&mut self, key: &'static str) -> Read<Option<String>> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        let rest = text.strip_prefix("http://");
        let rest = rest.or_else(|| text.strip_prefix("https://"));
        match rest.map(|rest| rest.split('/').next().unwrap_or_default()) {
            Some(host) if host.contains('@') => Err(self.wrong_value(
                key,
                format!("`{key}` has credentials in it; name the file that has them"),
            )),
            Some(host) if !host.is_empty() && !text.contains(char::is_whitespace) => Ok(Some(text)),
            _ => Err(self.wrong_value(
                key,
                format!(
                    "`{key}` is `{}`; write http://HOST:PORT or https://HOST",
                    quote(&text)
                ),
            )),
        }
    }

    /// Where a credential is: in a file, or in a variable of the environment.
    pub(super) fn secret(
        &mut self,
        file: &'static str,
        variable: &'static str,
    ) -> Read<Option<Secret>> {
        match (self.text(file)?, self.text(variable)?) {
            (Some(_), Some(_)) => {
                let text = format!("there are both `{file}` and `{variable}`; write one of them");
                Err(self.wrong_value(variable, text))
            }
            (Some(path), None) => Ok(Some(Secret::File(path.into()))),
            (None, name) => Ok(name.map(Secret::Env)),
        }
    }

    /// What a key must say: `meaning`, in a few words.
    pub(super) fn must<T>(&self, value: Option<T>, key: &str, meaning: &str) -> Read<T> {
        value.ok_or_else(|| self.wrong(format!("the backend has no `{key}`; write {meaning}")))
    }

    /// A table of anything, as JSON.
    pub(super) fn object(&mut self, key: &'static str) -> Read<Map<String, Value>> {
        let Some(value) = self.get(key) else {
            return Ok(Map::new());
        };
        match json(value.get_ref()) {
            Some(Value::Object(object)) => Ok(object),
            _ => Err(self.other(
                key,
                value,
                "a table of texts, numbers, flags, lists and tables",
            )),
        }
    }

    /// A table of texts.
    pub(super) fn pairs(&mut self, key: &'static str) -> Read<Vec<(String, String)>> {
        let Some(value) = self.get(key) else {
            return Ok(Vec::new());
        };
        let wanted = "a table of texts";
        let Some(table) = value.get_ref().as_table() else {
            return Err(self.other(key, value, wanted));
        };
        let pair = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let text = value.get_ref().as_str();
            let text = text.ok_or_else(|| self.other(key, value, wanted))?;
            let name: &std::borrow::Cow<'_, str> = name.get_ref();
            Ok((name.clone().into_owned(), text.to_owned()))
        };
        table.iter().map(pair).collect()
    }

    /// Texts that are read as something else.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Read<Vec<T>> {
        let texts = self.texts(key)?;
        let values = self
            .table
            .get(key)
            .and_then(|value| value.get_ref().as_array());
        let values = values.into_iter().flat_map(|list| list.iter());
        let read = texts.iter().zip(values).map(|(text, value)| {
            parse(text).map_err(|error| self.at(value, format!("`{key}`: {error}")))
        });
        read.collect()
    }

    /// A text that is read as something else.
    pub(super) fn one_parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Read<Option<T>> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        let wrong = |error| self.wrong_value(key, format!("`{key}`: {error}"));
        parse(&text).map(Some).map_err(wrong)
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

/// A value as JSON; none for a time of day, which JSON has not.
fn json(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(number) => serde_json::from_str(number.as_str()).ok()?,
        DeValue::Float(number) => serde_json::from_str(number.as_str()).ok()?,
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Datetime(_) => return None,
        DeValue::Array(list) => list
            .iter()
            .map(|one| json(one.get_ref()))
            .collect::<Option<Vec<_>>>()?
            .into(),
        DeValue::Table(table) => {
            let pair =
                |(name, value): (&Spanned<std::borrow::Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
                    Some((name.get_ref().clone().into_owned(), json(value.get_ref())?))
                };
            table
                .iter()
                .map(pair)
                .collect::<Option<Map<_, _>>>()?
                .into()
        }
    })
}
