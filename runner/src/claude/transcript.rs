//! Follows the CLI's output line by line: keeps the raw lines in a file, hands readable ones to the log, and tells what
//! was seen. Holds one line in memory at most, and never waits for anybody for long.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use air_protocol::limits::{
    LOG_BYTES_MAX, LOG_CHUNK_BYTES_MAX, TAIL_BYTES, TRANSCRIPT_BYTES_MAX, TRANSCRIPT_LINE_BYTES_MAX,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::render::readable;
use super::secret::Key;
use super::seen::Seen;

/// The output of one agent.
pub(super) struct Transcript<'a> {
    key: &'a Key,
    /// None where it cannot be written.
    file: Option<BufWriter<File>>,
    kept: u64,
    dropped: u64,
    line: Vec<u8>,
    /// Bytes of a line that is too long.
    skipped: u64,
    shown: u64,
    unshown: u64,
    tail: String,
    /// Readable text that the log is given next.
    waiting: String,
    log: mpsc::Sender<Vec<u8>>,
    pub(super) seen: Seen,
}

impl<'a> Transcript<'a> {
    /// Keeps raw lines in the file `path`, and hands readable ones to `log`.
    pub(super) fn new(key: &'a Key, path: &Path, log: mpsc::Sender<Vec<u8>>) -> Self {
        let file = File::create(path).map(BufWriter::new);
        if let Err(error) = &file {
            tracing::warn!(%error, "no transcript is kept");
        }
        Self {
            key,
            file: file.ok(),
            kept: 0,
            dropped: 0,
            line: Vec::new(),
            skipped: 0,
            shown: 0,
            unshown: 0,
            tail: String::new(),
            waiting: String::new(),
            log,
            seen: Seen::default(),
        }
    }

    /// Takes a chunk of output; `each` is told of every line.
    pub(super) fn take(&mut self, chunk: &[u8], mut each: impl FnMut(&Seen)) {
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + part.len() > TRANSCRIPT_LINE_BYTES_MAX {
                self.skipped += self.line.len() as u64 + part.len() as u64;
                self.line.clear();
            } else if self.skipped > 0 {
                self.skipped += part.len() as u64;
            } else {
                self.line.extend_from_slice(part);
            }
            if part.ends_with(b"\n") {
                self.end_of_line();
                each(&self.seen);
            }
        }
        self.flush();
    }

    fn end_of_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let skipped = std::mem::take(&mut self.skipped);
        if skipped > 0 {
            self.dropped += skipped;
            self.show(&format!("[a line of {skipped} bytes is not kept]\n"));
            return;
        }
        // A key is one word of letters: in JSON it stands as it is.
        let text = self.key.redact(String::from_utf8_lossy(&line).into_owned());
        let Ok(value) = serde_json::from_str::<Value>(&text) else {
            self.show(&text);
            return;
        };
        self.seen.take(&value);
        self.keep(&text, value["type"] == "result");
        self.show(&readable(&value));
    }

    /// Keeps a raw line: up to the limit, and the result in any case.
    fn keep(&mut self, text: &str, is_result: bool) {
        let bytes = text.len() as u64;
        if self.kept + bytes > TRANSCRIPT_BYTES_MAX && !is_result {
            self.dropped += bytes;
            return;
        }
        let written = self
            .file
            .as_mut()
            .map(|file| file.write_all(text.as_bytes()));
        match written {
            Some(Ok(())) => self.kept += bytes,
            Some(Err(error)) => {
                tracing::warn!(%error, "the transcript ends here");
                self.file = None;
                self.dropped += bytes;
            }
            None => self.dropped += bytes,
        }
    }

    /// Hands a text to the log, unless it has fallen behind.
    fn show(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.tail.push_str(text);
        if self.tail.len() > 2 * TAIL_BYTES {
            self.tail
                .drain(..self.tail.floor_char_boundary(self.tail.len() - TAIL_BYTES));
        }
        if self.waiting.len() + text.len() > LOG_CHUNK_BYTES_MAX {
            self.flush();
        }
        self.waiting.push_str(text);
    }

    fn flush(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        for chunk in waiting.as_bytes().chunks(LOG_CHUNK_BYTES_MAX) {
            let bytes = chunk.len() as u64;
            let fits = self.shown + bytes <= LOG_BYTES_MAX;
            if fits && self.log.try_send(chunk.to_vec()).is_ok() {
                self.shown += bytes;
            } else {
                self.unshown += bytes;
            }
        }
    }

    /// Ends the last line, and says what is known: what was seen, the last lines, and how many bytes the log lacks.
    /// The log ends with it.
    pub(super) fn finish(mut self) -> Told {
        if !self.line.is_empty() || self.skipped > 0 {
            self.end_of_line();
        }
        self.flush();
        if self.dropped > 0 {
            let note = json!({ "type": "air", "subtype": "dropped", "bytes": self.dropped });
            if let Some(file) = &mut self.file {
                // The file says itself where it ends.
                let _ = writeln!(file, "{note}");
            }
        }
        let flushed = self.file.as_mut().is_some_and(|file| file.flush().is_ok());
        let cut = self
            .tail
            .floor_char_boundary(self.tail.len().saturating_sub(TAIL_BYTES));
        self.tail.drain(..cut);
        Told {
            seen: self.seen,
            tail: (!self.tail.is_empty()).then_some(self.tail),
            unshown: self.unshown,
            is_kept: flushed && self.kept > 0,
        }
    }
}

