//! Bytes of several tasks as lines with the task's id before each; bytes of one task as they are.

use std::collections::BTreeMap;

use crate::Failure;
use crate::console::{Colour, Console};

/// Longest line that is kept until its end comes.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Writes chunks of output.
pub(super) struct Lines<'a> {
    console: &'a Console,
    raw: bool,
    open: BTreeMap<String, Vec<u8>>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(console: &'a Console, raw: bool) -> Self {
        Self {
            console,
            raw,
            open: BTreeMap::new(),
        }
    }

    /// Writes a chunk of a task, or keeps what is no whole line yet.
    pub(super) fn write(&mut self, task: &str, chunk: &[u8]) -> Result<(), Failure> {
        if self.raw {
            return self.console.raw(chunk);
        }
        let open = self.open.entry(task.to_owned()).or_default();
        let mut out = Vec::new();
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            open.extend_from_slice(part);
            if part.ends_with(b"\n") || open.len() >= LINE_BYTES_MAX {
                push(&mut out, self.console, task, open);
                open.clear();
            }
        }
        self.console.raw(&out)
    }

    /// Writes what has no end of line.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        for (task, open) in std::mem::take(&mut self.open) {
            if !open.is_empty() {
                let mut out = Vec::new();
                push(&mut out, self.console, &task, &open);
                self.console.raw(&out)?;
            }
        }
        Ok(())
    }
}

fn push(out: &mut Vec<u8>, console: &Console, task: &str, line: &[u8]) {
    out.extend_from_slice(console.paint(Colour::Cyan, task).as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
    out.push(b'\n');
}
