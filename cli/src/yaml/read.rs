//! Reads YAML documents as JSON values, and remembers the line of each value.

use std::collections::HashMap;

use air_protocol::quote::quote;
use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Number, Value};

/// A document and the lines of its parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// What it says.
    pub value: Value,
    /// The line on which it begins, from 1.
    pub line: usize,
    /// Lines of the elements of a list, when the document is one.
    pub elements: Vec<usize>,
}

/// A text is no YAML that JSON could say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct SyntaxError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// Values that are deeper than this are refused.
const DEPTH_MAX: usize = 64;
/// Values that aliases may make; more is a text that wants to fill the memory.
const ALIASED_MAX: usize = 100_000;
/// Bytes of text that count as one more value.
const ALIASED_BYTES: usize = 256;

/// A list or mapping that is not complete yet.
enum Open {
    List(Vec<Value>, usize),
    Map(Map<String, Value>, Option<String>, usize),
}

#[derive(Default)]
struct Reader {
    documents: Vec<Document>,
    open: Vec<Open>,
    elements: Vec<usize>,
    begun: usize,
    anchors: HashMap<usize, Value>,
    aliased: usize,
}

/// Reads all documents of a text.
///
/// # Errors
/// [`SyntaxError`] with the line.
pub fn read(text: &str) -> Result<Vec<Document>, SyntaxError> {
    let mut reader = Reader::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| SyntaxError {
            line: error.marker().line(),
            reason: quote(error.info()).to_string(),
        })?;
        reader.take(event, span)?;
    }
    Ok(reader.documents)
}

fn wrong<T>(span: Span, reason: impl Into<String>) -> Result<T, SyntaxError> {
    Err(SyntaxError {
        line: span.start.line(),
        reason: reason.into(),
    })
}

impl Reader {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), SyntaxError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                untagged(tag.as_deref(), span)?;
                if let Some(Open::Map(map, key @ None, _)) = self.open.last_mut() {
                    if map.contains_key(text.as_ref()) {
                        return wrong(span, format!("the key `{}` is there twice", quote(&text)));
                    }
                    *key = Some(text.into_owned());
                    return Ok(());
                }
                self.put(scalar(&text, style), anchor, span)
            }
            Event::Alias(anchor) => {
                let Some(value) = self.anchors.get(&anchor).cloned() else {
                    return wrong(span, "an alias stands before its anchor");
                };
                self.aliased += size(&value);
                if self.aliased > ALIASED_MAX {
                    return wrong(span, "aliases make too many values");
                }
                // A list or mapping notes its line where it begins, and here it begins nowhere else.
                if value.is_array() || value.is_object() {
                    self.note_line(span);
                }
                self.put(value, 0, span)
            }
            Event::SequenceStart(anchor, tag) => {
                untagged(tag.as_deref(), span)?;
                self.begin(Open::List(Vec::new(), anchor), span)
            }
            Event::MappingStart(anchor, tag) => {
                untagged(tag.as_deref(), span)?;
                self.begin(Open::Map(Map::new(), None, anchor), span)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(list, anchor)) => self.put(Value::Array(list), anchor, span),
                Some(Open::Map(map, _, anchor)) => self.put(Value::Object(map), anchor, span),
                None => Ok(()),
            },
            Event::DocumentStart(_) => {
                self.begun = 0;
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn begin(&mut self, open: Open, span: Span) -> Result<(), SyntaxError> {
        if let Some(Open::Map(_, None, _)) = self.open.last() {
            return wrong(span, "a key must be text");
        }
        if self.open.len() >= DEPTH_MAX {
            return wrong(span, format!("it is nested deeper than {DEPTH_MAX} levels"));
        }
        self.note_line(span);
        self.open.push(open);
        Ok(())
    }

    /// Remembers where a document, or an element of its list, begins.
    fn note_line(&mut self, span: Span) {
        match self.open.as_slice() {
            [] if self.begun == 0 => self.begun = span.start.line(),
            [Open::List(..)] => self.elements.push(span.start.line()),
            _ => {}
        }
    }

    /// Puts a complete value where it belongs. The end of a list or mapping has no line of its own to note.
    fn put(&mut self, value: Value, anchor: usize, span: Span) -> Result<(), SyntaxError> {
        if !value.is_array() && !value.is_object() {
            self.note_line(span);
        }
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        match self.open.last_mut() {
            Some(Open::List(list, _)) => list.push(value),
            Some(Open::Map(map, key, _)) => match key.take() {
                Some(key) => drop(map.insert(key, value)),
                None => return wrong(span, "a key must be text"),
            },
            None => self.documents.push(Document {
                value,
                line: self.begun,
                elements: std::mem::take(&mut self.elements),
            }),
        }
        Ok(())
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(size).sum::<usize>(),
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| key.len() / ALIASED_BYTES + size(value);
            1 + map.iter().map(entry).sum::<usize>()
        }
        Value::String(text) => 1 + text.len() / ALIASED_BYTES,
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
    }
}

