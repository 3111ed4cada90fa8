//! Reads what a task wrote to `AIR_TASKS`, and splits it into what one atomic batch holds.
//!
//! A first pass validates every line and keeps the first page; the lines of further pages are read
//! again when their pages are made, so that memory holds one page at a time.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek as _, SeekFrom};
use std::path::Path;

use air_nats::commit::NewTask;
use air_protocol::budget::Leash;
use air_protocol::codec;
use air_protocol::limits::{
    BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, CHILDREN_MAX, SUBTASKS_BYTES_MAX, SUBTASKS_MAX,
    TASK_BYTES_MAX,
};
use air_protocol::names::{JobName, TaskId};
use air_protocol::spec::Wire;
use air_protocol::task::{Task, Work};
use serde_json::Value;
use uuid::Uuid;

use crate::files;

/// Tasks of one page: what a batch holds, less the record and the next fan-out.
pub(crate) const PAGE_TASKS_MAX: usize = BATCH_MESSAGES_MAX - 2;
/// Bytes of one line: a task with room for what its author need not write.
const LINE_BYTES_MAX: u64 = TASK_BYTES_MAX as u64;
/// Lines after which everything else has its turn.
const LINES_AT_ONCE: u64 = 256;

/// The sub-tasks of an attempt.
#[derive(Debug, Default)]
pub struct Family {
    /// Those that go with the record.
    pub tasks: Vec<NewTask>,
    /// All of them, with those that wait in a fan-out.
    pub count: u64,
    /// Other jobs that get some.
    pub jobs: Vec<JobName>,
    /// Where the rest begins in the file; none when all fit.
    pub rest: Option<Place>,
}

/// A place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    offset: u64,
    /// Number of the line before it.
    line: u64,
}

impl Place {
    const START: Self = Self { offset: 0, line: 0 };
}

/// Whose sub-tasks they are.
#[derive(Debug, Clone, Copy)]
pub struct Parent<'a> {
    /// The job; sub-tasks that name none go into it as well.
    pub job: &'a JobName,
    /// The task.
    pub task: &'a TaskId,
    /// What pays for them, and how deep they stand.
    pub leash: &'a Leash,
    /// Its trace context, which sub-tasks go on with.
    pub traceparent: Option<&'a str>,
    /// The codec of its job.
    pub wire: Wire,
}

/// A page of a fan-out, or the part of a family that goes with its record.
#[derive(Debug, Default)]
pub struct Page {
    /// The tasks with their ids, each with the job it goes to.
    pub tasks: Vec<(JobName, Task)>,
    bytes: usize,
}

impl Page {
    fn has_room(&self, tasks_max: usize, bytes: usize) -> bool {
        self.tasks.len() < tasks_max && self.bytes + bytes <= BATCH_BYTES_MAX
    }

    /// The page as a blob: one task in JSON a line.
    pub fn to_lines(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for (job, task) in &self.tasks {
            let mut task = task.clone();
            task.job = Some(job.clone());
            text.extend(codec::encode(Wire::Json, &task));
            text.push(b'\n');
        }
        text
    }
}

/// Reads the tasks of a page from its blob.
///
/// # Errors
/// What is wrong with it.
pub fn of_lines(blob: &[u8]) -> Result<Vec<(JobName, Task)>, String> {
    let lines = blob
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
            let mut task = codec::task_of(value).map_err(|error| error.to_string())?;
            let job = task.job.take().ok_or("a task names no job")?;
            Ok((job, task))
        })
        .collect()
}

/// A sub-task as its author wrote it.
///
/// # Errors
/// What is wrong with it, and how to mend it.
pub(crate) fn subtask_of(value: Value) -> Result<Task, String> {
    let task = codec::task_of(value).map_err(|error| error.to_string())?;
    if matches!(task.work, Work::Fanout(_)) {
        return Err("`fanout` is written by the system only; give `run` or `exec`".to_owned());
    }
    if let Some(id) = task.id.as_ref().filter(|id| id.sequence().is_some()) {
        return Err(format!(
            "`id` is `{id}`, a form that only the system gives; choose one without the leading _"
        ));
    }
    Ok(task)
}

