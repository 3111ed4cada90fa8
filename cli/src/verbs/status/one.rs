//! One job in detail: what it does, what keeps it from going on, and what to do about it.

use std::fmt::Write as _;

use air_nats::Nats;
use air_nats::jobs::Key;
use air_nats::managers::Heartbeat;
use air_nats::queue::Queued;
use air_protocol::budget::Account;
use air_protocol::cost::Usd;
use air_protocol::job::{JobState, JobStatus};
use air_protocol::names::JobName;
use air_protocol::spec::Spec;
use serde::Serialize;

use crate::Failure;
use crate::app::{App, count, now, short};
use crate::console::Colour;
use crate::task_view::{Known, TaskView};
use crate::verbs::tasks::{answers, detail};

/// All that is known of a job.
#[derive(Debug, Serialize)]
struct Detail {
    job: JobName,
    #[serde(flatten)]
    state: Option<JobState>,
    revision: u64,
    spec: Option<Spec>,
    /// Messages in the queue.
    queue: u64,
    /// Tasks that are scheduled for later.
    scheduled: usize,
    /// Tasks among the first of the queue that wait for others.
    blocked: Vec<TaskView>,
    /// Tasks that wait for a person.
    parked: Vec<TaskView>,
    managers: Vec<String>,
    /// The account of the job's budget, or of that which its next task waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<Account>,
    /// What keeps the job from going on, and how to mend it.
    problems: Vec<String>,
}

/// Messages of the queue that are looked at for what they wait for.
const LOOKED_AT: usize = 1000;
/// Blocked tasks that are shown to people.
const SHOWN: usize = 10;

/// One job, in the wanted format.
pub(super) async fn text(nats: &Nats, app: &App, job: &JobName) -> Result<String, Failure> {
    let detail = find(nats, job).await?;
    Ok(app.console.text(&detail, || table(app, &detail)))
}

async fn find(nats: &Nats, job: &JobName) -> Result<Detail, Failure> {
    let key = nats.job(job).await?;
    let (spec, spec_revision) = nats.spec(job).await?;
    let known = Known::waiting(nats, job, LOOKED_AT).await?;
    let queue = known.queued.len() as u64 + known.more;
    let nothing = queue == 0 && known.scheduled.is_empty() && spec_revision == 0;
    if nothing && matches!(key, Key::Absent | Key::Deleted(_)) {
        return Err(Failure::NoJob(job.clone()));
    }
    let managers = nats.managers().await?;
    let views = known.views(job, key.state());
    let backend = spec.as_ref().ok().and_then(|spec| {
        let next = views.iter().find(|view| view.status == "queued")?;
        lacking(&known, next, spec, &managers)
    });
    let mut blocked = views;
    blocked.retain(|view| view.status == "blocked");
    let parked = match key.state() {
        Some(state) if state.ledger.counters.parked > 0 => parked(nats, job).await?,
        _ => Vec::new(),
    };
    let mut problems = problems(job, &key, &spec, &blocked, managers.is_empty(), queue);
    problems.extend(backend);
    let account = account(nats, job, key.state(), spec.as_ref().ok()).await?;
    Ok(Detail {
        job: job.clone(),
        revision: key.revision(),
        state: key.state().cloned(),
        spec: spec.ok(),
        queue,
        scheduled: known.scheduled.len(),
        blocked,
        parked,
        managers: managers.into_iter().map(|one| one.manager).collect(),
        account,
        problems,
    })
}

/// The tasks of a job that wait for a person: all its records are read.
async fn parked(nats: &Nats, job: &JobName) -> Result<Vec<TaskView>, Failure> {
    let mut views = Known::all(nats, job).await?.views(job, None);
    views.retain(|view| view.person.is_some());
    Ok(views)
}

/// The account that the next task waits for, or that of the job's own budget; a job without either has none.
async fn account(
    nats: &Nats,
    job: &JobName,
    state: Option<&JobState>,
    spec: Option<&Spec>,
) -> Result<Option<Account>, Failure> {
    let lacking = state.and_then(|state| state.over_budget.as_ref());
    let own = spec.and_then(|spec| spec.budget.as_ref()).map(|_| job);
    match lacking.map(|lack| &lack.account).or(own) {
        Some(root) => Ok(nats.account(root).await?.0),
        None => Ok(None),
    }
}

