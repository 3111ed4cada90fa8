//! `airx doctor`: says what is wrong, and how to mend it. It changes nothing.

mod jobs;

use std::time::Duration;

use air_nats::Nats;
use air_nats::topology::Outcome;
use serde::Serialize;

use crate::app::{App, count, now, short};
use crate::table::Table;
use crate::verbs::init::{mend, outcome};
use crate::{Exit, Failure};

/// Options of `airx doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 nothing is wrong, 1 something is.")]
pub struct Args {}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    check: Level,
    about: String,
    found: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mend: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    /// Worth knowing.
    Note,
    /// Needs a look.
    Warning,
    /// Does not work.
    Wrong,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Wrong => "wrong",
        }
    }
}

fn check(check: Level, about: &str, found: impl Into<String>, mend: impl Into<String>) -> Check {
    Check {
        check,
        about: about.to_owned(),
        found: found.into(),
        mend: mend.into(),
    }
}

/// Looks at everything.
///
/// # Errors
/// The options make no sense, or nobody reads.
pub async fn run(_: &Args, app: &App) -> Result<Exit, Failure> {
    let checks = match app.nats().await {
        Ok(nats) => examine(&nats, app).await?,
        Err(failure @ Failure::Connect(_)) => {
            vec![check(Level::Wrong, "server", failure.to_string(), "")]
        }
        Err(failure) => return Err(failure),
    };
    app.console.data(&checks, || {
        let mut table = Table::new(&["CHECK", "ABOUT", "FOUND"]);
        for one in &checks {
            let mend = if one.mend.is_empty() {
                String::new()
            } else {
                format!("; {}", one.mend)
            };
            table.row([
                one.check.as_str().into(),
                one.about.clone(),
                format!("{}{mend}", one.found),
            ]);
        }
        app.console.table(&table)
    })?;
    let wrong = checks.iter().any(|one| one.check == Level::Wrong);
    Ok(if wrong { Exit::Failed } else { Exit::Done })
}

async fn examine(nats: &Nats, app: &App) -> Result<Vec<Check>, Failure> {
    let url = app.options()?.url().to_owned();
    let mut checks = vec![check(
        Level::Ok,
        "server",
        format!("nats-server {} at {url}", nats.server_version()),
        "",
    )];
    if !topology(nats, &mut checks).await {
        return Ok(checks);
    }
    // What cannot be read is told, and the rest is looked at all the same.
    let looked = [
        clock(nats).await,
        managers(nats).await,
        jobs::look(nats).await,
    ];
    for part in looked {
        match part {
            Ok(more) => checks.extend(more),
            Err(failure) => checks.push(check(Level::Wrong, "reading", failure.to_string(), "")),
        }
    }
    let tasks = nats.names().all_tasks();
    checks.push(check(
        Level::Note,
        "write access",
        format!("whoever may publish to {tasks} is fully trusted: a task runs commands, and the header Nats-Rollup wipes the stream"),
        "separate tenants by NATS accounts",
    ));
    Ok(checks)
}

/// Streams and buckets; false when the rest cannot be looked at.
async fn topology(nats: &Nats, checks: &mut Vec<Check>) -> bool {
    let found = match nats.init(None, false).await {
        Ok(found) => found,
        Err(error) => {
            checks.push(check(Level::Wrong, "JetStream", error.to_string(), ""));
            return false;
        }
    };
    checks.push(check(Level::Ok, "JetStream", "it answers", ""));
    let mut there = true;
    for one in &found {
        match &one.outcome {
            Outcome::Same | Outcome::Created => {}
            Outcome::Missing => {
                let by_managers = nats.is_made_by_managers(one);
                let level = if by_managers {
                    Level::Note
                } else {
                    Level::Wrong
                };
                checks.push(check(
                    level,
                    &one.name,
                    format!("missing: {}", one.purpose),
                    mend(one),
                ));
                there &= by_managers;
            }
            Outcome::Differs(_) => {
                let (_, differences) = outcome(&one.outcome);
                checks.push(check(
                    Level::Wrong,
                    &one.name,
                    differences.join("; "),
                    mend(one),
                ));
            }
        }
    }
    let same = found
        .iter()
        .filter(|one| one.outcome == Outcome::Same)
        .count() as u64;
    checks.push(check(
        Level::Ok,
        "streams",
        format!("{} as they should be", count(same, "object")),
        "",
    ));
    there
}

/// The most by which clocks may differ before times in tables mislead.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(2);

async fn clock(nats: &Nats) -> Result<Vec<Check>, Failure> {
    let before = now();
    let server = nats.server_time().await?;
    let after = now();
    let difference = before.since(server).max(server.since(after));
    let text = format!(
        "this machine and the server differ by {}",
        short(difference)
    );
    Ok(vec![if difference > CLOCK_DIFFERENCE_MAX {
        check(
            Level::Warning,
            "clock",
            text,
            "leases do not depend on it, but ages and retries do: synchronise the clocks",
        )
    } else {
        check(Level::Ok, "clock", text, "")
    }])
}

async fn managers(nats: &Nats) -> Result<Vec<Check>, Failure> {
    let managers = nats.managers().await?;
    if managers.is_empty() {
        return Ok(vec![check(
            Level::Wrong,
            "managers",
            "none runs, so no task starts",
            "start one with `airx manager`",
        )]);
    }
    let (mut runners, mut most) = (0, 0);
    for one in &managers {
        runners += one.runners;
        most += one.runners_max;
    }
    let mut checks = vec![check(
        Level::Ok,
        "managers",
        format!(
            "{}, {runners} of {most} runners",
            count(managers.len() as u64, "manager")
        ),
        "",
    )];
    let own = env!("CARGO_PKG_VERSION");
    for other in managers.iter().filter(|one| one.version != own) {
        checks.push(check(
            Level::Note,
            "managers",
            format!(
                "{} is version {}, this is {own}",
                other.manager, other.version
            ),
            "",
        ));
    }
    Ok(checks)
}
