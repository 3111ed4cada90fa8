//! `airx answer`: answers the question of a task, which goes on with the answer.

use std::io::Read as _;

use air_protocol::limits::REPLY_CHARS_MAX;
use air_protocol::names::{JobName, TaskId};

use crate::app::App;
use crate::reply::{Said, reply};
use crate::{Exit, Failure};

/// Options of `airx answer`.
#[derive(Debug, clap::Args)]
#[command(after_help = "`airx show JOB TASK` shows the question.")]
pub struct Args {
    /// The job
    #[arg(value_name = "JOB")]
    pub job: JobName,
    /// The task that asks
    #[arg(value_name = "TASK")]
    pub task: TaskId,
    /// The answer; - reads it from standard input
    #[arg(value_name = "TEXT")]
    pub text: String,
}

/// Answers.
///
/// # Errors
/// A task that is not there, or that asks nothing.
pub async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let text = match args.text.as_str() {
        "-" => stdin()?,
        text => text.to_owned(),
    };
    if text.trim().is_empty() {
        return Err(Failure::Usage(
            "the answer is empty; say something".to_owned(),
        ));
    }
    let tasks = std::slice::from_ref(&args.task);
    reply(app, &args.job, tasks, Said::Answer(&text)).await
}

fn stdin() -> Result<String, Failure> {
    let mut text = String::new();
    // One character more than may be, at most 4 bytes each: what is too long is told as such.
    let most = 4 * (REPLY_CHARS_MAX as u64 + 1);
    std::io::stdin()
        .take(most)
        .read_to_string(&mut text)
        .map_err(Failure::io("read the answer from standard input"))?;
    Ok(text.trim_end().to_owned())
}
