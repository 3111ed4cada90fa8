//! What was found, for people and programs.

use air_protocol::event::Kind;
use air_protocol::invariants::Invariant;
use air_protocol::names::{JobName, Names, TaskId};
use air_protocol::verify::{Finding, Findings, LISTED_MAX, Now, Place, Verdict};
use serde::Serialize;

use super::read::Read;
use crate::Failure;
use crate::app::{App, count};
use crate::table::Table;

/// Jobs that are named as still working; the others are counted.
const WORKING_LISTED_MAX: usize = 100;

/// The outcome over all jobs that were checked.
pub(super) struct Report {
    pub(super) findings: Findings,
    jobs: u64,
    records: u64,
    messages: u64,
    events: u64,
    working: u64,
    working_listed: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Shown {
    jobs: u64,
    records: u64,
    messages: u64,
    events: u64,
    /// How many jobs are not at their end: checked as far as they have gone.
    working: u64,
    working_jobs: Vec<String>,
    invariants: Vec<ShownInvariant>,
    violations: Vec<ShownViolation>,
}

#[derive(Debug, Serialize)]
struct ShownInvariant {
    invariant: &'static str,
    verdict: &'static str,
    violations: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_proven: Vec<ShownDoubt>,
}

#[derive(Debug, Serialize)]
struct ShownDoubt {
    why: &'static str,
    times: u64,
    example: String,
}

#[derive(Debug, Serialize)]
struct ShownViolation {
    invariant: &'static str,
    job: JobName,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<TaskId>,
    at: Vec<ShownPlace>,
    text: String,
    means: &'static str,
}

#[derive(Debug, Serialize)]
struct ShownPlace {
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
}

impl Report {
    pub(super) fn new() -> Self {
        Self {
            findings: Findings::default(),
            jobs: 0,
            records: 0,
            messages: 0,
            events: 0,
            working: 0,
            working_listed: Vec::new(),
        }
    }

    /// Adds a job that was checked.
    pub(super) fn add(&mut self, job: &JobName, now: &Now, read: Read) {
        self.jobs += 1;
        self.records += read.records;
        self.messages += read.messages;
        self.events += read.events;
        let state = now.state.as_ref();
        let over = state.is_some_and(|state| state.status.is_over());
        if !over {
            self.working += 1;
            if self.working_listed.len() < WORKING_LISTED_MAX {
                let state = now.state.as_ref().map(|state| state.name());
                let state = state.unwrap_or_else(|| "no key".to_owned());
                self.working_listed.push(format!("{job} ({state})"));
            }
        }
        self.findings.merge(read.check.end(now));
    }

    /// Whether the exit code is 1.
    pub(super) fn is_bad(&self, strict: bool) -> bool {
        Invariant::ALL
            .into_iter()
            .any(|invariant| match self.findings.verdict(invariant) {
                Verdict::Refuted => true,
                Verdict::NotProven => strict && invariant != Invariant::NoSurvivors,
                Verdict::Proven => false,
            })
    }

    /// Writes it.
    pub(super) fn show(&self, app: &App, names: &Names) -> Result<(), Failure> {
        let shown = self.shown(names);
        app.console.data(&shown, || self.table(app, &shown))?;
        app.console.note(format_args!(
            "{}: {}, {}, {}",
            count(self.jobs, "job"),
            count(self.records, "record"),
            count(self.messages, "message"),
            count(self.events, "event")
        ));
        if self.working > 0 {
            app.console.note(format_args!(
                "not at an end, and checked as far as they have gone: {}{}",
                self.working_listed.join(", "),
                if self.working > WORKING_LISTED_MAX as u64 {
                    ", …"
                } else {
                    ""
                }
            ));
        }
        Ok(())
    }

