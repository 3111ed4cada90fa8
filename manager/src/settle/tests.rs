//! Tests of what is committed without running a task, and on behalf of a dead runner.

use std::time::Duration;

use air_nats::queue::Invalid;
use air_protocol::lease::Running;
use air_protocol::limits::LOSSES_MAX;
use air_protocol::task::{Fanout, Retry, Task};
use air_protocol::time::Span;
use uuid::Uuid;

use super::*;
use crate::recover::{fence, left_behind, of};

const NOW: Time = Time::from_millis(1_000_000);
const CLAIM: Claim = Claim {
    fence: Some(7),
    released: 2,
};

fn job() -> JobName {
    "j".parse().unwrap()
}

fn target() -> Target {
    Target {
        task: "t".parse().unwrap(),
        seq: 5,
        attempt: 2,
        expected: 3,
    }
}

fn lease() -> Lease {
    Lease {
        runner: Uuid::from_u128(1 << 8),
        manager: "m".into(),
        backend: "process".into(),
        realm: None,
        budget: None,
        claimed: Time::from_millis(900_000),
        renewed: NOW,
        ttl: Span(Duration::from_secs(30)),
        start_within: Span(Duration::from_secs(10)),
        phase: Phase::Settling { decisions: vec![] },
    }
}

fn running() -> Running {
    Running {
        target: target(),
        fence: 6,
        started: Time::from_millis(950_000),
        host: "h".into(),
    }
}

fn message(task: Task) -> Queued {
    Queued {
        seq: 5,
        queued: Time::from_millis(800_000),
        id: "t".parse().unwrap(),
        attempt: 2,
        parent: Some("j/parent".into()),
        leash: Leash {
            budget: Some("root".parse().unwrap()),
            depth: 3,
        },
        traceparent: Some("trace".into()),
        task: Ok(task),
    }
}

fn task() -> Task {
    Task::new(Work::Run("true".into()))
}

fn before(status: Status) -> Record {
    let mut record = Record::new("t".parse().unwrap(), status, 1, NOW);
    (record.failures, record.losses) = (2, 1);
    record.spec = Some(Task::new(Work::Run("false".into())));
    record.parent = Some("j/grandparent".into());
    record.depth = 2;
    record
}

/// The message is there, and so is the record that is expected.
fn base() -> Base {
    Base::of(
        &target(),
        Some(message(task())),
        Some((3, before(Status::Retrying))),
    )
    .unwrap()
}

/// No replica has the message any more.
fn gone() -> Base {
    let mut bare = before(Status::Retrying);
    bare.spec = None;
    Base::of(&target(), None, Some((3, bare))).unwrap()
}

fn committed(base: &Base, verdict: &Verdict) -> (Record, Vec<With>) {
    settled(
        base,
        &job(),
        &Spec::default(),
        &lease(),
        verdict,
        CLAIM,
        NOW,
    )
}

fn lost(base: &Base, outcome: Outcome) -> (Record, Vec<With>) {
    let (lease, running, spec) = (lease(), running(), Spec::default());
    let what = (&lease, &running, CLAIM);
    left_behind(base, &job(), &spec, what, outcome, "it froze", NOW)
}

#[test]
fn an_attempt_that_somebody_ended_is_not_settled() {
    let of = |last: Option<u64>| {
        let last = last.map(|seq| (seq, before(Status::Retrying)));
        Base::of(&target(), Some(message(task())), last).is_some()
    };
    assert!(of(Some(3)));
    assert!(!of(Some(4)), "another record came");
    assert!(!of(None), "the expected record is gone");
    let first = Target {
        expected: 0,
        ..target()
    };
    assert!(Base::of(&first, Some(message(task())), None).is_some());
}

