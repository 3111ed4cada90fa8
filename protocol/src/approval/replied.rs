//! What a person's reply to a parked task commits. Pure: whoever replies brings the task's last record, and the moment.

use super::{Reply, Waits};
use crate::budget::Leash;
use crate::limits::{REPLIES_MAX, REPLY_CHARS_MAX};
use crate::record::{Record, Status, next_attempt};
use crate::time::Time;

/// Why a reply does not fit a task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It waits for nobody.
    #[error("it does not wait for a person: it is {}", .0.as_str())]
    Status(Status),
    /// It asks a question, and is not to be approved.
    #[error("it asks a question, and no approval: `airx answer` answers it")]
    Asks,
    /// It is to be approved, and asks nothing.
    #[error("it asks no question: `airx approve` or `airx reject` decides on it")]
    AsksNothing,
    /// Too much said.
    #[error("the text has {0} characters, but {REPLY_CHARS_MAX} are the most")]
    Long(usize),
    /// Said too often.
    #[error("it has {REPLIES_MAX} replies, which are the most; `airx reject` ends it")]
    Replies,
    /// Its record does not say what it was.
    #[error(
        "its record does not say what the task was, so that it cannot go on; `airx reject` ends it"
    )]
    NoTask,
}

fn parked(last: &Record) -> Result<Option<&Waits>, Unfit> {
    match last.status {
        Status::Parked => Ok(last.waits.as_ref()),
        status => Err(Unfit::Status(status)),
    }
}

fn text(text: &str) -> Result<String, Unfit> {
    let chars = text.chars().count();
    if chars > REPLY_CHARS_MAX {
        return Err(Unfit::Long(chars));
    }
    Ok(text.to_owned())
}

/// The record by which a parked task goes on: an answer to its question, or else its approval. It goes with the
/// message of the next attempt. `last` is stored at `seq`.
///
/// # Errors
/// Why the reply does not fit.
pub fn replied(
    last: &Record,
    seq: u64,
    is_answer: bool,
    said: &str,
    at: Time,
) -> Result<Record, Unfit> {
    let question = match (parked(last)?, is_answer) {
        (Some(Waits::Answer { question }), true) => Some(question.clone()),
        (Some(Waits::Answer { .. }), false) => return Err(Unfit::Asks),
        (Some(Waits::Approval { .. }) | None, true) => return Err(Unfit::AsksNothing),
        (Some(Waits::Approval { .. }) | None, false) => None,
    };
    if last.replies.len() >= REPLIES_MAX {
        return Err(Unfit::Replies);
    }
    if last.spec.is_none() {
        return Err(Unfit::NoTask);
    }
    let text = text(said)?;
    let mut record = follower(last, seq, Status::Reset, last.attempt, at);
    record.replies.push(Reply { question, text, at });
    // The session that goes on with the answer.
    record.agent.clone_from(&last.agent);
    Ok(record)
}

/// The record by which a parked task fails, since a person wants it so.
///
/// # Errors
/// Why it does not fit.
pub fn rejected(last: &Record, seq: u64, note: &str, at: Time) -> Result<Record, Unfit> {
    parked(last)?;
    let note = text(note)?;
    let mut record = follower(last, seq, Status::Failed, next_attempt(last.attempt), at);
    record.failures = last.failures.saturating_add(1);
    record.losses = last.losses;
    record.error = Some(if note.trim().is_empty() {
        "a person rejected it".to_owned()
    } else {
        crate::record::error_text(&format!("a person rejected it: {note}"))
    });
    Ok(record)
}

