//! The command line as a whole: global options, and the verbs, whose options stand in their own files.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::Exit;
use crate::console::Format;
use crate::context::Flags;
use crate::verbs;

/// Durable jobs of tasks on NATS: submit them, follow them, run what runs them
#[derive(Debug, Parser)]
#[command(name = "airx", version, max_term_width = 100)]
#[command(
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Options of every verb.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Addresses of NATS servers, with commas between [env: NATS_URL] [default: nats://127.0.0.1:4222]
    #[arg(short, long, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// File with credentials [env: NATS_CREDS]
    #[arg(long, global = true, value_name = "FILE")]
    pub creds: Option<PathBuf>,
    /// Context of the nats command line [env: NATS_CONTEXT] [default: the selected one]
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Prefix of the installation's names [env: AIR_PREFIX] [default: air]
    #[arg(long, global = true, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// Format of data on stdout
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "table"
    )]
    #[arg(value_parser = PossibleValuesParser::new(["table", "json", "yaml"]).try_map(|word| Format::parse(&word)))]
    pub output: Format,
}

impl Global {
    /// What they say about the connection.
    pub fn flags(&self) -> Flags {
        Flags {
            server: self.server.clone(),
            creds: self.creds.clone(),
            context: self.context.clone(),
            prefix: self.prefix.clone(),
        }
    }
}

/// The verbs, in the order in which people meet them.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum Verb {
    /// Everything on one machine: a NATS server and a manager, state kept in a folder
    Dev(verbs::dev::Args),
    /// Make the streams and buckets, or compare those that exist
    Init(verbs::init::Args),
    /// Say what is wrong, and how to mend it
    Doctor(verbs::doctor::Args),
    /// Run one manager: it starts a runner for each task
    Manager(verbs::manager::Args),
    /// Queue tasks
    Submit(verbs::submit::Args),
    /// Show or change what a job is told: limits, retries, policy
    Spec(verbs::spec::Args),
    /// Show all jobs, or one in detail
    Status(verbs::status::Args),
    /// Show the tasks of a job
    Tasks(verbs::tasks::Args),
    /// Show one task: attempts, result, output
    Show(verbs::show::Args),
    /// Show what tasks printed
    Logs(verbs::logs::Args),
    /// Show what happened
    Events(verbs::events::Args),
    /// Wait until a job is over
    Wait(verbs::wait::Args),
    /// Cancel jobs, or tasks of a job
    Cancel(verbs::cancel::Args),
    /// Run failed and cancelled tasks again
    Retry(verbs::retry::Args),
    /// Let tasks run that wait for approval
    Approve(verbs::approve::Args),
    /// Fail tasks that wait for a person
    Reject(verbs::reject::Args),
    /// Answer the question of a task
    Answer(verbs::answer::Args),
    /// Start no further task of a job
    Pause(verbs::pause::Args),
    /// Go on with a paused job, or with a failed one without its failed tasks
    Resume(verbs::resume::Args),
    /// Remove jobs with all that is kept of them
    Rm(verbs::rm::Args),
    /// Inside a task: queue sub-tasks, committed with the task
    Task(verbs::task::Args),
    /// Serve tools by MCP, by which agents queue tasks, read results and ask people
    Mcp(verbs::mcp::Args),
    /// Write all that is known of a job
    Export(verbs::export::Args),
    /// Prove or refute from the history alone that what must always hold does
    Verify(verbs::verify::Args),
    /// Write the completions for a shell
    Completions(verbs::completions::Args),
    /// Write the manual pages
    Man(verbs::man::Args),
}

impl Verb {
    /// Whether the verb itself knows how to end at Ctrl-C.
    pub fn ends_itself(&self) -> bool {
        match self {
            Self::Dev(_) | Self::Manager(_) => true,
            Self::Spec(args) => args.asks_an_editor(),
            _ => false,
        }
    }
}

/// The command line, as `clap` knows it.
pub fn command() -> clap::Command {
    let codes = format!("Exit codes:\n{}", Exit::table());
    Cli::command().after_help(codes)
}
