//! The pick: judges each task of a backlog, in the order of the queue.

use std::collections::BTreeSet;
use std::time::Duration;

use air_protocol::budget::{Limits, Wants};
use air_protocol::lease::{Decision, Target, Verdict};
use air_protocol::limits::{DECISIONS_BYTES_MAX, DECISIONS_MAX, DEPTH_MAX};
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::is_live;
use air_protocol::spec::Spec;
use air_protocol::task::{Need, Resources, When};
use air_protocol::time::Time;

use super::{ANEW_EVERY, Backlog, Entry, TaskRef};
use crate::circle;
use crate::offers::Ask;

/// What may be done next.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pick {
    /// The first task that may run.
    pub ready: Option<Ready>,
    /// Tasks whose fate is decided without running them.
    pub decisions: Vec<Decision>,
    /// Tasks that wait for others: their message, and what they wait for.
    pub blocked: Vec<(TaskId, Vec<Need>)>,
    /// Of the tasks that wait for others, those that are tried again.
    pub again: u64,
    /// Messages up to this sequence were looked at.
    pub scanned_to: u64,
}

/// A task that may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The attempt.
    pub target: Target,
    /// The backend that it asks for.
    pub backend: Option<String>,
    /// The image that it asks for.
    pub image: Option<String>,
    /// The resources that it asks for.
    pub resources: Option<Resources>,
    /// Whether an agent works on it.
    pub agent: bool,
    /// What is to be reserved for it; none where no account pays for it.
    pub charge: Option<Charge>,
}

impl Ready {
    /// What it asks of a backend.
    pub fn ask(&self) -> Ask<'_> {
        Ask {
            backend: self.backend.as_deref(),
            image: self.image.is_some(),
            resources: self.resources.is_some(),
        }
    }
}

/// What is to be reserved before a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// The account: its root job.
    pub account: JobName,
    /// How much, and for whom.
    pub wants: Wants,
}

/// What a pick needs besides the backlog.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The moment.
    pub now: Time,
    /// The job's spec.
    pub spec: &'a Spec,
    /// Tasks of all jobs that wait for others, as far as this manager knows.
    pub waits: &'a circle::Waits,
}

impl Pick {
    /// Whether there is any task.
    pub fn has_live(&self) -> bool {
        self.ready.is_some() || !self.decisions.is_empty() || !self.blocked.is_empty()
    }
}

enum Judgement {
    Ready,
    Blocked,
    Decided(Verdict),
}

impl Backlog {
    /// Whether more of the queue is to be read before a pick: nothing that is known may run.
    pub fn wants_more(&self, context: Context<'_>) -> bool {
        let has_ready = || {
            self.judged(context)
                .any(|(_, _, judgement)| !matches!(judgement, Judgement::Blocked))
        };
        !self.whole && !has_ready()
    }

    /// Says what may be done next.
    pub fn pick(&self, context: Context<'_>) -> Pick {
        let mut reasons = 0;
        let mut again = BTreeSet::new();
        let mut pick = Pick {
            scanned_to: self.cursor,
            ..Pick::default()
        };
        for (seq, entry, judgement) in self.judged(context) {
            match judgement {
                Judgement::Decided(verdict)
                    if pick.decisions.len() < DECISIONS_MAX && reasons < DECISIONS_BYTES_MAX =>
                {
                    reasons += verdict.reason().map_or(0, str::len);
                    pick.decisions.push(Decision {
                        target: entry.target(seq),
                        verdict,
                    });
                }
                Judgement::Decided(_) => break,
                Judgement::Ready => {
                    pick.ready = Some(self.ready(seq, entry, context.spec));
                    break;
                }
                Judgement::Blocked => {
                    if entry.attempt > 1 {
                        again.insert(&entry.id);
                    }
                    pick.blocked.push((entry.id.clone(), entry.needs.clone()));
                }
            }
        }
        pick.again = again.len() as u64;
        pick
    }

    fn ready(&self, seq: u64, entry: &Entry, spec: &Spec) -> Ready {
        let target = entry.target(seq);
        let charge = self.charge(entry, &target, spec);
        Ready {
            target,
            backend: entry.backend.clone().or_else(|| spec.backend.clone()),
            image: entry.image.clone().or_else(|| spec.image.clone()),
            resources: entry.resources.clone().or_else(|| spec.resources.clone()),
            agent: entry.agent.is_some(),
            charge,
        }
    }

