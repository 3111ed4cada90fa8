//! From a task to a program: arguments, environment, folder, and the files with input and needs.

use std::ffi::OsString;
use std::path::PathBuf;

use air_nats::Error;
use air_protocol::limits::LOG_BYTES_MAX;
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::Record;
use air_protocol::task::{Task, Work};
use serde_json::{Map, Value, json};

use crate::clock;
use crate::execute::workdir::{Facts, Workdir, environment};
use crate::execute::{Memory, Program};
use crate::hold::{Hold, STALE_MAX};
use crate::look::Found;
use crate::patience::{Patience, again, for_a_while};

/// The program of a task in its folder.
pub(crate) fn program(hold: &Hold, found: &Found, task: &Task, workdir: &Workdir) -> Program {
    let env = found.spec.env_of(task);
    let runner = hold.runner.to_string();
    let facts = Facts {
        job: hold.job.as_str(),
        task: hold.target.task.as_str(),
        attempt: hold.target.attempt.into(),
        runner: &runner,
        fence: hold.fence,
        traceparent: found.queued.traceparent.as_deref(),
        env: &env,
    };
    Program {
        argv: argv(&task.work),
        env: environment(&facts, workdir, |name| std::env::var_os(name)),
        stdin: None,
        stderr: None,
        cwd: (task.cwd.as_ref()).map_or_else(|| workdir.path().to_owned(), PathBuf::from),
        timeout: found.spec.timeout_of(task),
        grace: hold.times.grace,
        output_bytes_max: LOG_BYTES_MAX,
        memory: Memory::from_env(|name| std::env::var_os(name)),
    }
}

fn argv(work: &Work) -> Vec<OsString> {
    match work {
        Work::Run(line) => vec!["/bin/sh".into(), "-c".into(), line.into()],
        Work::Exec(argv) => argv.iter().map(OsString::from).collect(),
        // The one has its own command line, see `claude`; the other no program, see `fanout`.
        Work::Claude(_) | Work::Fanout(_) => Vec::new(),
    }
}

/// The text of the file `AIR_INPUT`.
pub(crate) fn input(task: &Task) -> Vec<u8> {
    match &task.input {
        Some(input) => input.to_string().into_bytes(),
        None => b"null".to_vec(),
    }
}

/// The text of the file `AIR_REPLIES`.
pub(crate) fn replies(found: &Found) -> Vec<u8> {
    serde_json::to_vec(found.replies()).unwrap_or_else(|_| b"[]".to_vec())
}

/// The text of the file `AIR_NEEDS`: what became of each task that this one needs.
pub(crate) async fn needs(hold: &Hold, task: &Task) -> Result<Vec<u8>, Error> {
    let mut all = Map::new();
    if !task.needs.is_empty() {
        let name = |need: &air_protocol::task::Need| {
            let job = need.job.clone().unwrap_or_else(|| hold.job.clone());
            (job, need.task.clone())
        };
        let wanted: Vec<_> = task.needs.iter().map(name).collect();
        let records = records(hold, &wanted).await?;
        for (need, name) in task.needs.iter().zip(&wanted) {
            let known = match records.get(name) {
                Some((_, record)) => outcome(hold, record).await?,
                None => Value::Null,
            };
            all.insert(need.to_string(), known);
        }
    }
    Ok(Value::Object(all).to_string().into_bytes())
}

type Records = std::collections::HashMap<(JobName, TaskId), air_nats::records::At>;

/// The last records, by a reply that has seen all that the claim has seen.
async fn records(hold: &Hold, wanted: &[(JobName, TaskId)]) -> Result<Records, Error> {
    let begun = clock::boot();
    let least = hold.last_record().max(hold.target.seq);
    let mut patience = Patience::new();
    loop {
        let lasts = again(async || hold.nats.last_records(&hold.job, wanted).await).await?;
        let is_fresh = lasts.up_to.is_some_and(|up_to| up_to >= least);
        if is_fresh || clock::boot() > begun + STALE_MAX {
            return Ok(lasts.records);
        }
        patience.wait().await;
    }
}

async fn outcome(hold: &Hold, record: &Record) -> Result<Value, Error> {
    let output = match (&record.output, &record.output_blob) {
        (Some(output), _) => output.clone(),
        (None, Some(name)) => {
            let blob = for_a_while(async || hold.nats.get_blob(name).await).await?;
            let value = blob.as_deref().map(serde_json::from_slice);
            value.and_then(Result::ok).unwrap_or_default()
        }
        (None, None) => Value::Null,
    };
    let mut told = json!({
        "status": record.status.as_str(),
        "output": output,
        "exit": record.exit,
        "error": record.error,
    });
    // Of an agent's work alone.
    if let Some(cost) = &record.cost {
        told["cost"] = json!(cost);
    }
    Ok(told)
}