#[test]
fn a_record_says_whom_it_follows_and_under_which_claim() {
    let record = base().record(&lease(), CLAIM, NOW);
    assert_eq!((record.after, record.previous), (3, Some(Status::Retrying)));
    assert_eq!((record.seq, record.attempt), (Some(5), 2));
    assert_eq!((record.fence, record.released), (Some(7), Some(2)));
    assert_eq!(record.run, Some(lease().runner));
    assert_eq!((record.failures, record.losses), (2, 1));
    assert_eq!(record.parent.as_deref(), Some("j/parent"));
    assert_eq!(Leash::of_record(&record), message(task()).leash);
    assert_eq!(record.traceparent.as_deref(), Some("trace"));
    assert_eq!(record.queued, Some(Time::from_millis(800_000)));
    assert_eq!(record.claimed, Some(Time::from_millis(900_000)));
    let spec = record.spec.unwrap();
    assert_eq!(spec.work, Work::Run("true".into()), "as it was queued");
    assert_eq!(spec.id, Some("t".parse().unwrap()));
}

#[test]
fn a_reset_begins_to_count_anew() {
    let last = Some((3, before(Status::Reset)));
    let base = Base::of(&target(), Some(message(task())), last).unwrap();
    let record = base.record(&lease(), CLAIM, NOW);
    assert_eq!((record.failures, record.losses), (0, 0));
    assert_eq!(record.previous, Some(Status::Reset));
}

#[test]
fn what_the_message_does_not_say_any_more_the_record_before_does() {
    let base = Base::of(&target(), None, Some((3, before(Status::Retrying)))).unwrap();
    let record = base.record(&lease(), CLAIM, NOW);
    assert_eq!(record.parent.as_deref(), Some("j/grandparent"));
    assert_eq!(record.depth, 2);
    assert_eq!(record.spec.unwrap().work, Work::Run("false".into()));
    let mut invalid = message(task());
    invalid.task = Err(Invalid {
        reason: "it is no JSON".into(),
        head: "{".into(),
    });
    let last = Some((3, before(Status::Retrying)));
    let base = Base::of(&target(), Some(invalid), last).unwrap();
    let record = base.record(&lease(), CLAIM, NOW);
    assert_eq!(record.tail.as_deref(), Some("{"));
}

#[test]
fn each_verdict_has_its_record() {
    let reason = || "why".to_owned();
    let (skipped, with) = committed(&base(), &Verdict::Skip { reason: reason() });
    assert_eq!((skipped.status, skipped.failures), (Status::Skipped, 2));
    assert!(with.is_empty() && skipped.error == Some(reason()));
    let (failed, with) = committed(&base(), &Verdict::Fail { reason: reason() });
    assert_eq!((failed.status, failed.failures), (Status::Failed, 3));
    assert!(with.is_empty() && failed.error == Some(reason()));
    let until = NOW.after(Duration::from_secs(60));
    let (moved, with) = committed(&base(), &Verdict::Move { until });
    assert_eq!(
        (moved.status, moved.retry_at),
        (Status::Retrying, Some(until))
    );
    assert_eq!(moved.failures, 2, "to wait is no failure");
    let With::Schedule(again, at) = &with[0] else {
        panic!("{with:?}")
    };
    assert_eq!((again.attempt, *at), (3, until));
    assert_eq!(again.parent.as_deref(), Some("j/parent"));
    assert_eq!(again.traceparent.as_deref(), Some("trace"));
    let (gone, with) = committed(&gone(), &Verdict::Move { until });
    assert_eq!((gone.status, with.len()), (Status::Failed, 0));
    assert_eq!(gone.error.as_deref(), Some(GONE));
}

#[test]
fn an_attempt_that_could_not_start_is_tried_again_until_the_limit() {
    let verdict = Verdict::Unstartable {
        reason: "no image".into(),
    };
    let (record, with) = committed(&base(), &verdict);
    assert_eq!((record.status, record.failures), (Status::Retrying, 3));
    let at = record.retry_at.unwrap();
    assert!(at > NOW && matches!(&with[..], [With::Schedule(_, due)] if *due == at));
    let spec = Spec {
        retry: Some(Retry {
            max: Some(2),
            ..Retry::default()
        }),
        ..Spec::default()
    };
    let (record, with) = settled(&base(), &job(), &spec, &lease(), &verdict, CLAIM, NOW);
    assert_eq!((record.status, with.len()), (Status::Failed, 0));
    let (record, with) = committed(&gone(), &verdict);
    assert_eq!((record.status, record.retry_at), (Status::Failed, None));
    assert_eq!((record.error.as_deref(), with.len()), (Some(GONE), 0));
}

