//! The arguments of `airx task add`, read by hand: the runner stays small.

use air_protocol::codec::nearest;
use serde_json::{Map, Value, json};

use super::{AddError, usage};

/// What a call wants.
#[derive(Debug, PartialEq)]
pub enum Arguments {
    /// To be told how to call it.
    Help,
    /// One task, by its fields in JSON.
    Task(Map<String, Value>),
    /// Tasks from a file; `-` is standard input.
    File(String),
}

const OPTIONS: &[&str] = &[
    "--run",
    "--file",
    "--id",
    "--job",
    "--needs",
    "--timeout",
    "--retries",
    "--env",
    "--input",
    "--cwd",
    "--label",
    "--not-before",
    "--help",
];

/// Reads the arguments behind `add`.
///
/// # Errors
/// [`AddError`] says which argument is wrong, and how to mend it.
pub fn parse(words: &[&str]) -> Result<Arguments, AddError> {
    let mut fields = Map::new();
    let mut file = None;
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        if word == "--" {
            let command: Vec<_> = words.by_ref().collect();
            if command.is_empty() {
                return Err(usage("no command stands behind `--`"));
            }
            work(&mut fields, "exec", json!(command))?;
            break;
        }
        let (option, inline) = match word.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, Some(value)),
            _ => (word, None),
        };
        let mut value = || {
            (inline.or_else(|| words.next()))
                .ok_or_else(|| usage(format!("`{option}` wants a value")))
        };
        match option {
            "-h" | "--help" => return Ok(Arguments::Help),
            "-f" | "--file" => file = Some(value()?.to_owned()),
            "--run" => work(&mut fields, "run", json!(value()?))?,
            _ if OPTIONS.contains(&option) => set(&mut fields, option, value()?)?,
            _ => return Err(unknown(option)),
        }
    }
    match file {
        Some(_) if !fields.is_empty() => Err(usage(
            "`-f` brings whole tasks; write the other options into its lines",
        )),
        Some(file) => Ok(Arguments::File(file)),
        None if !fields.contains_key("run") && !fields.contains_key("exec") => Err(usage(
            "nothing to do; give `-- CMD ARGS...`, `--run LINE` or `-f FILE`",
        )),
        None => Ok(Arguments::Task(fields)),
    }
}

fn work(fields: &mut Map<String, Value>, field: &str, value: Value) -> Result<(), AddError> {
    if fields.contains_key("run") || fields.contains_key("exec") {
        return Err(usage(
            "give only one of `-- CMD ARGS...` and `--run LINE`, once",
        ));
    }
    fields.insert(field.to_owned(), value);
    Ok(())
}

fn set(fields: &mut Map<String, Value>, option: &str, value: &str) -> Result<(), AddError> {
    let field = option.trim_start_matches('-').replace('-', "_");
    match option {
        "--needs" => {
            let list = fields.entry("needs").or_insert_with(|| json!([]));
            let names = value.split(',').filter(|name| !name.is_empty());
            if let Value::Array(list) = list {
                list.extend(names.map(Value::from));
            }
        }
        "--env" | "--label" => {
            let (name, text) = value.split_once('=').ok_or_else(|| {
                usage(format!(
                    "`{option} {value}` has no `=`; write {option} NAME=VALUE"
                ))
            })?;
            let field = if option == "--env" { "env" } else { "labels" };
            let map = fields.entry(field).or_insert_with(|| json!({}));
            map[name] = json!(text);
        }
        "--retries" => {
            let number: u32 = value
                .parse()
                .map_err(|_| usage(format!("`--retries {value}` is no number of retries")))?;
            fields.insert("retry".into(), json!({ "max": number }));
        }
        "--timeout" => {
            // Like in JSON: a bare number is in seconds.
            let span = value
                .parse::<u64>()
                .map_or_else(|_| json!(value), |seconds| json!(seconds));
            fields.insert(field, span);
        }
        "--input" => {
            fields.insert(field, input(value)?);
        }
        "--cwd" => {
            let path = std::path::absolute(value).map_err(|source| AddError::Read {
                path: value.into(),
                source,
            })?;
            fields.insert(field, json!(path.to_string_lossy()));
        }
        _ => {
            fields.insert(field, json!(value));
        }
    }
    Ok(())
}

fn input(value: &str) -> Result<Value, AddError> {
    let text = match value.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|source| AddError::Read {
            path: path.into(),
            source,
        })?,
        None => value.to_owned(),
    };
    serde_json::from_str(&text).map_err(|error| {
        usage(format!(
            "`--input` is no JSON: {error}; quote a text as '\"text\"', or name a file as @FILE"
        ))
    })
}

fn unknown(word: &str) -> AddError {
    if !word.starts_with('-') {
        return usage(format!("`{word}` is no option; put a command behind `--`"));
    }
    let hint = nearest(word, OPTIONS).map_or_else(
        || "see `airx task add --help`".to_owned(),
        |near| format!("did you mean `{near}`?"),
    );
    usage(format!("`{word}` is no option; {hint}"))
}