    fn table(&self, app: &App, shown: &Shown) -> Result<(), Failure> {
        let mut table = Table::new(&["INVARIANT", "VERDICT", "WHY"]);
        for one in &shown.invariants {
            let mut why: Vec<_> = (one.violations > 0)
                .then(|| count(one.violations, "violation"))
                .into_iter()
                .collect();
            why.extend(one.not_proven.iter().map(|doubt| {
                let (why, times, example) = (doubt.why, doubt.times, &doubt.example);
                match times {
                    1 => format!("{why} ({example})"),
                    _ => format!("{why} ({times} times, first {example})"),
                }
            }));
            table.row([one.invariant.into(), one.verdict.into(), why.join("; ")]);
        }
        app.console.table(&table)?;
        for violation in &shown.violations {
            let task = violation.task.as_ref();
            let task = task.map(|task| format!("/{task}")).unwrap_or_default();
            app.console.line(format_args!(
                "\n! {}: {}{task}: {}",
                violation.invariant, violation.job, violation.text
            ))?;
            for place in &violation.at {
                let at = place.sequence.map(|seq| format!(" {seq}"));
                let at = at.unwrap_or_default();
                app.console
                    .line(format_args!("  at {}{at}", place.subject))?;
            }
            app.console
                .line(format_args!("  which means: {}", violation.means))?;
        }
        let listed = shown.violations.len() as u64;
        let all: u64 = self.findings.count.values().sum();
        if all > listed {
            let more = all - listed;
            app.console.line(format_args!(
                "\n… and {more} more; {LISTED_MAX} of each invariant are listed"
            ))?;
        }
        Ok(())
    }

    fn shown(&self, names: &Names) -> Shown {
        let invariant = |invariant: Invariant| {
            let doubts = self.findings.doubts.iter();
            let doubts = doubts.filter(|((one, _), _)| *one == invariant);
            ShownInvariant {
                invariant: invariant.as_str(),
                verdict: self.findings.verdict(invariant).as_str(),
                violations: self.findings.count.get(&invariant).copied().unwrap_or(0),
                not_proven: doubts
                    .map(|((_, why), doubt)| ShownDoubt {
                        why,
                        times: doubt.times,
                        example: doubt.example.clone(),
                    })
                    .collect(),
            }
        };
        let mut violations: Vec<_> = self.findings.listed.iter().collect();
        violations.sort_by_key(|finding| finding.invariant);
        Shown {
            jobs: self.jobs,
            records: self.records,
            messages: self.messages,
            events: self.events,
            working: self.working,
            working_jobs: self.working_listed.clone(),
            invariants: Invariant::ALL.map(invariant).into(),
            violations: violations
                .into_iter()
                .map(|finding| violation(finding, names))
                .collect(),
        }
    }
}

fn violation(finding: &Finding, names: &Names) -> ShownViolation {
    let job = &finding.job;
    let at = finding.places.iter().map(|place| shown(place, job, names));
    ShownViolation {
        invariant: finding.invariant.as_str(),
        job: job.clone(),
        task: finding.task.clone(),
        at: at.collect(),
        text: finding.text.clone(),
        means: finding.invariant.broken_means(),
    }
}

fn shown(place: &Place, job: &JobName, names: &Names) -> ShownPlace {
    let (subject, sequence) = match place {
        Place::Record(Some(task), seq) => (names.results(job, task), Some(*seq)),
        Place::Record(None, seq) => (names.job_results(job), Some(*seq)),
        Place::Queue(job, seq) => (names.tasks(job), Some(*seq)),
        Place::Schedule(task, seq) => (names.schedule(job, task), Some(*seq)),
        Place::Event(kind, seq) => (names.events(Some(job), Kind::as_str(*kind)), Some(*seq)),
        Place::Key(revision) => (
            format!("$KV.{}.{job}", names.jobs_bucket()),
            Some(*revision),
        ),
        Place::Account(revision) => (
            format!("$KV.{}.{job}", names.budgets_bucket()),
            Some(*revision),
        ),
        Place::Blob(name) => (format!("{} {name}", names.blobs_bucket()), None),
    };
    ShownPlace { subject, sequence }
}