#[test]
fn a_lost_attempt_is_tried_again_at_once() {
    let (record, with) = lost(&base(), Outcome::Lost);
    assert_eq!((record.status, record.losses), (Status::Retrying, 2));
    assert!(record.lost);
    assert!(matches!(&with[..], [With::Task(again)] if again.attempt == 3));
    assert_eq!(record.error.as_deref(), Some("runner lost: it froze"));
    assert_eq!(record.host.as_deref(), Some("h"));
    assert_eq!(record.started, Some(Time::from_millis(950_000)));
    let (record, with) = lost(&base(), Outcome::Cancelled);
    assert_eq!((record.status, with.len()), (Status::Cancelled, 0));
    assert!(!record.lost);
    let mut often = before(Status::Retrying);
    often.losses = LOSSES_MAX - 1;
    let last = Base::of(&target(), Some(message(task())), Some((3, often))).unwrap();
    let (record, with) = lost(&last, Outcome::Lost);
    assert_eq!((record.status, with.len()), (Status::Failed, 0));
    let text = format!("runner lost {LOSSES_MAX} times, the last time because it froze");
    assert_eq!(record.error, Some(text));
}

#[test]
fn the_rest_of_a_fan_out_is_lost_without_a_limit() {
    let fanout = Task::new(Work::Fanout(Fanout {
        run: Uuid::nil(),
        parent: "j/p".into(),
        page: 1,
        pages: 2,
    }));
    let mut often = before(Status::Retrying);
    often.losses = LOSSES_MAX - 1;
    let base = Base::of(&target(), Some(message(fanout)), Some((3, often))).unwrap();
    let (record, with) = lost(&base, Outcome::Lost);
    assert_eq!(record.status, Status::Retrying);
    assert!(matches!(&with[..], [With::Schedule(..)]), "{with:?}");
}

#[test]
fn the_fence_is_that_of_the_claim() {
    let taken = |from| Phase::Recovering {
        from: Box::new(from),
        by: "m".into(),
    };
    let starting = || Phase::Starting { target: target() };
    assert_eq!(fence(&starting(), 9), Some(9));
    assert_eq!(fence(&lease().phase, 9), Some(9));
    assert_eq!(fence(&Phase::Running(running()), 9), Some(6));
    assert_eq!(fence(&taken(Phase::Running(running())), 9), Some(6));
    assert_eq!(
        fence(&taken(starting()), 9),
        None,
        "it is not known any more"
    );
    assert_eq!(of(&taken(starting())), &starting());
    assert_eq!(of(&starting()), &starting());
}

#[test]
fn a_parked_task_says_why_and_keeps_what_people_said() {
    let mut last = before(Status::Retrying);
    last.replies = vec![air_protocol::approval::Reply {
        question: Some("which?".into()),
        text: "this".into(),
        at: NOW,
    }];
    let replies = last.replies.clone();
    let base = Base::of(&target(), Some(message(task())), Some((3, last))).unwrap();
    let reason = "it runs `true`".to_owned();
    let park = Verdict::Park {
        reason: reason.clone(),
    };
    let (record, with) = settled(&base, &job(), &Spec::default(), &lease(), &park, CLAIM, NOW);
    assert_eq!((record.status, record.attempt), (Status::Parked, 2));
    assert_eq!((record.failures, record.losses), (2, 1));
    assert_eq!(
        record.waits,
        Some(Waits::Approval {
            reason: reason.clone()
        })
    );
    assert_eq!(record.replies, replies);
    assert_eq!(reason_of(&record), Some(reason));
    assert!(record.error.is_none() && record.retry_at.is_none() && with.is_empty());
    assert!(record.spec.is_some());
}