/// Says that the next task waits for a backend that no manager has.
fn lacking(known: &Known, next: &TaskView, spec: &Spec, managers: &[Heartbeat]) -> Option<String> {
    let is_next = |queued: &&Queued| queued.id == next.task && queued.attempt == next.attempt;
    let task = known.queued.iter().find(is_next)?.task.as_ref().ok()?;
    let backend = spec.backend_of(task)?;
    let has = |manager: &Heartbeat| manager.backends.iter().any(|one| one == backend);
    let lacks = !managers.is_empty() && !managers.iter().any(has);
    lacks.then(|| {
        format!(
            "the task {} waits for the backend `{backend}`, which no manager has: start one that has it, or cancel the task and submit it without",
            next.task
        )
    })
}

fn problems(
    job: &JobName,
    key: &Key,
    spec: &Result<Spec, String>,
    blocked: &[TaskView],
    unmanaged: bool,
    queue: u64,
) -> Vec<String> {
    let mut problems = Vec::new();
    if let Key::Garbage(_, reason) = key {
        problems.push(format!(
            "its key cannot be read: {reason}; a manager rebuilds it within its next poll"
        ));
    }
    if let Key::Newer(_, reason) = key {
        problems.push(format!("its key is of a newer version: {reason}"));
    }
    match spec {
        Ok(spec) if spec.paused => {
            problems.push(format!("it is paused; `airx resume {job}` lets it go on"));
        }
        Ok(_) => {}
        Err(reason) => problems.push(format!(
            "its spec is invalid: {reason}; mend it with `airx spec {job} edit`"
        )),
    }
    if unmanaged && queue > 0 {
        problems.push("no manager runs; start one with `airx manager`".to_owned());
    }
    if let Some(state) = key.state() {
        state_problems(job, state, &mut problems);
    }
    for view in blocked.iter().filter(|view| !view.unknown.is_empty()) {
        let needs: Vec<_> = view.unknown.iter().map(ToString::to_string).collect();
        problems.push(format!(
            "the task {} needs {}, which nobody has queued: submit it, or `airx cancel {job} {}`",
            view.task,
            needs.join(", "),
            view.task
        ));
    }
    problems
}

fn state_problems(job: &JobName, state: &JobState, problems: &mut Vec<String>) {
    if let JobStatus::Failed { task } = &state.status {
        let why = task
            .as_ref()
            .map(|task| format!(" at the task {task} (`airx show {job} {task}`)"));
        problems.push(format!(
            "it failed{}; `airx retry {job}` runs its failed tasks again, `airx resume {job}` goes on without them",
            why.unwrap_or_default()
        ));
    }
    if let Some(lack) = &state.over_budget {
        problems.push(format!(
            "the account `{}` has not enough left: {}; `airx resume {} --budget-usd 5` grants more (also --budget-tokens, -turns, -tasks and -wall)",
            lack.account, lack.reason, lack.account
        ));
    }
    if let Some(error) = &state.start_error {
        let times = count(u64::from(state.failed_starts), "failed start");
        problems.push(format!("its runner does not start ({times}): {error}"));
    }
    if let Some(until) = state.hold_until.filter(|until| *until > now()) {
        problems.push(format!(
            "no manager starts anything in it for {}",
            short(until.since(now()))
        ));
    }
}