/// What a whole output told.
pub(super) struct Told {
    pub(super) seen: Seen,
    /// The last lines, readable.
    pub(super) tail: Option<String>,
    /// Bytes that the log lacks.
    pub(super) unshown: u64,
    /// Whether the file has something.
    pub(super) is_kept: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-ant-12345";

    fn key() -> Key {
        let key = Key::from_env(|name| (name == "ANTHROPIC_API_KEY").then(|| KEY.into()));
        key.ok().unwrap()
    }

    #[test]
    fn lines_are_found_in_whatever_pieces_and_never_hold_the_key() {
        let key = key();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("transcript");
        let (log, mut shown) = mpsc::channel(64);
        let mut transcript = Transcript::new(&key, &path, log);
        let said = json!({ "type": "assistant", "message": { "id": "1", "model": "m", "content": [{ "type": "text", "text": KEY }] } });
        let bytes = format!(
            "{said}\nnoise {KEY}\n{}",
            json!({ "type": "result", "is_error": false })
        );
        let mut lines = 0;
        for byte in bytes.as_bytes() {
            transcript.take(&[*byte], |_| lines += 1);
        }
        let told = transcript.finish();
        assert_eq!((lines, told.is_kept, told.unshown), (2, true, 0));
        assert!(told.seen.result.is_some());
        let raw = std::fs::read_to_string(&path).unwrap();
        let mut all = vec![raw, told.tail.unwrap()];
        while let Ok(text) = shown.try_recv() {
            all.push(String::from_utf8(text).unwrap());
        }
        for text in all {
            assert!(!text.contains(KEY), "{text}");
        }
    }

    #[test]
    fn a_line_without_end_is_counted_and_dropped() {
        let key = key();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("transcript");
        let (log, _shown) = mpsc::channel(1);
        let mut transcript = Transcript::new(&key, &path, log);
        let chunk = vec![b'x'; 64 * 1024];
        for _ in 0..=(2 * TRANSCRIPT_LINE_BYTES_MAX / chunk.len()) {
            transcript.take(&chunk, |_| {});
            assert!(transcript.line.len() <= TRANSCRIPT_LINE_BYTES_MAX);
        }
        let result = json!({ "type": "result", "subtype": "success", "is_error": false });
        transcript.take(format!("\n{result}\n").as_bytes(), |_| {});
        let told = transcript.finish();
        assert!(told.seen.result.is_some_and(|ended| !ended.is_error));
        let raw = std::fs::read_to_string(&path).unwrap();
        assert!(raw.len() < 1000 && raw.contains("\"dropped\""), "{raw}");
    }
}
