//! The tools inside a task: they write the files of its contract, and know what these say. No NATS, no rights.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use air_protocol::approval::Reply;
use air_protocol::codec;
use air_protocol::limits::{QUESTION_CHARS_MAX, SUBTASKS_BYTES_MAX, SUBTASKS_MAX};
use air_protocol::names::{JobName, TaskId};
use rmcp::model::JsonObject;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::order::{Caller, Order, orders};
use super::tools::{LISTED_MAX, PROGRESS_CHARS_MAX};

/// What a call is answered when the agent was to end.
const ASKED: &str = "you have asked a person, and this task pauses now: end your turn without another tool call; go on when you have the answer";

/// One task, from within.
#[derive(Debug)]
pub(super) struct Inside {
    job: Option<JobName>,
    /// `<job>/<task>`.
    scope: String,
    tasks: PathBuf,
    needs: Option<PathBuf>,
    question: Option<PathBuf>,
    replies: Option<PathBuf>,
    queued: Mutex<Queued>,
}

/// What stands in the file of sub-tasks, as far as it was read: a short name of each task's content.
#[derive(Debug, Default)]
struct Queued {
    known: BTreeMap<(JobName, TaskId), [u8; 8]>,
    order: Vec<(JobName, TaskId)>,
    lines: u64,
    read_to: u64,
    /// A line that has no end yet.
    open: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asks {
    question: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reads {
    task: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    #[serde(default)]
    after: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reports {
    message: String,
    #[serde(default)]
    percent: Option<f64>,
}

/// The arguments of a tool.
///
/// # Errors
/// What is wrong with them.
pub(super) fn arguments<T: for<'de> Deserialize<'de>>(arguments: JsonObject) -> Result<T, String> {
    serde_json::from_value(Value::Object(arguments)).map_err(|error| error.to_string())
}

impl Inside {
    /// From the environment of the task.
    pub(super) fn new(tasks: PathBuf, var: impl Fn(&str) -> Option<OsString>) -> Self {
        let text = |name: &str| var(name).and_then(|value| value.into_string().ok());
        let path = |name: &str| var(name).map(PathBuf::from);
        let job = text("AIR_JOB");
        let scope = [job.clone(), text("AIR_TASK")].map(Option::unwrap_or_default);
        Self {
            job: job.and_then(|job| job.parse().ok()),
            scope: scope.join("/"),
            tasks,
            needs: path("AIR_NEEDS"),
            question: path("AIR_QUESTION"),
            replies: path("AIR_REPLIES"),
            queued: Mutex::default(),
        }
    }

    /// Calls a tool; none when there is no such tool.
    pub(super) fn call(
        &self,
        tool: &str,
        arguments: JsonObject,
        call: Option<String>,
    ) -> Option<Result<String, String>> {
        Some(match tool {
            "queue_task" => self.queue(false, arguments, call),
            "queue_tasks" => self.queue(true, arguments, call),
            "list_tasks" => self.list(arguments),
            "read_result" => self.read_result(arguments),
            "report_progress" => report(arguments),
            "ask_human" => self.ask(arguments),
            _ => return None,
        })
    }

    fn queue(
        &self,
        many: bool,
        arguments: JsonObject,
        call: Option<String>,
    ) -> Result<String, String> {
        if self.asked().is_some() {
            return Err(ASKED.to_owned());
        }
        let caller = Caller {
            scope: self.scope.clone(),
            call,
        };
        let own = self.job.as_ref();
        let orders = orders(many, arguments, own, &caller)?;
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = queued.catch_up(&self.tasks, own)?;
        let fresh = queued.fresh(&orders)?;
        let mut lines = Vec::new();
        if queued.open {
            lines.push(b'\n');
        }
        for order in &fresh {
            lines.extend(&order.json);
            lines.push(b'\n');
        }
        if !fresh.is_empty() {
            // One write of whole lines: processes of the task may append at the same time.
            file.write_all(&lines)
                .map_err(|error| format!("AIR_TASKS cannot be written: {error}"))?;
        }
        let already = orders.len() - fresh.len();
        drop(queued);
        let named = |order: &Order| json!({"job": order.job, "task": order.id});
        let named: Vec<_> = orders.iter().map(named).collect();
        Ok(json!({"queued": named, "were_queued_already": already}).to_string())
    }

    fn list(&self, arguments_: JsonObject) -> Result<String, String> {
        let Lists { after } = arguments(arguments_)?;
        let mut needs = self.needs()?;
        for need in needs.values_mut() {
            *need = need.get("status").cloned().unwrap_or_default();
        }
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        queued.catch_up(&self.tasks, self.job.as_ref())?;
        let shown = queued.order.iter().skip(after).take(LISTED_MAX);
        let shown: Vec<_> = shown
            .map(|(job, task)| json!({"job": job, "task": task}))
            .collect();
        let all = queued.order.len();
        Ok(json!({"needs": needs, "queued_by_this_task": shown, "queued_in_all": all}).to_string())
    }

    fn read_result(&self, arguments_: JsonObject) -> Result<String, String> {
        let Reads { task } = arguments(arguments_)?;
        let needs = self.needs()?;
        match needs.get(&task) {
            Some(result) => Ok(result.to_string()),
            None => {
                let names: Vec<_> = needs.keys().map(String::as_str).collect();
                let names = if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                };
                Err(format!(
                    "`{task}` is no task that this one needs; it needs: {names}. To work with the result of another task, queue a task that needs it"
                ))
            }
        }
    }

    fn needs(&self) -> Result<serde_json::Map<String, Value>, String> {
        match &self.needs {
            Some(path) => json_file(path, "AIR_NEEDS"),
            None => Ok(serde_json::Map::new()),
        }
    }

    /// The question that was asked in this attempt.
    fn asked(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.question.as_ref()?).ok()?;
        (!text.trim().is_empty()).then_some(text)
    }

    fn ask(&self, arguments_: JsonObject) -> Result<String, String> {
        let Asks { question } = arguments(arguments_)?;
        let question = question.trim();
        let chars = question.chars().count();
        if chars == 0 || chars > QUESTION_CHARS_MAX {
            return Err(format!(
                "`question` has {chars} characters; give 1 to {QUESTION_CHARS_MAX}"
            ));
        }
        let path = (self.question.as_ref())
            .ok_or("nobody can be asked from here: AIR_QUESTION is not set")?;
        let replies: Vec<Reply> = match &self.replies {
            Some(path) => json_file(path, "AIR_REPLIES")?,
            None => Vec::new(),
        };
        let known = replies
            .iter()
            .rev()
            .find(|reply| reply.question.as_deref() == Some(question));
        if let Some(reply) = known {
            return Ok(format!("It was answered before: {}", reply.text));
        }
        match self.asked() {
            Some(before) if before == question => {}
            Some(_) => return Err(ASKED.to_owned()),
            None => write_whole(path, question)
                .map_err(|error| format!("AIR_QUESTION cannot be written: {error}"))?,
        }
        Ok("The question is kept. End your turn now, without another tool call: the task pauses until a person answers, and you go on with the answer.".to_owned())
    }
}

fn report(arguments_: JsonObject) -> Result<String, String> {
    let Reports { message, percent } = arguments(arguments_)?;
    let chars = message.trim().chars().count();
    if chars == 0 || chars > PROGRESS_CHARS_MAX {
        return Err(format!(
            "`message` has {chars} characters; give 1 to {PROGRESS_CHARS_MAX}"
        ));
    }
    if percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
        return Err("`percent` is not between 0 and 100".to_owned());
    }
    let line: String = message
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let percent = percent.map_or_else(String::new, |percent| format!(" ({percent}%)"));
    // Most clients hand this through to their own output; the log has it either way, as a call of the tool.
    eprintln!("progress{percent}: {line}");
    Ok("noted".to_owned())
}

