//! `airx verify`: proves or refutes from the history alone that the invariants hold, for one job or for all.
//!
//! It changes nothing, and holds no history: `read` takes it page by page to the checker in
//! [`air_protocol::verify`], `again` looks again at what seems wrong, `report` shows it.

mod again;
mod read;
mod report;

use std::collections::BTreeSet;

use air_nats::Nats;
use air_protocol::names::JobName;
use air_protocol::verify::{Accounts, Families, Findings};

use self::report::Report;
use crate::app::App;
use crate::progress::Progress;
use crate::{Exit, Failure};

/// Options of `airx verify`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It reads keys, records, queues, schedules and events, and changes nothing. Each invariant is proven,\n\
    refuted, or not proven, which is no violation: something that would prove it is not there.\n\
    A job that is still working is checked as far as it has gone.\n\n\
    Exit codes: 0 nothing is refuted, 1 something is (with --strict also: something is not proven)."
)]
pub struct Args {
    /// Only this job, with the jobs into which its tasks queued others
    pub job: Option<JobName>,
    /// Exit code 1 also when something is not proven; I6 apart, which cannot be
    #[arg(long)]
    pub strict: bool,
}

/// Tries to read a job whose key changes while it is being read.
const TRIES: u32 = 3;
/// Parents without a record that are looked for.
const PARENTS_MAX: usize = 10_000;

/// Checks the history.
///
/// # Errors
/// There is no such job, or NATS does not answer.
pub async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let nats = app.nats().await?;
    let progress = Progress::new(&app.console, "verifying");
    let mut report = Report::new();
    let mut families = Families::new(args.job.clone());
    let managed = is_managed(&nats).await?;
    let mut verify = Verify {
        nats: &nats,
        managed,
        accounts: Accounts::new(nats.accounts().await?),
        progress: &progress,
    };
    match &args.job {
        Some(job) => {
            if !verify.job(job, &mut families, &mut report).await? {
                return Err(Failure::NoJob(job.clone()));
            }
            verify.kin(job, &mut families).await?;
        }
        None => {
            let jobs = nats.job_names().await?;
            let all = jobs.len() as u64;
            for (done, job) in (0..).zip(jobs) {
                progress.show(done, all, job.as_str());
                verify.job(&job, &mut families, &mut report).await?;
            }
        }
    }
    let mut findings = Findings::default();
    again::parents(&nats, &mut families, &mut findings).await?;
    families.end(&mut findings);
    again::accounts(&nats, &verify.accounts, &mut findings).await?;
    report.findings.merge(findings);
    drop(progress);
    report.show(app, nats.names())?;
    Ok(if report.is_bad(args.strict) {
        Exit::Failed
    } else {
        Exit::Done
    })
}

/// Whether managers are alive. Their bucket is in memory: a server that was restarted has none.
async fn is_managed(nats: &Nats) -> Result<bool, Failure> {
    match nats.managers().await.map_err(Failure::from) {
        Ok(managers) => Ok(!managers.is_empty()),
        Err(Failure::NoStreams) => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// What checking a job needs.
struct Verify<'a> {
    nats: &'a Nats,
    managed: bool,
    /// What records say of the accounts of budgets.
    accounts: Accounts,
    progress: &'a Progress,
}

impl Verify<'_> {
    /// Checks one job; false when there is nothing of it.
    async fn job(
        &mut self,
        job: &JobName,
        families: &mut Families,
        report: &mut Report,
    ) -> Result<bool, Failure> {
        for left in (0..TRIES).rev() {
            // A history that is read anew would tell its families twice.
            let mut own = Families::new(families.only().cloned());
            let (mut read, now) = self.read(job, &mut own).await?;
            let lags = again::lags(self.nats, &read.check).await?;
            if (lags || read.check.is_outdated(&now)) && left > 0 {
                continue;
            }
            if lags {
                read.check.lags();
            }
            if !read.is_there(&now) {
                return Ok(false);
            }
            families.merge(own);
            self.accounts.charge(std::mem::take(&mut read.charges));
            again::suspects(self.nats, job, &mut read).await?;
            report.add(job, &now, read);
            break;
        }
        Ok(true)
    }

    /// Looks for the sub-tasks that the job queued elsewhere.
    async fn kin(&self, job: &JobName, families: &mut Families) -> Result<(), Failure> {
        let elsewhere: BTreeSet<_> = families.elsewhere().clone();
        for other in elsewhere.iter().filter(|other| *other != job) {
            self.progress.show(0, 0, &format!("sub-tasks in {other}"));
            read::kin(self.nats, other, families).await?;
        }
        Ok(())
    }
}