/// Reads and validates every line of `AIR_TASKS`.
///
/// # Errors
/// What is wrong, with the number of the line; then nothing is queued.
pub(crate) async fn read(path: &Path, parent: Parent<'_>) -> Result<Family, String> {
    match Lines::open(path, Place::START)? {
        Some(lines) => family(lines, parent).await,
        None => Ok(Family::default()),
    }
}

/// What a runner makes of a text in `AIR_TASKS`: the part of the family that goes with its record, and the pages
/// that follow.
///
/// # Errors
/// What is wrong, with the number of the line; then nothing is queued.
pub async fn family_of(text: &[u8], parent: Parent<'_>) -> Result<(Family, Vec<Page>), String> {
    let family = family(Lines::at(text, Place::START), parent).await?;
    let mut pages = Vec::new();
    if let Some(place) = family.rest {
        let from = usize::try_from(place.offset).unwrap_or(usize::MAX);
        let text = text.get(from..).unwrap_or_default();
        let mut rest = Rest::new(Some(Lines::at(text, place)), parent);
        while let Some(page) = rest.next().await? {
            pages.push(page);
        }
    }
    Ok((family, pages))
}

async fn family<R: BufRead>(mut lines: Lines<R>, parent: Parent<'_>) -> Result<Family, String> {
    let mut family = Family::default();
    let mut page = Page::default();
    let mut jobs = BTreeSet::new();
    let mut places = Vec::new();
    while let Some(place) = lines.next().await? {
        let (job, task, bytes) = lines.task(parent)?;
        if job != *parent.job {
            jobs.insert(job.clone());
        }
        family.count += 1;
        if family.count > SUBTASKS_MAX as u64 {
            return Err(lines.bad(&format!(
                "it is one more than the {SUBTASKS_MAX} sub-tasks that one task may queue; \
                 let sub-tasks queue the rest"
            )));
        }
        if family.rest.is_none() {
            if page.has_room(BATCH_MESSAGES_MAX - 1, bytes) {
                page.bytes += bytes;
                page.tasks.push((job, task));
                places.push(place);
            } else {
                // The fan-out needs a place in the batch too.
                family.rest = Some(place);
                while page.tasks.len() > PAGE_TASKS_MAX {
                    page.tasks.pop();
                    family.rest = places.pop();
                }
            }
        }
    }
    family.jobs = jobs.into_iter().take(CHILDREN_MAX).collect();
    let new = |(job, task)| new_task(job, task, &parent);
    family.tasks = page.tasks.into_iter().map(new).collect();
    Ok(family)
}

fn new_task(job: JobName, task: Task, parent: &Parent<'_>) -> NewTask {
    let id = task.id.clone().unwrap_or_else(fresh_id);
    NewTask {
        job,
        id,
        task,
        attempt: 1,
        parent: Some(format!("{}/{}", parent.job, parent.task)),
        leash: parent.leash.clone(),
        traceparent: parent.traceparent.map(str::to_owned),
    }
}

/// The id of a sub-task whose author gave none.
pub(crate) fn fresh_id() -> TaskId {
    let id = Uuid::now_v7();
    let text = id.simple().to_string();
    // Hexadecimal digits are an id; the sequence form is only there for the types.
    text.parse()
        .unwrap_or_else(|_| TaskId::of_sequence(id.as_u64_pair().1))
}

/// The pages after the first, made one by one from the validated file.
pub(crate) struct Rest<'a, R> {
    lines: Option<Lines<R>>,
    parent: Parent<'a>,
    page: Page,
}

impl<'a> Rest<'a, BufReader<File>> {
    pub(crate) fn open(path: &Path, from: Place, parent: Parent<'a>) -> Result<Self, String> {
        Ok(Self::new(Lines::open(path, from)?, parent))
    }
}

impl<'a, R: BufRead> Rest<'a, R> {
    fn new(lines: Option<Lines<R>>, parent: Parent<'a>) -> Self {
        Self {
            lines,
            parent,
            page: Page::default(),
        }
    }

