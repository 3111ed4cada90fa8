//! `airx resume`: a paused job goes on, and so does a failed one, without its failed tasks; more can be granted to an
//! account that has not enough left.

use air_nats::Nats;
use air_protocol::budget::{Account, Budget};
use air_protocol::cost::Usd;
use air_protocol::job::Event;
use air_protocol::names::JobName;
use air_protocol::spec::Spec;
use air_protocol::time::Span;

use crate::app::App;
use crate::change::{self, Changed};
use crate::select::{self, Selection};
use crate::{Exit, Failure};

/// Options of `airx resume`.
#[derive(Debug, clap::Args)]
#[command(after_help = "`airx retry` runs the failed tasks again instead.\n\
    What is granted comes on top of the job's budget, for the job and all that its tasks queue.")]
pub struct Args {
    /// Jobs: names, or patterns such as 'build-*'
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,
    /// Which of them.
    #[command(flatten)]
    pub selection: Selection,
    /// What is granted.
    #[command(flatten)]
    pub grant: Grant,
}

/// What is granted beyond a budget.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Grant {
    /// Grant so many more US dollars to the job's budget
    #[arg(long, value_name = "USD")]
    pub budget_usd: Option<Usd>,
    /// Grant so many more tokens
    #[arg(long, value_name = "N")]
    pub budget_tokens: Option<u64>,
    /// Grant so many more turns
    #[arg(long, value_name = "N")]
    pub budget_turns: Option<u64>,
    /// Grant so many more tasks
    #[arg(long, value_name = "N")]
    pub budget_tasks: Option<u64>,
    /// Grant so much more time
    #[arg(long, value_name = "TIME")]
    pub budget_wall: Option<Span>,
}

impl Grant {
    fn budget(self) -> Budget {
        Budget {
            usd: self.budget_usd,
            tokens: self.budget_tokens,
            turns: self.budget_turns,
            tasks: self.budget_tasks,
            depth: None,
            wall: self.budget_wall,
        }
    }
}

/// Lets jobs go on.
///
/// # Errors
/// A job that cannot go on, as one that is being cancelled, or that has no budget to grant more to.
pub async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let nats = app.nats().await?;
    let more = args.grant.budget();
    for job in select::jobs(&nats, &args.jobs, &args.selection).await? {
        let granted = if more.is_nothing() {
            None
        } else {
            Some(grant(&nats, &job, &more).await?)
        };
        let awake = |spec: &Spec| {
            Ok(Spec {
                paused: false,
                ..spec.clone()
            })
        };
        let unpaused = change::spec(&nats, &job, awake).await? == Changed::Yes;
        let resumed = match change::job(&nats, &job, &Event::Resume, false).await {
            Ok(changed) => changed == Changed::Yes,
            // A job without a key is new, or has only a spec: there was nothing to resume but the pause.
            Err(Failure::NoJob(_))
                if unpaused || granted.is_some() || nats.last_queued(&job).await?.is_some() =>
            {
                false
            }
            Err(failure) => return Err(failure),
        };
        let said = match (unpaused, resumed) {
            (_, true) => "goes on without its failed tasks",
            (true, false) => "goes on",
            (false, false) if granted.is_some() => "goes on as far as its budget allows",
            (false, false) => "is neither paused nor failed",
        };
        app.console.note(format_args!("{job}: {said}"));
        if let Some(root) = granted {
            // Whoever waits for the account looks again.
            nats.signal(&root).await;
            nats.flush().await;
        }
    }
    Ok(Exit::Done)
}

/// Grants more to the account that pays for a job; gives its root.
async fn grant(nats: &Nats, job: &JobName, more: &Budget) -> Result<JobName, Failure> {
    let waits_for = |key: air_nats::jobs::Key| {
        let state = key.state()?;
        Some(state.over_budget.as_ref()?.account.clone())
    };
    let root = waits_for(nats.job(job).await?).unwrap_or_else(|| job.clone());
    let (spec, _) = nats.spec(&root).await?;
    let budget = spec.ok().and_then(|spec| spec.budget);
    let granted = nats.change_account(&root, |account| {
        match account.or_else(|| budget.clone().map(Account::new)) {
            Some(mut account) => {
                account.grant(more);
                (Some(account), true)
            }
            None => (None, false),
        }
    });
    if granted.await? {
        Ok(root)
    } else {
        Err(Failure::Refused(format!(
            "{root} has no budget; `airx spec {root} set budget.usd=5` gives it one"
        )))
    }
}
