//! What people and programs see: data on stdout in the wanted format, everything else on stderr.
//!
//! Colours only where a terminal shows them and `NO_COLOR` is not set.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};

use serde::Serialize;

use crate::Failure;
use crate::table::Table;
use crate::yaml;

/// The format of data on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Tables and lines for people.
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Comma-separated values, of `export` only.
    Csv,
}

impl Format {
    /// The format of a word on the command line.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(word: &str) -> Result<Self, String> {
        match word {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            "csv" => Ok(Self::Csv),
            other => Err(format!("`{other}` is no format")),
        }
    }
}

/// A colour of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Good news.
    Green,
    /// Bad news.
    Red,
    /// Needs a look.
    Yellow,
    /// In motion.
    Cyan,
    /// Of less interest.
    Dim,
    /// Heads.
    Bold,
}

/// Where output goes, and how it looks.
#[derive(Debug, Clone, Copy)]
pub struct Console {
    /// Format of data on stdout.
    pub format: Format,
    /// Colours on stdout.
    pub colour: bool,
    /// Colours on stderr.
    pub colour_err: bool,
    /// Whether a person sees stderr as it is written.
    pub live: bool,
    /// Whether a person can be asked.
    pub can_ask: bool,
}

impl Console {
    /// The console of this process.
    pub fn new(format: Format) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let (out, err) = (
            std::io::stdout().is_terminal(),
            std::io::stderr().is_terminal(),
        );
        Self {
            format,
            colour: out && !plain,
            colour_err: err && !plain,
            live: err,
            can_ask: err && std::io::stdin().is_terminal(),
        }
    }

    /// Writes one line of data.
    ///
    /// # Errors
    /// Nobody reads it.
    pub fn line(&self, text: impl Display) -> Result<(), Failure> {
        self.raw(format!("{text}\n").as_bytes())
    }

    /// Writes data as it is.
    ///
    /// # Errors
    /// Nobody reads it.
    pub fn raw(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes)
            .and_then(|()| out.flush())
            .map_err(Failure::io("write to stdout"))
    }

    /// Writes a line to stderr. A closed stderr is nobody's fault.
    pub fn note(&self, text: impl Display) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// Writes a warning to stderr.
    pub fn warn(&self, text: impl Display) {
        let word = painted(self.colour_err, Colour::Yellow, "warning");
        self.note(format_args!("{word}: {text}"));
    }

    /// Writes an error to stderr.
    pub fn error(&self, text: impl Display) {
        let word = painted(self.colour_err, Colour::Red, "airx");
        self.note(format_args!("{word}: {text}"));
    }

    /// Writes a value in the wanted format; `table` shows it to people.
    ///
    /// # Errors
    /// Nobody reads it.
    pub fn data<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Table | Format::Csv => table(),
            Format::Json | Format::Yaml => self.raw(self.text(value, String::new).as_bytes()),
        }
    }

    /// A value in the wanted format; `table` shows it to people.
    pub fn text<T: Serialize>(&self, value: &T, table: impl FnOnce() -> String) -> String {
        match self.format {
            Format::Table | Format::Csv => table(),
            Format::Json => json(value, true),
            Format::Yaml => yaml::write(&to_value(value)),
        }
    }

    /// Writes one of many values that come one after another: a line of JSON, or a document of YAML.
    ///
    /// # Errors
    /// Nobody reads it.
    pub fn item<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Table | Format::Csv => table(),
            Format::Json => self.raw(json(value, false).as_bytes()),
            Format::Yaml => self.raw(format!("---\n{}", yaml::write(&to_value(value))).as_bytes()),
        }
    }

    /// Writes a table.
    ///
    /// # Errors
    /// Nobody reads it.
    pub fn table(&self, table: &Table) -> Result<(), Failure> {
        self.raw(self.table_text(table).as_bytes())
    }

    /// The text of a table.
    pub fn table_text(&self, table: &Table) -> String {
        let mut text = table.lines(|head, cell| self.cell(head, cell)).join("\n");
        text.push('\n');
        text
    }

    fn cell(&self, head: &str, text: &str) -> String {
        match head {
            "" => self.paint(Colour::Bold, text),
            "STATUS" | "STATE" | "CHECK" | "FOUND" | "TYPE" | "VERDICT" => self.status(text),
            _ => text.to_owned(),
        }
    }

    /// A word of status in its colour.
    pub fn status(&self, text: &str) -> String {
        let word = text.split([' ', '/']).next().unwrap_or(text);
        match colour_of(word) {
            Some(colour) => self.paint(colour, text),
            None => text.to_owned(),
        }
    }

    /// A text in a colour, on stdout.
    pub fn paint(&self, colour: Colour, text: &str) -> String {
        painted(self.colour, colour, text)
    }
}

fn json<T: Serialize>(value: &T, pretty: bool) -> String {
    let text = if pretty {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    let mut text = text.unwrap_or_default();
    text.push('\n');
    text
}

fn to_value<T: Serialize>(value: &T) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn colour_of(word: &str) -> Option<Colour> {
    match word {
        "completed" | "succeeded" | "proven" | "ok" | "created" | "same" => Some(Colour::Green),
        "failed" | "lost" | "refuted" | "rejected" | "invalid" | "garbage" | "wrong"
        | "differs" | "missing" => Some(Colour::Red),
        "cancelled" | "cancelling" | "removing" | "skipped" | "retrying" | "blocked"
        | "warning" | "parked" | "not-proven" => Some(Colour::Yellow),
        "working" | "running" | "starting" | "started" | "claimed" => Some(Colour::Cyan),
        "waiting" | "queued" | "scheduled" | "released" => Some(Colour::Dim),
        _ => None,
    }
}

fn painted(colours: bool, colour: Colour, text: &str) -> String {
    let code = match colour {
        Colour::Green => "32",
        Colour::Red => "31",
        Colour::Yellow => "33",
        Colour::Cyan => "36",
        Colour::Dim => "2",
        Colour::Bold => "1",
    };
    if colours {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
