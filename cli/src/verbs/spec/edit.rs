//! The spec in an editor, as YAML. What is wrong is told above it, and the editor opens again.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use air_nats::Nats;
use air_nats::jobs::Swap;
use air_protocol::codec;
use air_protocol::names::JobName;
use air_protocol::spec::Spec;
use uuid::Uuid;

use crate::app::App;
use crate::change::Changed;
use crate::{Failure, yaml};

/// Lets a person edit a spec.
pub(super) async fn run(nats: &Nats, app: &App, job: &JobName) -> Result<Changed, Failure> {
    let entry = nats.spec_entry(job).await?;
    let revision = entry.as_ref().map_or(0, |entry| entry.revision);
    let stored = entry.and_then(|entry| entry.value);
    let spec = match &stored {
        None => Ok(Spec::default()),
        Some(bytes) => codec::decode_spec(bytes),
    };
    let (mut body, mut wrong) = match (&spec, stored) {
        (Ok(spec), _) => (super::text(spec), None),
        (Err(error), stored) => {
            let bytes = stored.unwrap_or_default();
            (
                String::from_utf8_lossy(&bytes).into_owned(),
                Some(error.to_string()),
            )
        }
    };
    let file = Draft::new(job)?;
    loop {
        let before = with_head(job, wrong.as_deref(), &body);
        std::fs::write(&file.0, &before).map_err(Failure::io("write the spec for the editor"))?;
        open(&file.0)?;
        let after =
            std::fs::read_to_string(&file.0).map_err(Failure::io("read what the editor wrote"))?;
        if after == before {
            return match wrong {
                Some(wrong) => Err(Failure::Usage(format!(
                    "{job}: nothing was changed: {wrong}"
                ))),
                None => Ok(Changed::No),
            };
        }
        match parse(&after) {
            Ok(next) if spec.as_ref() == Ok(&next) => return Ok(Changed::No),
            Ok(next) => {
                return match nats.write_spec(job, &next, revision).await? {
                    Swap::Won(_) => {
                        nats.signal(job).await;
                        nats.flush().await;
                        Ok(Changed::Yes)
                    }
                    Swap::Lost => Err(Failure::Refused(format!(
                        "{job}: somebody else has changed the spec meanwhile; nothing was changed, edit it again"
                    ))),
                };
            }
            Err(reason) => {
                app.console.error(&reason);
                body = without_head(&after);
                wrong = Some(reason);
            }
        }
    }
}

/// The file that the editor opens, for the eyes of this user only; gone when dropped.
struct Draft(PathBuf);

impl Draft {
    fn new(job: &JobName) -> Result<Self, Failure> {
        let name = format!("airx-{}-{job}.yaml", Uuid::new_v4().simple());
        let path = std::env::temp_dir().join(name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(Failure::io(format!("make {}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // A draft that stays behind does no harm.
        let _ = std::fs::remove_file(&self.0);
    }
}

const MARK: &str = "#!";

fn with_head(job: &JobName, wrong: Option<&str>, body: &str) -> String {
    let mut head =
        format!("{MARK} The spec of the job {job}. Leave it as it is to change nothing.\n");
    for line in wrong.into_iter().flat_map(str::lines) {
        head.push_str(&format!("{MARK} wrong: {line}\n"));
    }
    head + body
}

fn without_head(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with(MARK));
    lines.map(|line| format!("{line}\n")).collect()
}

fn parse(text: &str) -> Result<Spec, String> {
    let documents =
        yaml::read(text).map_err(|error| format!("line {}: {}", error.line, error.reason))?;
    let value = match documents.len() {
        0 => serde_json::Value::Null,
        1 => documents
            .into_iter()
            .next()
            .map(|document| document.value)
            .unwrap_or_default(),
        many => return Err(format!("there are {many} documents; a spec is one")),
    };
    let value = if value.is_null() {
        serde_json::json!({})
    } else {
        value
    };
    let bytes = serde_json::to_vec(&value).unwrap_or_default();
    codec::decode_spec(&bytes).map_err(|error| error.to_string())
}

fn open(file: &Path) -> Result<(), Failure> {
    let named = ["VISUAL", "EDITOR"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let editor = named.unwrap_or_else(|| "vi".to_owned());
    // The variable may hold arguments, and quotes that only a shell understands.
    let status = Command::new("/bin/sh")
        .args(["-c", &format!("exec {editor} \"$1\""), "editor"])
        .arg(file)
        .status()
        .map_err(Failure::io(format!("start the editor {editor}")))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::Refused(format!(
            "the editor {editor} failed ({status}); nothing was changed"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_stands_above_and_is_taken_out_again() {
        let job = "j".parse().unwrap();
        let text = with_head(&job, Some("a\nb"), "paused: true\n");
        assert_eq!(text.lines().count(), 4);
        assert_eq!(without_head(&text), "paused: true\n");
        assert!(parse(&text).unwrap().paused);
        assert_eq!(parse("").unwrap(), Spec::default());
        assert!(parse("pause: true").unwrap_err().contains("paused"));
        assert!(parse("a: [").unwrap_err().starts_with("line "));
    }
}
