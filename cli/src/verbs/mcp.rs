//! `airx mcp`: an MCP server on standard input and output, by which an agent queues tasks, reads results and asks people.
//!
//! Inside a task it needs no NATS and has no rights of its own: what it does is in the files of the task's contract
//! (`inside`), so that it is committed with the task, or not at all. Elsewhere it works over NATS with the rights of
//! whoever started it (`outside`). `tools` says what there is, `server` speaks the protocol, `order` reads tasks.

use rmcp::ServiceExt as _;
use rmcp::transport::io::stdio_pipes;

use crate::app::App;
use crate::{Exit, Failure, logging};

mod inside;
mod order;
mod outside;
mod server;
mod tools;

use server::{Server, Side};

/// Options of `airx mcp`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "An MCP client starts it, for instance: claude mcp add air -- airx mcp\n\
    Inside a task (where AIR_TASKS is set) the tools write the files of the task, and have no access to NATS."
)]
pub struct Args {
    /// Work over NATS inside a task too, with the rights that options, environment or context give
    #[arg(long)]
    pub nats: bool,
}

/// Serves until the client closes standard input.
///
/// # Errors
/// There is no NATS outside a task, or the client does not speak MCP.
pub async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    // Standard output belongs to the protocol.
    logging::start("error");
    let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let side = match var("AIR_TASKS") {
        Some(tasks) if !args.nats => Side::Inside(inside::Inside::new(tasks.into(), var)),
        _ => Side::Outside(outside::Outside::new(app.nats().await?)),
    };
    let failed = |error: &dyn std::fmt::Display| Failure::Refused(format!("MCP: {error}"));
    let service = match Server::new(side).serve(stdio_pipes()).await {
        Ok(service) => service,
        // The client went away before it said anything.
        Err(rmcp::service::ServerInitializeError::ConnectionClosed(_)) => return Ok(Exit::Done),
        Err(error) => return Err(failed(&error)),
    };
    service.waiting().await.map_err(|error| failed(&error))?;
    Ok(Exit::Done)
}