fn untagged(tag: Option<&Tag>, span: Span) -> Result<(), SyntaxError> {
    match tag {
        None => Ok(()),
        Some(tag) => wrong(
            span,
            format!(
                "the tag `{}` is not understood; take it out",
                quote(&tag.suffix)
            ),
        ),
    }
}

/// The value of a scalar by the core schema of YAML 1.2: `yes` and `no` are text.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::String(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    let digits = text.trim_start_matches(['+', '-']);
    // The schema has no signs here, but the reader of the standard library takes them.
    let based = |prefix, base| {
        let digits = text.strip_prefix(prefix)?;
        let unsigned = digits.starts_with(|c: char| c.is_ascii_hexdigit());
        unsigned.then(|| i64::from_str_radix(digits, base).ok())?
    };
    if let Some(number) = based("0x", 16).or_else(|| based("0o", 8)) {
        return Some(number.into());
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        || !digits.contains(|c: char| c.is_ascii_digit())
        || text.len() > digits.len() + 1
    {
        return None;
    }
    let whole = text.strip_prefix('+').unwrap_or(text);
    if let Ok(number) = whole.parse::<u64>() {
        return Some(number.into());
    }
    if let Ok(number) = whole.parse::<i64>() {
        return Some(number.into());
    }
    whole.parse::<f64>().ok().and_then(Number::from_f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn values(text: &str) -> Vec<Value> {
        let documents = read(text).unwrap();
        documents
            .into_iter()
            .map(|document| document.value)
            .collect()
    }

    #[test]
    fn scalars_are_those_of_json() {
        let text = "[1, -2, 1.5, 0x10, true, null, ~, '1', yes, 30m, 1e3, 'a\n  b', 127.0.0.1, 2026-01-31]";
        let wanted = json!([
            1,
            -2,
            1.5,
            16,
            true,
            null,
            null,
            "1",
            "yes",
            "30m",
            1000.0,
            "a b",
            "127.0.0.1",
            "2026-01-31"
        ]);
        assert_eq!(values(text), [wanted]);
        assert_eq!(
            values("[-0x10, 0x-10, 0o+7]"),
            [json!(["-0x10", "0x-10", "0o+7"])]
        );
        assert_eq!(values("run: |\n  a\n  b\n"), [json!({"run": "a\nb\n"})]);
    }

    #[test]
    fn lines_of_documents_and_elements_are_known() {
        let list = read("# tasks\n- run: a\n\n- run: b\n  env:\n    - x\n- c\n").unwrap();
        assert_eq!((list[0].line, list[0].elements.clone()), (2, vec![2, 4, 7]));
        let many = read("run: a\n---\n\nrun: b\n").unwrap();
        assert_eq!((many.len(), many[0].line, many[1].line), (2, 1, 4));
    }

    #[test]
    fn anchors_are_followed() {
        assert_eq!(
            values("a: &x {n: 1}\nb: *x\n"),
            [json!({"a": {"n": 1}, "b": {"n": 1}})]
        );
    }

    #[test]
    fn an_alias_has_a_line_of_its_own() {
        let list = read("- &x {n: 1}\n- *x\n- &y 2\n- *y\n- [*x]\n").unwrap();
        assert_eq!(list[0].elements, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn errors_know_their_line() {
        assert_eq!(read("a: 1\na: 2\n").unwrap_err().line, 2);
        assert_eq!(read("a: 1\nb: !!binary x\n").unwrap_err().line, 2);
        assert!(read("a: [1\nb: 2\n").is_err());
        assert!(read("? [a]\n: b\n").unwrap_err().reason.contains("text"));
        let bomb = "a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n\
             c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n\
             e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
        assert!(read(bomb).unwrap_err().reason.contains("too many"));
        let long = format!("- &a {}\n{}", "x".repeat(1 << 20), "- *a\n".repeat(100));
        assert!(read(&long).unwrap_err().reason.contains("too many"));
    }
}