    /// The account that the task brings along pays for it, or else that of a job with a budget.
    fn charge(&self, entry: &Entry, target: &Target, spec: &Spec) -> Option<Charge> {
        let own = spec.budget.as_ref().map(|_| &self.job);
        let account = entry.leash.budget.as_ref().or(own)?;
        let defaults = spec.claude.as_ref();
        let agent = entry.agent.map(|agent| Limits {
            usd: agent.usd.or(defaults.and_then(|all| all.max_budget_usd)),
            turns: (agent.turns).or(defaults.and_then(|all| all.max_turns.map(u64::from))),
        });
        let wants = Wants {
            job: self.job.clone(),
            task: target.task.clone(),
            attempt: target.attempt,
            depth: entry.leash.depth,
            agent,
        };
        let account = account.clone();
        (!entry.fanout).then_some(Charge { account, wants })
    }

    fn judged<'a>(
        &'a self,
        context: Context<'a>,
    ) -> impl Iterator<Item = (u64, &'a Entry, Judgement)> + 'a {
        self.entries
            .iter()
            .filter(|(_, entry)| is_live(entry.attempt, entry.last))
            .map(move |(seq, entry)| (*seq, entry, self.judge(entry, context)))
    }

    fn judge(&self, entry: &Entry, context: Context<'_>) -> Judgement {
        if let Some(reason) = &entry.invalid {
            return Judgement::Decided(Verdict::Fail {
                reason: reason.clone(),
            });
        }
        if entry.agent.is_some() && entry.leash.depth > DEPTH_MAX {
            let depth = entry.leash.depth;
            let reason = format!(
                "it stands {depth} generations of sub-tasks below a user's task, and an agent's task may stand {DEPTH_MAX}"
            );
            return Judgement::Decided(Verdict::Fail { reason });
        }
        for need in &entry.needs {
            let task = self.task_of(need);
            let status = entry.seen.get(&task);
            if let Some(status) = status
                && status.meets(need.when) == Some(false)
            {
                let reason = format!(
                    "needs {need} {}, which is {}",
                    when(need.when),
                    status.as_str()
                );
                return Judgement::Decided(Verdict::Skip { reason });
            }
            if status.is_none() && self.is_overdue(entry, need, context) {
                let reason =
                    format!("needs {need}, which nobody published within the job's needs_timeout");
                return Judgement::Decided(Verdict::Skip { reason });
            }
        }
        if !entry.needs.is_empty() {
            let start = (self.job.clone(), entry.id.clone());
            return match context.waits.circle(&start) {
                Some(circle) => Judgement::Decided(Verdict::Fail {
                    reason: format!(
                        "waits for itself: {}; take one of these needs out",
                        circle::text(&circle, &self.job)
                    ),
                }),
                None => Judgement::Blocked,
            };
        }
        if let Some(reason) = &entry.approval {
            return Judgement::Decided(Verdict::Park {
                reason: reason.clone(),
            });
        }
        match entry.not_before {
            Some(until) if until > context.now => Judgement::Decided(Verdict::Move { until }),
            _ => Judgement::Ready,
        }
    }

    /// Whether the job's `needs_timeout` is over for a task.
    fn is_late(&self, entry: &Entry, context: Context<'_>) -> bool {
        let timeout = context.spec.needs_timeout;
        timeout.is_some_and(|timeout| {
            context.now.since(entry.queued) >= timeout.0.max(Duration::from_millis(1))
        })
    }

    pub(super) fn is_own(&self, need: &Need) -> bool {
        need.job.as_ref().is_none_or(|job| *job == self.job)
    }

    /// Whether nobody published a needed task that has no record, though it is late for that.
    fn is_overdue(&self, entry: &Entry, need: &Need, context: Context<'_>) -> bool {
        if !self.is_late(entry, context) {
            return false;
        }
        if self.is_own(need) {
            return self.whole && !self.entries.values().any(|other| other.id == need.task);
        }
        let searched = self.searched.get(&self.task_of(need));
        searched.is_some_and(|(_, queued)| !queued)
    }

    /// Needed tasks of other jobs that seem to be published by nobody, unless they stand in their queues.
    pub fn unsure(&self, context: Context<'_>) -> BTreeSet<TaskRef> {
        let mut unsure = BTreeSet::new();
        for entry in self
            .entries
            .values()
            .filter(|entry| self.is_late(entry, context))
        {
            for need in entry.needs.iter().filter(|need| !self.is_own(need)) {
                let task = self.task_of(need);
                let is_fresh = |(when, _): &(Time, bool)| context.now.since(*when) < ANEW_EVERY;
                let searched = self.searched.get(&task).is_some_and(is_fresh);
                if !entry.seen.contains_key(&task) && !searched {
                    unsure.insert(task);
                }
            }
        }
        unsure
    }
}

fn when(when: When) -> &'static str {
    match when {
        When::Succeeded => "to succeed",
        When::Failed => "to fail",
        When::Done => "to be done",
    }
}
