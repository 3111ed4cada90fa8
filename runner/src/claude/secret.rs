//! The key of the service: where it comes from, how it reaches the CLI and nothing else, and how it is kept out of
//! whatever is written.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use serde_json::{Value, json};

use crate::key;

/// What stands where a key was.
const REDACTED: &str = "[redacted]";
/// A shorter key is none, and would tear holes into innocent text.
const KEY_BYTES_MIN: usize = 8;
/// Bytes of a key that a pipe takes at once.
const KEY_BYTES_MAX: usize = 4096;

/// The key. It cannot be printed.
pub(super) struct Key(String);

impl Key {
    /// The key that the runner's environment gives: `AIR_CLAUDE_KEY_FILE` names a file, else `ANTHROPIC_API_KEY`.
    ///
    /// # Errors
    /// What is missing, and how to mend it.
    pub(super) fn from_env(var: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let given = |name| var(name).filter(|value: &String| !value.trim().is_empty());
        let text = match (given("AIR_CLAUDE_KEY_FILE"), given("ANTHROPIC_API_KEY")) {
            (Some(path), _) => std::fs::read_to_string(&path).map_err(|error| {
                format!("AIR_CLAUDE_KEY_FILE: `{path}` cannot be read: {error}")
            })?,
            (None, Some(key)) => key,
            (None, None) => {
                return Err("there is no key for the agent: set AIR_CLAUDE_KEY_FILE or \
                            ANTHROPIC_API_KEY in the manager's environment"
                    .to_owned());
            }
        };
        let key = text.trim();
        let is_key = key.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_key || !(KEY_BYTES_MIN..KEY_BYTES_MAX).contains(&key.len()) {
            return Err(
                "what the manager's environment gives as the agent's key is none: it must be \
                        one word of 8 characters or more"
                    .to_owned(),
            );
        }
        Ok(Self(key.to_owned()))
    }

    /// Which key it is, without saying it.
    pub(super) fn id(&self) -> String {
        key::id_of(&self.0)
    }

    /// The text without the key.
    pub(super) fn redact(&self, text: String) -> String {
        if text.contains(&self.0) {
            text.replace(&self.0, REDACTED)
        } else {
            text
        }
    }

    /// The value without the key.
    pub(super) fn redact_value(&self, value: Value) -> Value {
        let text = value.to_string();
        if text.contains(&self.0) {
            serde_json::from_str(&text.replace(&self.0, REDACTED)).unwrap_or_default()
        } else {
            value
        }
    }
}

/// A pipe that gives the key to the first who asks, and is gone then.
///
/// So the key stands in no environment and no file, and what the agent starts finds it in neither.
pub(super) struct Handover {
    path: PathBuf,
    /// As long as it is open, the pipe holds what was written.
    _pipe: std::fs::File,
}

impl Handover {
    /// Makes the pipe at `path`.
    pub(super) fn new(path: PathBuf, key: &Key) -> io::Result<Self> {
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        // For both, since nobody reads yet.
        let pipe = OpenOptions::new().read(true).write(true).open(&path);
        let mut pipe = pipe?;
        pipe.write_all(format!("{}\n", key.0).as_bytes())?;
        Ok(Self { path, _pipe: pipe })
    }

    /// The settings by which the CLI asks for the key.
    pub(super) fn settings(&self) -> Value {
        let path = shell_word(&self.path);
        // Words of the shell itself: no program of the task's sees the key.
        let line = format!("IFS= read -r key < {path} && rm -f {path} && printf '%s\\n' \"$key\"");
        json!({ "apiKeyHelper": line })
    }
}

fn shell_word(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const KEY: &str = "sk-ant-12345";

    fn key() -> Key {
        Key::from_env(|name| (name == "ANTHROPIC_API_KEY").then(|| format!(" {KEY}\n"))).unwrap()
    }

    #[test]
    fn a_file_comes_before_the_variable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "sk-from-file\n").unwrap();
        let both = |name: &str| match name {
            "AIR_CLAUDE_KEY_FILE" => Some(path.display().to_string()),
            _ => Some(KEY.to_owned()),
        };
        assert_eq!(Key::from_env(both).ok().unwrap().0, "sk-from-file");
        std::fs::remove_file(&path).unwrap();
        let error = Key::from_env(both).err().unwrap();
        assert!(error.contains("cannot be read"), "{error}");
        let error = Key::from_env(|_| None).err().unwrap();
        assert!(error.contains("no key"), "{error}");
        let error =
            Key::from_env(|name| (name != "AIR_CLAUDE_KEY_FILE").then(|| "two words".into()));
        let error = error.err().unwrap();
        assert!(
            error.contains("one word") && !error.contains("two words"),
            "{error}"
        );
    }

    #[test]
    fn the_key_stands_in_no_text() {
        let key = key();
        assert_eq!(key.redact(format!("a {KEY} b")), "a [redacted] b");
        let value = key.redact_value(json!({ "a": [format!("x{KEY}")] }));
        assert_eq!(value, json!({ "a": ["x[redacted]"] }));
    }

    #[test]
    fn the_key_is_handed_over_once() {
        let folder = tempfile::tempdir().unwrap();
        let handover = Handover::new(folder.path().join("it's"), &key()).unwrap();
        let settings = handover.settings();
        let ask = || {
            let line = settings["apiKeyHelper"].as_str().unwrap();
            Command::new("/bin/sh").args(["-c", line]).output().unwrap()
        };
        assert_eq!(ask().stdout, format!("{KEY}\n").into_bytes());
        let again = ask();
        assert!(again.stdout.is_empty() && !again.status.success());
        assert!(!settings.to_string().contains(KEY));
    }
}