fn json_file<T: for<'de> Deserialize<'de> + Default>(path: &Path, name: &str) -> Result<T, String> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| format!("{name} cannot be understood: {error}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(format!("{name} cannot be read: {error}")),
    }
}

/// A file that is there as a whole, or not at all.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text)?;
    std::fs::rename(beside, path)
}

fn content(line: &[u8]) -> [u8; 8] {
    let digest = Sha256::digest(line);
    let mut short = [0; 8];
    short.copy_from_slice(&digest[..8]);
    short
}

impl Queued {
    /// Reads what was appended since, by whomever; gives the file, to append to.
    fn catch_up(&mut self, path: &Path, own: Option<&JobName>) -> Result<File, String> {
        let failed = |error: std::io::Error| format!("AIR_TASKS cannot be read: {error}");
        let mut file = std::fs::OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(failed)?;
        let end = file.metadata().map_err(failed)?.len();
        if end < self.read_to {
            *self = Self::default();
        }
        if end > SUBTASKS_BYTES_MAX {
            return Err(format!(
                "this task has queued {end} bytes of tasks, and {SUBTASKS_BYTES_MAX} are the most; let the tasks that are queued queue more"
            ));
        }
        file.seek(SeekFrom::Start(self.read_to)).map_err(failed)?;
        let mut more = Vec::new();
        (&file)
            .take(end - self.read_to)
            .read_to_end(&mut more)
            .map_err(failed)?;
        let whole = more.iter().rposition(|byte| *byte == b'\n');
        let whole = whole.map_or(0, |at| at + 1);
        self.open = whole < more.len();
        self.read_to += whole as u64;
        for line in more[..whole].split(|byte| *byte == b'\n') {
            self.learn(line, own);
        }
        Ok(file)
    }

    /// What somebody wrote that is no task fails the attempt in the end, and is not our trouble now.
    fn learn(&mut self, line: &[u8], own: Option<&JobName>) {
        if line.trim_ascii().is_empty() {
            return;
        }
        self.lines += 1;
        let task = serde_json::from_slice(line)
            .ok()
            .and_then(|value| codec::task_of(value).ok());
        let named = task.and_then(|task| Some((task.job.or_else(|| own.cloned())?, task.id?)));
        if let Some(named) = named {
            self.order.push(named.clone());
            self.known.insert(named, content(line));
        }
    }

    /// Those of the orders that do not stand in the file yet.
    fn fresh<'a>(&self, orders: &'a [Order]) -> Result<Vec<&'a Order>, String> {
        let mut fresh: Vec<&Order> = Vec::new();
        let mut of_call = BTreeMap::new();
        for order in orders {
            let named = (order.job.clone(), order.id.clone());
            let now = content(&order.json);
            let before = self.known.get(&named).or_else(|| of_call.get(&named));
            match before {
                None => {
                    fresh.push(order);
                    of_call.insert(named, now);
                }
                Some(before) if *before == now => {}
                Some(_) => {
                    return Err(format!(
                        "the id `{}` belongs to another task that was queued before; choose another one; nothing was queued",
                        order.id
                    ));
                }
            }
        }
        if self.lines + fresh.len() as u64 > SUBTASKS_MAX as u64 {
            return Err(format!(
                "this task has queued {} tasks, and {SUBTASKS_MAX} are the most; let the tasks that are queued queue more",
                self.lines
            ));
        }
        Ok(fresh)
    }
}