    /// The next page; none after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Page>, String> {
        while let Some(lines) = &mut self.lines {
            if lines.next().await?.is_none() {
                self.lines = None;
                break;
            }
            let (job, task, bytes) = lines.task(self.parent)?;
            let is_full = !self.page.has_room(PAGE_TASKS_MAX, bytes);
            let full = is_full.then(|| std::mem::take(&mut self.page));
            self.page.bytes += bytes;
            self.page.tasks.push((job, task));
            if full.is_some() {
                return Ok(full);
            }
        }
        let last = std::mem::take(&mut self.page);
        Ok((!last.tasks.is_empty()).then_some(last))
    }
}

/// The lines of the file, with their numbers.
struct Lines<R> {
    reader: R,
    at: Place,
    line: Vec<u8>,
}

impl Lines<BufReader<File>> {
    fn open(path: &Path, from: Place) -> Result<Option<Self>, String> {
        let Some(mut file) = files::open(path, "AIR_TASKS")? else {
            return Ok(None);
        };
        let failed = |error: std::io::Error| format!("AIR_TASKS cannot be read: {error}");
        let bytes = file.metadata().map_err(failed)?.len();
        if bytes > SUBTASKS_BYTES_MAX {
            return Err(format!(
                "AIR_TASKS has {bytes} bytes, but {SUBTASKS_BYTES_MAX} are the most; \
                 let sub-tasks queue the rest"
            ));
        }
        file.seek(SeekFrom::Start(from.offset)).map_err(failed)?;
        let reader = BufReader::with_capacity(64 * 1024, file);
        Ok(Some(Self::at(reader, from)))
    }
}

impl<R: BufRead> Lines<R> {
    fn at(reader: R, at: Place) -> Self {
        Self {
            reader,
            at,
            line: Vec::new(),
        }
    }

    /// Goes to the next line that is not blank, and gives the place where it begins.
    async fn next(&mut self) -> Result<Option<Place>, String> {
        loop {
            let place = self.at;
            self.line.clear();
            // A line without an end must not fill the memory.
            let mut limited = std::io::Read::take(&mut self.reader, LINE_BYTES_MAX + 2);
            let count = limited.read_until(b'\n', &mut self.line);
            let count = count.map_err(|error| format!("AIR_TASKS cannot be read: {error}"))?;
            if count == 0 {
                return Ok(None);
            }
            self.at.offset += count as u64;
            self.at.line += 1;
            if self.at.line.is_multiple_of(LINES_AT_ONCE) {
                tokio::task::yield_now().await;
            }
            if self.line.trim_ascii().len() as u64 > LINE_BYTES_MAX {
                return Err(self.bad(&format!(
                    "it has more than {LINE_BYTES_MAX} bytes, which are the most; \
                     hand large input over as a file or address"
                )));
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(Some(place));
            }
        }
    }

    /// The task on this line with the job it goes to, and its size in a batch.
    fn task(&self, parent: Parent<'_>) -> Result<(JobName, Task, usize), String> {
        let value = serde_json::from_slice(&self.line).map_err(|error| self.no_json(&error))?;
        let mut task = subtask_of(value).map_err(|text| self.bad(&text))?;
        let job = task.job.take().unwrap_or_else(|| parent.job.clone());
        task.id = Some(task.id.take().unwrap_or_else(fresh_id));
        let json = codec::encode(Wire::Json, &task).len();
        let bytes = match parent.wire {
            Wire::Json => json,
            wire => json.max(codec::encode(wire, &task).len()),
        };
        if bytes > TASK_BYTES_MAX {
            return Err(self.bad(&format!(
                "with its id it has {bytes} bytes, but {TASK_BYTES_MAX} are the most; \
                 hand large input over as a file or address"
            )));
        }
        Ok((job, task, bytes))
    }

    fn no_json(&self, error: &serde_json::Error) -> String {
        let half = error.is_eof() && !self.line.ends_with(b"\n");
        let hint = if half {
            "it ends in the middle; write whole lines"
        } else {
            "write one task in JSON on each line"
        };
        self.bad(&format!("no JSON (column {}); {hint}", error.column()))
    }

    fn bad(&self, text: &str) -> String {
        format!("AIR_TASKS, line {}: {text}", self.at.line)
    }
}

#[cfg(test)]
mod tests;
