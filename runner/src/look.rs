//! What a runner reads before anything runs: message, last record and spec, together.

use air_nats::Error;
use air_nats::queue::Queued;
use air_nats::records::At;
use air_protocol::approval::Reply;
use air_protocol::budget::Leash;
use air_protocol::lease::Target;
use air_protocol::spec::Spec;
use air_protocol::task::Work;

use crate::clock;
use crate::hold::{Hold, STALE_MAX};
use crate::patience::{Patience, again};

/// What there is to do.
#[derive(Debug)]
pub struct Found {
    /// The message.
    pub queued: Queued,
    /// The task's last record: the one that the claim expects.
    pub last: Option<At>,
    /// The job's spec.
    pub spec: Spec,
}

impl Found {
    /// What people said to the task so far.
    pub fn replies(&self) -> &[Reply] {
        self.last.as_ref().map_or(&[], |(_, last)| &last.replies)
    }

    /// What pays for sub-tasks, and how deep they stand: the rest of a family stands where its task does.
    pub(crate) fn below(&self) -> Leash {
        let leash = &self.queued.leash;
        match &self.queued.task {
            Ok(task) if matches!(task.work, Work::Fanout(_)) => leash.clone(),
            _ => leash.below(),
        }
    }
}

/// Reads what there is to do; the sequence of the last record when there is nothing any more.
pub(crate) async fn look(hold: &Hold) -> Result<Result<Box<Found>, u64>, Error> {
    let target = &hold.target;
    let (queued, last, spec) = tokio::join!(
        again(async || hold.nats.queued_at(&hold.job, target.seq).await),
        last_record(hold),
        spec(hold),
    );
    let (queued, last, spec) = (queued?, last?, spec?);
    let seq = last.as_ref().map_or(0, |(seq, _)| *seq);
    let queued = queued.filter(|queued| is_due(target, queued, seq));
    Ok(match queued {
        Some(mut queued) => {
            queued.leash = queued.leash.or(hold.account.as_ref());
            Ok(Box::new(Found { queued, last, spec }))
        }
        None => Err(seq),
    })
}

/// Whether the message is that of the attempt, and nobody has ended the attempt: `last` is the
/// sequence of the task's last record.
pub fn is_due(target: &Target, queued: &Queued, last: u64) -> bool {
    last == target.expected && queued.id == target.task && queued.attempt == target.attempt
}

/// The task's last record; an answer older than the expected record is asked for again.
pub(crate) async fn last_record(hold: &Hold) -> Result<Option<At>, Error> {
    let begun = clock::boot();
    let mut patience = Patience::new();
    loop {
        let last =
            again(async || hold.nats.last_record(&hold.job, &hold.target.task).await).await?;
        let seq = last.as_ref().map_or(0, |(seq, _)| *seq);
        if seq >= hold.target.expected || clock::boot() > begun + STALE_MAX {
            return Ok(last);
        }
        patience.wait().await;
    }
}

/// The job's spec; the defaults where it is invalid, since the claim was made before it was.
async fn spec(hold: &Hold) -> Result<Spec, Error> {
    let (spec, _) = again(async || hold.nats.spec(&hold.job).await).await?;
    Ok(spec.unwrap_or_else(|reason| {
        tracing::warn!(%reason, "the job's spec is invalid; using the defaults");
        Spec::default()
    }))
}

#[cfg(test)]
mod tests {
    use air_protocol::task::{Fanout, Task};
    use air_protocol::time::Time;

    use super::*;

    fn queued(id: &str, attempt: u32) -> Queued {
        Queued {
            seq: 5,
            queued: Time::default(),
            id: id.parse().unwrap(),
            attempt,
            parent: None,
            leash: Leash {
                budget: Some("root".parse().unwrap()),
                depth: 3,
            },
            traceparent: None,
            task: Ok(Task::new(Work::Run("true".into()))),
        }
    }

    #[test]
    fn only_the_claimed_attempt_is_due_and_only_while_nobody_ended_it() {
        let target = Target {
            task: "t".parse().unwrap(),
            seq: 5,
            attempt: 2,
            expected: 3,
        };
        assert!(is_due(&target, &queued("t", 2), 3));
        assert!(!is_due(&target, &queued("t", 2), 9), "another record came");
        assert!(!is_due(&target, &queued("t", 2), 0), "its record is gone");
        assert!(!is_due(&target, &queued("u", 2), 3));
        assert!(!is_due(&target, &queued("t", 1), 3));
    }

    #[test]
    fn sub_tasks_stand_deeper_but_for_the_rest_of_a_family() {
        let below = |queued| {
            let found = Found {
                queued,
                last: None,
                spec: Spec::default(),
            };
            found.below()
        };
        let root = Some("root".parse().unwrap());
        assert_eq!(below(queued("t", 1)).budget, root);
        assert_eq!(below(queued("t", 1)).depth, 4);
        let mut rest = queued("t", 1);
        rest.task = Ok(Task::new(Work::Fanout(Fanout {
            run: uuid::Uuid::nil(),
            parent: "j/t".into(),
            page: 1,
            pages: 2,
        })));
        assert_eq!(below(rest.clone()), rest.leash);
    }
}
