//! What a further attempt goes on from: the session and the tasks that it has queued, in one blob for each task.
//!
//! The blob is a line of JSON that names its parts and their bytes, and the parts. So further parts can be added.

use std::fs;
use std::path::{Path, PathBuf};

use air_protocol::limits::SESSION_BYTES_MAX;
use serde::{Deserialize, Serialize};

/// Version of the blob.
const VERSION: u8 = 1;
/// Characters of a folder's name, as the CLI spells the working folder; it cuts longer ones in a way of its own.
const SPELLED_CHARS_MAX: usize = 200;

/// A saved session.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Saved {
    /// Id of the session.
    pub(super) session: String,
    /// The working folder it was in.
    pub(super) cwd: String,
    /// The CLI's file.
    pub(super) lines: Vec<u8>,
    /// What stands in `AIR_TASKS`: the session remembers that it has queued it.
    pub(super) tasks: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    v: u8,
    session: String,
    cwd: String,
    parts: Vec<(String, u64)>,
}

impl Saved {
    /// The session as the CLI has written it so far; none while there is nothing, or where it is too long.
    pub(super) fn read(config: &Path, session: &str, cwd: &Path, tasks: &Path) -> Option<Self> {
        let lines = whole_lines(&find(config, session)?).filter(|lines| !lines.is_empty())?;
        Some(Self {
            session: session.to_owned(),
            cwd: cwd.to_string_lossy().into_owned(),
            lines,
            // After the session: what it remembers must be there.
            tasks: whole_lines(tasks)?,
        })
    }

    /// Puts the session where the CLI looks for it when it works in `cwd`, and its tasks into `tasks`.
    pub(super) fn restore(&self, config: &Path, cwd: &Path, tasks: &Path) -> Result<(), String> {
        let spelled = spell(cwd).ok_or("the path of the working folder is too long")?;
        let folder = config.join("projects").join(spelled);
        let path = folder.join(format!("{}.jsonl", self.session));
        let written = fs::create_dir_all(&folder)
            .and_then(|()| fs::write(path, &self.lines))
            .and_then(|()| fs::write(tasks, &self.tasks));
        written.map_err(|error| error.to_string())
    }

    /// The blob.
    pub(super) fn encode(&self) -> Vec<u8> {
        let head = Head {
            v: VERSION,
            session: self.session.clone(),
            cwd: self.cwd.clone(),
            parts: vec![
                ("session".to_owned(), self.lines.len() as u64),
                ("tasks".to_owned(), self.tasks.len() as u64),
            ],
        };
        let mut bytes = serde_json::to_vec(&head).unwrap_or_default();
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.lines);
        bytes.extend_from_slice(&self.tasks);
        bytes
    }

    /// What a blob holds; none where it is of another form.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let head: Head = serde_json::from_slice(&bytes[..end]).ok()?;
        // It becomes an argument, and a part of a path.
        let session = uuid::Uuid::parse_str(&head.session).ok()?.to_string();
        let mut rest = &bytes[end + 1..];
        let (mut lines, mut tasks) = (None, None);
        for (name, bytes) in &head.parts {
            let (part, left) = rest.split_at_checked(usize::try_from(*bytes).ok()?)?;
            match name.as_str() {
                "session" => lines = Some(part.to_vec()),
                "tasks" => tasks = Some(part.to_vec()),
                _ => {}
            }
            rest = left;
        }
        (head.v == VERSION).then_some(Self {
            session,
            cwd: head.cwd,
            lines: lines?,
            tasks: tasks?,
        })
    }
}

/// The lines of a file without the last one where it is half written; none where they are too many to be saved.
fn whole_lines(path: &Path) -> Option<Vec<u8>> {
    if path.metadata().ok()?.len() > SESSION_BYTES_MAX {
        tracing::warn!(path = %path.display(), "the session is too long to be saved");
        return None;
    }
    let mut lines = fs::read(path).ok()?;
    let whole = lines.iter().rposition(|byte| *byte == b'\n');
    lines.truncate(whole.map_or(0, |end| end + 1));
    Some(lines)
}

fn find(config: &Path, session: &str) -> Option<PathBuf> {
    let name = format!("{session}.jsonl");
    let folders = fs::read_dir(config.join("projects")).ok()?.flatten();
    folders
        .map(|folder| folder.path().join(&name))
        .find(|path| path.is_file())
}

/// The working folder, as the CLI spells it in the name of a folder.
fn spell(cwd: &Path) -> Option<String> {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let spelled: String = cwd.to_str()?.chars().map(letter).collect();
    (spelled.len() <= SPELLED_CHARS_MAX).then_some(spelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "6f1c1de2-5f6a-4d5c-9d53-3a52fd0f1f7a";

    #[test]
    fn a_session_comes_back_in_another_folder() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = here.path().join("projects/-tmp-old");
        let (old, tasks) = (Path::new("/tmp/old"), here.path().join("tasks"));
        fs::write(&tasks, "{\"run\":\"true\"}\n{\"ru").unwrap();
        assert_eq!(Saved::read(here.path(), ID, old, &tasks), None);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{ID}.jsonl")), "{}\n{\"a\":\n").unwrap();
        fs::write(folder.join(format!("{ID}.jsonl")), "{}\n{\"a\":").unwrap();
        let saved = Saved::read(here.path(), ID, old, &tasks).unwrap();
        assert_eq!(saved.lines, b"{}\n", "whole lines");
        let again = Saved::decode(&saved.encode()).unwrap();
        assert_eq!(again, saved);
        again
            .restore(there.path(), Path::new("/tmp/new.x_y"), &tasks)
            .unwrap();
        assert_eq!(fs::read(&tasks).unwrap(), b"{\"run\":\"true\"}\n");
        let path = there
            .path()
            .join(format!("projects/-tmp-new-x-y/{ID}.jsonl"));
        assert_eq!(fs::read(path).unwrap(), b"{}\n");
    }

    #[test]
    fn a_blob_of_another_form_is_none() {
        let saved = Saved {
            session: ID.into(),
            cwd: "/".into(),
            lines: b"{}\n".to_vec(),
            tasks: b"{}\n".to_vec(),
        };
        let good = saved.encode();
        let text = String::from_utf8(good.clone()).unwrap();
        for bytes in [
            b"".to_vec(),
            b"\n".to_vec(),
            good[..good.len() - 1].to_vec(),
            text.replace(ID, "../../x").into_bytes(),
            text.replace("\"v\":1", "\"v\":2").into_bytes(),
            text.replace("[\"session\",3]", "[\"session\",18446744073709551615]")
                .into_bytes(),
        ] {
            assert_eq!(
                Saved::decode(&bytes),
                None,
                "{}",
                String::from_utf8_lossy(&bytes)
            );
        }
    }
}
