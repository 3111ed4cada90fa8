//! The verbs: one file each, with its options and what it does.

pub mod answer;
pub mod approve;
pub mod cancel;
pub mod completions;
pub mod dev;
pub mod doctor;
pub mod events;
pub mod export;
pub mod init;
pub mod logs;
pub mod man;
pub mod manager;
pub mod mcp;
pub mod pause;
pub mod reject;
pub mod resume;
pub mod retry;
pub mod rm;
pub mod show;
pub mod spec;
pub mod status;
pub mod submit;
pub mod task;
pub mod tasks;
pub mod verify;
pub mod wait;

use crate::app::App;
use crate::args::Verb;
use crate::{Exit, Failure};

/// Runs a verb.
///
/// # Errors
/// Why it did not do what it was asked to do.
pub async fn run(verb: Verb, app: &App) -> Result<Exit, Failure> {
    match verb {
        Verb::Dev(args) => dev::run(args, app).await,
        Verb::Init(args) => init::run(&args, app).await,
        Verb::Doctor(args) => doctor::run(&args, app).await,
        Verb::Manager(args) => manager::run(args, app).await,
        Verb::Submit(args) => submit::run(args, app).await,
        Verb::Spec(args) => spec::run(&args, app).await,
        Verb::Status(args) => status::run(&args, app).await,
        Verb::Tasks(args) => tasks::run(&args, app).await,
        Verb::Show(args) => show::run(&args, app).await,
        Verb::Logs(args) => logs::run(&args, app).await,
        Verb::Events(args) => events::run(&args, app).await,
        Verb::Wait(args) => wait::run(&args, app).await,
        Verb::Cancel(args) => cancel::run(&args, app).await,
        Verb::Retry(args) => retry::run(&args, app).await,
        Verb::Approve(args) => approve::run(&args, app).await,
        Verb::Reject(args) => reject::run(&args, app).await,
        Verb::Answer(args) => answer::run(&args, app).await,
        Verb::Pause(args) => pause::run(&args, app).await,
        Verb::Resume(args) => resume::run(&args, app).await,
        Verb::Rm(args) => rm::run(&args, app).await,
        Verb::Task(args) => task::run(args, app),
        Verb::Mcp(args) => mcp::run(&args, app).await,
        Verb::Export(args) => export::run(&args, app).await,
        Verb::Verify(args) => verify::run(&args, app).await,
        Verb::Completions(args) => completions::run(&args, app),
        Verb::Man(args) => man::run(&args, app),
    }
}