fn table(app: &App, detail: &Detail) -> String {
    let mut text = String::new();
    let mut say = |name: &str, value: &str| {
        let name = app.console.paint(Colour::Bold, &format!("{name:<9}"));
        let _ = writeln!(text, "{name} {value}");
    };
    say("job", detail.job.as_str());
    let status = detail
        .state
        .as_ref()
        .map_or_else(|| "waiting".to_owned(), JobState::name);
    let paused = detail.spec.as_ref().is_some_and(|spec| spec.paused);
    let paused = if paused { " (paused)" } else { "" };
    say("status", &app.console.status(&format!("{status}{paused}")));
    if let Some(state) = &detail.state {
        say_state(state, &mut say);
    }
    say(
        "queue",
        &format!(
            "{}, {} scheduled",
            count(detail.queue, "message"),
            detail.scheduled
        ),
    );
    if let Some(account) = &detail.account {
        say("budget", &budget(account));
    }
    let managers = match detail.managers.as_slice() {
        [] => "none".to_owned(),
        names => names.join(", "),
    };
    say("managers", &managers);
    for view in detail.blocked.iter().take(SHOWN) {
        say("blocked", &format!("{} {}", view.task, self::detail(view)));
    }
    if detail.blocked.len() > SHOWN {
        say(
            "blocked",
            &format!(
                "and {} more; `airx tasks {} --status blocked`",
                detail.blocked.len() - SHOWN,
                detail.job
            ),
        );
    }
    for view in detail.parked.iter().take(SHOWN) {
        say("parked", &format!("{} {}", view.task, self::detail(view)));
        if let Some(waits) = &view.person {
            say("", &answers(&detail.job, &view.task, waits));
        }
    }
    if detail.parked.len() > SHOWN {
        say(
            "parked",
            &format!(
                "and {} more; `airx tasks {} --status parked`",
                detail.parked.len() - SHOWN,
                detail.job
            ),
        );
    }
    for problem in &detail.problems {
        let _ = writeln!(text, "{} {problem}", app.console.paint(Colour::Yellow, "!"));
    }
    text
}

fn say_state(state: &JobState, say: &mut impl FnMut(&str, &str)) {
    if let Some(runs) = running(state) {
        say("runs", &runs);
    }
    say("tasks", &counters(state));
    let cost = state.ledger.counters.cost;
    if !cost.is_nothing() {
        say("cost", &cost.to_string());
    }
    let children: Vec<_> = state.ledger.children.iter().map(JobName::as_str).collect();
    if !children.is_empty() {
        say("queued in", &children.join(", "));
    }
    let changed = format!("{} ago", short(now().since(state.updated)));
    say("changed", &changed);
}

/// What is spent, and reserved by those that run, of what may be.
fn budget(account: &Account) -> String {
    let (total, spent, held) = (account.total(), account.spent, account.reserved_sum());
    let part = |word: &str, total: Option<u64>, spent: u64, held: u64| {
        total.map(|total| match held {
            0 => format!("{spent} of {total} {word}"),
            held => format!("{spent} of {total} {word} ({held} reserved)"),
        })
    };
    let usd = total.usd.map(|total| match held.usd {
        Usd::ZERO => format!("{} of {total}", spent.usd),
        held => format!("{} of {total} ({held} reserved)", spent.usd),
    });
    let parts = [
        usd,
        part("tokens", total.tokens, spent.tokens, held.tokens),
        part("turns", total.turns, spent.turns, held.turns),
        part("tasks", total.tasks, spent.tasks, held.tasks),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        return format!("{} spent", spent.usd);
    }
    parts.join(", ")
}

fn running(state: &JobState) -> Option<String> {
    let lease = state.lease()?;
    let since = short(now().since(lease.claimed));
    let renewed = short(now().since(lease.renewed));
    let what = match lease.phase.target() {
        Some(target) => format!("{}, attempt {}", target.task, target.attempt),
        None => "nothing: a manager settles tasks".to_owned(),
    };
    Some(format!(
        "{what}, for {since} ({} by {}, renewed {renewed} ago, lease {})",
        lease.backend, lease.manager, lease.ttl
    ))
}

fn counters(state: &JobState) -> String {
    let counters = &state.ledger.counters;
    let all = [
        (counters.succeeded, "succeeded"),
        (counters.failed, "failed"),
        (counters.cancelled, "cancelled"),
        (counters.skipped, "skipped"),
        (counters.retrying, "retrying"),
        (counters.reset, "reset"),
        (counters.parked, "parked"),
    ];
    let some: Vec<_> = all
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, word)| format!("{number} {word}"))
        .collect();
    let words = if some.is_empty() {
        "none yet".to_owned()
    } else {
        some.join(", ")
    };
    format!(
        "{words} ({}, {} lost)",
        count(counters.attempts, "attempt"),
        counters.losses
    )
}
