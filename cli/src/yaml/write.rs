//! Writes JSON values as YAML: blocks for people, quotes wherever a reader could take text for something else.

use serde_json::Value;

/// Characters of a key with its quotes that stands before a colon without a mark: YAML allows 1,024.
const KEY_CHARS_MAX: usize = 1000;

/// A value as a YAML document.
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(&mut out, value, 0),
        Value::Array(list) if !list.is_empty() => block(&mut out, value, 0),
        scalar => {
            out.push_str(&inline(scalar));
            out.push('\n');
        }
    }
    out
}

/// Writes a list or mapping that is not empty, each entry on a line that is indented already for the first one.
fn block(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) => {
            for (number, (key, value)) in map.iter().enumerate() {
                pad(out, indent, number);
                let key = text(key);
                // A reader takes a longer one for a key only where it is marked.
                if key.chars().count() > KEY_CHARS_MAX {
                    out.push_str("? ");
                    out.push_str(&key);
                    out.push('\n');
                    out.extend(std::iter::repeat_n(' ', indent));
                } else {
                    out.push_str(&key);
                }
                out.push(':');
                entry(out, value, indent);
            }
        }
        Value::Array(list) => {
            for (number, value) in list.iter().enumerate() {
                pad(out, indent, number);
                out.push('-');
                match value {
                    Value::Object(map) if !map.is_empty() => {
                        out.push(' ');
                        block(out, value, indent + 2);
                    }
                    _ => entry(out, value, indent),
                }
            }
        }
        _ => {}
    }
}

/// The first entry stands behind what its parent has written, or at the start of the document.
fn pad(out: &mut String, indent: usize, number: usize) {
    if number > 0 || out.ends_with('\n') {
        out.extend(std::iter::repeat_n(' ', indent));
    }
}

fn entry(out: &mut String, value: &Value, indent: usize) {
    let filled = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    };
    if filled {
        out.push('\n');
        block(out, value, indent + 2);
        return;
    }
    out.push(' ');
    match value {
        Value::String(text) if is_block(text) => lines(out, text, indent + 2),
        scalar => {
            out.push_str(&inline(scalar));
            out.push('\n');
        }
    }
}

/// Whether a text is read best as a block of lines.
fn is_block(text: &str) -> bool {
    let plain = |c: char| c == '\n' || c == '\t' || !c.is_control();
    text.trim_end().contains('\n')
        && text.chars().all(plain)
        && !text.starts_with([' ', '\n', '\t'])
        && !text.ends_with("\n\n")
        && !text
            .lines()
            .any(|line| line.ends_with(' ') || line.trim().is_empty() && !line.is_empty())
        && !text.contains(['\u{85}', '\u{2028}', '\u{2029}', '\u{feff}'])
}

fn lines(out: &mut String, text: &str, indent: usize) {
    out.push_str(if text.ends_with('\n') { "|\n" } else { "|-\n" });
    for line in text.lines() {
        if !line.is_empty() {
            out.extend(std::iter::repeat_n(' ', indent));
            out.push_str(line);
        }
        out.push('\n');
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(string) => text(string),
        Value::Array(_) => "[]".to_owned(),
        Value::Object(_) => "{}".to_owned(),
        other => other.to_string(),
    }
}

/// Text as it is where no reader can mistake it, else in the quotes of JSON, which YAML shares.
fn text(text: &str) -> String {
    let plain = is_duration(text)
        || text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_')
            && text.chars().all(|c| c == ' ' || c.is_ascii_graphic())
            && !text.contains(": ")
            && !text.contains(" #")
            && !text.ends_with([':', ' '])
            && !is_word_of_yaml(text);
    if plain {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}

/// Such as `1h30m` or `2days`: its last letter is none that a number could end with.
fn is_duration(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(['s', 'm', 'h', 'y', 'r'])
        && text.chars().all(|c| c.is_ascii_alphanumeric())
}

/// Words that old or new readers take for a truth value or nothing.
fn is_word_of_yaml(text: &str) -> bool {
    let word = text.to_ascii_lowercase();
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    words.contains(&word.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn it_reads_well() {
        let value = json!([{"job": "a", "num": 1, "tags": ["x", "1"], "none": null, "empty": {}, "run": "a\nb"}, [1, [2]]]);
        let text = "- empty: {}\n  job: a\n  none: null\n  num: 1\n  run: |-\n    a\n    b\n  tags:\n    - x\n    - \"1\"\n-\n  - 1\n  -\n    - 2\n";
        assert_eq!(write(&value), text);
    }

    #[test]
    fn what_is_written_is_read_again() {
        for text in [
            "",
            "yes",
            "1",
            "- a",
            "a: b",
            "#",
            " a",
            "a ",
            "a\n",
            "a\nb\n",
            "\na\nb",
            "a\n\nb",
            "ü",
            "\u{7}",
            "a\tb\nc",
            "'",
            "\"",
            "~",
            "a #b",
            "a\nb \n",
            "2026-01-31T08:00:00Z",
            "\u{2028}a\nb",
            "nan",
            ".5",
            "0x1f",
            "!x",
            "a\r\nb",
            "echo a; exit 3",
            "a:b",
            "a:",
            "echo \"x\" | y > z #",
            "1h30m",
            "2days",
            "x: {y}",
            "0x1s",
            "1e5m",
            &"long".repeat(300),
            &"\u{10}".repeat(200),
        ] {
            for value in [
                json!(text),
                json!({"k": text}),
                json!([text]),
                json!({text: [[text], {"a": {text: text}}]}),
            ] {
                let written = write(&value);
                let read = super::super::read(&written)
                    .unwrap_or_else(|error| panic!("{error}: {written}"));
                assert_eq!(read[0].value, value, "{written}");
            }
        }
    }
}