fn follower(last: &Record, seq: u64, status: Status, attempt: u32, at: Time) -> Record {
    let mut record =
        Record::new(last.task.clone(), status, attempt, at).follows(Some(last.status), seq);
    record.parent.clone_from(&last.parent);
    record.set_leash(Leash::of_record(last));
    record.traceparent.clone_from(&last.traceparent);
    record.replies.clone_from(&last.replies);
    record.spec = last.spec.clone().map(|mut spec| {
        spec.id = Some(last.task.clone());
        spec
    });
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::AgentRun;
    use crate::task::{Task, Work};

    const NOW: Time = Time::from_millis(5000);

    fn last(waits: Waits) -> Record {
        let mut last = Record::new("t".parse().unwrap(), Status::Parked, 3, Time::default());
        last.waits = Some(waits);
        (last.failures, last.losses) = (2, 1);
        last.parent = Some("j/p".into());
        last.agent = Some(AgentRun {
            session: Some("s".into()),
            ..AgentRun::default()
        });
        last.spec = Some(Task::new(Work::Run("true".into())));
        last
    }

    fn approval() -> Record {
        last(Waits::Approval { reason: "r".into() })
    }

    fn question() -> Record {
        last(Waits::Answer {
            question: "which?".into(),
        })
    }

    #[test]
    fn an_approved_task_begins_to_count_anew_and_stays_approved() {
        let record = replied(&approval(), 7, false, "fine", NOW).unwrap();
        assert_eq!((record.status, record.attempt), (Status::Reset, 3));
        assert_eq!((record.after, record.previous), (7, Some(Status::Parked)));
        assert_eq!((record.failures, record.losses), (0, 0));
        assert!(record.is_approved() && record.waits.is_none());
        assert_eq!(record.replies[0].text, "fine");
        assert_eq!(record.parent.as_deref(), Some("j/p"));
        assert_eq!(record.spec.unwrap().id, Some(record.task));
    }

    #[test]
    fn an_answer_goes_with_its_question_and_session() {
        let mut before = question();
        before.replies.push(Reply {
            question: None,
            text: String::new(),
            at: Time::default(),
        });
        let record = replied(&before, 7, true, "this", NOW).unwrap();
        assert_eq!(record.replies.len(), 2);
        assert_eq!(record.replies[1].question.as_deref(), Some("which?"));
        assert_eq!(
            (record.replies[1].text.as_str(), record.replies[1].at),
            ("this", NOW)
        );
        assert_eq!(record.agent, before.agent);
        assert!(record.is_approved(), "it was approved before");
    }

    #[test]
    fn a_rejected_task_has_failed() {
        for waiting in [approval(), question()] {
            let record = rejected(&waiting, 7, "no", NOW).unwrap();
            assert_eq!((record.status, record.attempt), (Status::Failed, 4));
            assert_eq!((record.failures, record.losses), (3, 1));
            assert_eq!(record.error.as_deref(), Some("a person rejected it: no"));
            assert!(!record.is_approved());
        }
        let record = rejected(&approval(), 7, " ", NOW).unwrap();
        assert_eq!(record.error.as_deref(), Some("a person rejected it"));
    }

    #[test]
    fn a_reply_must_fit() {
        let reply = |last: &Record, is_answer| replied(last, 7, is_answer, "x", NOW).unwrap_err();
        assert_eq!(reply(&approval(), true), Unfit::AsksNothing);
        assert_eq!(reply(&question(), false), Unfit::Asks);
        let mut done = approval();
        done.status = Status::Succeeded;
        assert_eq!(reply(&done, false), Unfit::Status(Status::Succeeded));
        assert!(rejected(&done, 7, "", NOW).is_err());
        let mut lost = approval();
        lost.spec = None;
        assert_eq!(reply(&lost, false), Unfit::NoTask);
        let mut many = question();
        let one = replied(&many, 7, true, "x", NOW).unwrap().replies[0].clone();
        many.replies = vec![one.clone(); REPLIES_MAX - 1];
        assert!(replied(&many, 7, true, "x", NOW).is_ok());
        many.replies.push(one);
        assert_eq!(reply(&many, true), Unfit::Replies);
        let long = |chars| replied(&approval(), 7, false, &"x".repeat(chars), NOW).err();
        assert_eq!(long(REPLY_CHARS_MAX), None);
        assert_eq!(
            long(REPLY_CHARS_MAX + 1),
            Some(Unfit::Long(REPLY_CHARS_MAX + 1))
        );
    }
}
