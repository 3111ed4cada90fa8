//! Histories that somebody has damaged: each kind of damage is named, and where it stands.

use std::process::Command;

use air_protocol::budget::{Account, Wants};
use air_protocol::job::{JobState, JobStatus};
use air_protocol::lease::{Phase, Running, Target};
use air_protocol::names::JobName;
use air_protocol::record::{Record, Status};
use air_tests::Installation;
use serde_json::json;
use uuid::Uuid;

use crate::verify;

fn name(job: &str) -> JobName {
    job.parse().unwrap()
}

/// Jobs with three tasks that are done, the second with two attempts; nobody goes on with them.
async fn done(jobs: &[&str]) -> Installation {
    let mut air = Installation::start(1).await;
    for job in jobs {
        for (task, line) in [
            ("a", "true"),
            ("b", "test $AIR_ATTEMPT -eq 2"),
            ("c", "true"),
        ] {
            let task = json!({"id": task, "run": line, "retry": {"backoff": "1ms"}});
            air.publish(job, &task.to_string()).await;
        }
    }
    for job in jobs {
        air.wait_completed(job).await;
    }
    air.managers.clear();
    for job in jobs {
        verify(&air, &[job]).is_proven();
    }
    air
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Stores a record as only the system may.
fn forge(air: &Installation, job: &str, record: &Record) {
    let subject = format!("air.results.{job}.{}", record.task);
    let text = serde_json::to_string(record).unwrap();
    run(&mut air.nats_cli(&["pub", "--jetstream", &subject, &text]));
}

/// The record at an index of a job's history.
async fn nth(air: &Installation, job: &str, index: usize) -> (u64, Record) {
    air.records(job).await.swap_remove(index)
}

/// The state of a job, and a way to write another one.
async fn rewrite(air: &Installation, job: &str, change: impl FnOnce(&mut JobState)) {
    let key = air.nats.job(&name(job)).await.unwrap();
    let mut state = key.state().unwrap().clone();
    change(&mut state);
    let written = air.nats.write_job(&name(job), &state, key.revision()).await;
    assert!(
        matches!(written, Ok(air_nats::jobs::Swap::Won(_))),
        "{written:?}"
    );
}

/// A record like that of the last run, of a new task by a later run.
async fn later(air: &Installation, job: &str) -> Record {
    let (seq, last) = air.records(job).await.pop().unwrap();
    let key = air.nats.job(&name(job)).await.unwrap();
    Record {
        task: "x".parse().unwrap(),
        run: Some(Uuid::now_v7()),
        fence: Some(key.revision()),
        released: Some(seq),
        previous: None,
        after: 0,
        attempt: 1,
        ..last
    }
}

#[tokio::test]
async fn records_that_are_gone() {
    let air = done(&["first", "middle", "last"]).await;
    let (seq, _) = nth(&air, "first", 0).await;
    air.nats.delete(seq).await.unwrap();
    verify(&air, &["first"]).names("I8", "the counters are");
    let said = verify(&air, &["first", "--strict"]);
    assert_eq!(said.verdict("I2"), "proven", "{:#}", said.json);

    let (seq, record) = nth(&air, "middle", 1).await;
    assert_eq!(record.status, Status::Retrying);
    air.nats.delete(seq).await.unwrap();
    let said = verify(&air, &["middle"]);
    said.names("I2", "the first record is succeeded, attempt 2");
    said.names("I8", "the counters are");
    let places = said.names("I3", &format!("tells of the record {seq}, which is gone"));
    assert_eq!(places[0], ("air.results.middle.b".to_owned(), seq));
    assert!(
        places[1].0.starts_with("air.events.middle.committed"),
        "{places:?}"
    );

    let (seq, _) = air.records("last").await.pop().unwrap();
    air.nats.delete(seq).await.unwrap();
    let said = verify(&air, &["last"]);
    said.names(
        "I3",
        &format!("the job's key tells of the record {seq}, which is gone"),
    );
    said.names("I3", &format!("an event tells of the record {seq}"));

    let all = verify(&air, &[]);
    all.names("I2", "the first record is succeeded");
    all.names("I3", "which is gone");
}

#[tokio::test]
async fn a_second_record_of_a_task() {
    let air = done(&["j", "k"]).await;
    let (seq, record) = nth(&air, "j", 0).await;
    let second = Record {
        run: Some(Uuid::now_v7()),
        ..record.clone()
    };
    forge(&air, "j", &second);
    let said = verify(&air, &["j"]);
    let places = said.names("I2", "succeeded follows the final record succeeded");
    assert_eq!(places[0], ("air.results.j.a".to_owned(), seq));
    said.names("I1", "stands behind one of");

    let wrong = Record {
        task: "y".parse().unwrap(),
        ..later(&air, "k").await
    };
    let text = serde_json::to_string(&wrong).unwrap();
    run(&mut air.nats_cli(&["pub", "--jetstream", "air.results.k.z", &text]));
    verify(&air, &["k"]).names("I2", "says that it is of the task y");
}

#[tokio::test]
async fn runs_that_overlap() {
    let air = done(&["handed", "fence", "above", "twice", "order"]).await;
    let overlapping = Record {
        released: Some(nth(&air, "handed", 0).await.0),
        seq: Some(1),
        spec: None,
        ..later(&air, "handed").await
    };
    forge(&air, "handed", &overlapping);
    let said = verify(&air, &["handed"]);
    let places = said.names("I1", "two leases at once");
    assert_eq!(places.len(), 2, "{places:?}");

    let (_, last) = air.records("fence").await.pop().unwrap();
    let stolen = Record {
        fence: last.fence,
        ..later(&air, "fence").await
    };
    forge(&air, "fence", &stolen);
    verify(&air, &["fence"]).names("I1", "belongs to two runs");

    let unclaimed = Record {
        fence: Some(1_000_000),
        ..later(&air, "above").await
    };
    forge(&air, "above", &unclaimed);
    verify(&air, &["above"]).names("I1", "no claim had it");

    let (_, last) = air.records("twice").await.pop().unwrap();
    let again = Record {
        run: last.run,
        ..later(&air, "twice").await
    };
    forge(&air, "twice", &again);
    verify(&air, &["twice"]).names("I1", "under the fences");

    let (first, _) = nth(&air, "order", 0).await;
    let early = Record {
        seq: nth(&air, "order", 0).await.1.seq.map(|seq| seq - 1),
        ..later(&air, "order").await
    };
    forge(&air, "order", &early);
    let places = verify(&air, &["order"]).names("I7", "had its turn");
    assert!(places[0].1 > first, "{places:?}");
}

#[tokio::test]
async fn keys_that_do_not_say_what_happened() {
    let air = done(&["counters", "lease", "drained", "starting"]).await;
    rewrite(&air, "counters", |state| {
        state.ledger.counters.succeeded += 1
    })
    .await;
    let places = verify(&air, &["counters"]).names("I8", "the counters are");
    assert_eq!(places[0].0, "$KV.air-jobs.counters");

    let (_, first) = nth(&air, "lease", 0).await;
    let target = Target {
        task: first.task.clone(),
        seq: first.seq.unwrap(),
        attempt: 1,
        expected: 0,
    };
    let lease = |phase| air_protocol::lease::Lease {
        runner: first.run.unwrap(),
        manager: "m".into(),
        backend: "process".into(),
        realm: None,
        budget: None,
        claimed: first.ended,
        renewed: first.ended,
        ttl: air_protocol::time::Span(air_protocol::limits::LEASE_TTL_DEFAULT),
        start_within: air_protocol::time::Span::default(),
        phase,
    };
    let running = Phase::Running(Running {
        target: target.clone(),
        fence: first.fence.unwrap(),
        started: first.ended,
        host: "h".into(),
    });
    let working = |phase| JobStatus::Working {
        lease: lease(phase),
    };
    rewrite(&air, "lease", |state| state.status = working(running)).await;
    let places = verify(&air, &["lease"]).names("I1", "the lease is older than the last record");
    assert_eq!(places[1].0, "$KV.air-jobs.lease");

    rewrite(&air, "drained", |state| {
        state.status = JobStatus::Completed { drained: 1_000_000 };
    })
    .await;
    let seq = air.publish("drained", r#"{"run":"true"}"#).await;
    let places = verify(&air, &["drained"]).names("I8", "a live task waits");
    assert_eq!(places, [("air.tasks.drained".to_owned(), seq)]);

    let (_, first) = nth(&air, "starting", 0).await;
    let phase = Phase::Starting { target };
    let mut lease = lease(phase);
    lease.runner = first.run.unwrap();
    rewrite(&air, "starting", |state| {
        state.status = JobStatus::Working { lease }
    })
    .await;
    verify(&air, &["starting"]).names("I1", "the lease is older than the last record");
}

#[tokio::test]
async fn an_account_that_lacks_what_records_say() {
    let mut air = Installation::start(1).await;
    air.spec("j", r#"{"budget":{"tasks":9}}"#).await;
    air.publish("j", r#"{"id":"a","run":"true"}"#).await;
    let queues = "airx task add --job k --run true";
    let task = json!({"id": "b", "run": queues});
    air.publish("j", &task.to_string()).await;
    air.wait_completed("j").await;
    air.wait_completed("k").await;
    air.managers.clear();
    verify(&air, &[]).is_proven();

    let root = name("j");
    let (_, last) = air.records("k").await.remove(0);
    let wants = Wants {
        job: name("k"),
        task: last.task.clone(),
        attempt: 1,
        depth: 1,
        agent: None,
    };
    let forget = async |reserves: bool| {
        let change = |account: Option<Account>| {
            let mut account = account.unwrap();
            account.spent.tasks = 2;
            if reserves {
                let runner = last.run.unwrap();
                account.reserve(runner, &wants, last.ended).unwrap();
            }
            (Some(account), ())
        };
        air.nats.change_account(&root, change).await.unwrap();
    };
    forget(false).await;
    let (_, revision) = air.nats.account(&root).await.unwrap();
    let said = verify(&air, &[]);
    let places = said.names("I8", "turns 0, tasks 2, but records say 0.00 USD");
    assert_eq!(places, [("$KV.air-budgets.j".to_owned(), revision)]);
    // Of the one job two tasks are known, and those of others may have been removed.
    verify(&air, &["j"]).is_proven();
    forget(true).await;
    verify(&air, &[]).is_proven();
}

#[tokio::test]
async fn messages_that_nothing_asks_for() {
    let air = done(&["j", "k"]).await;
    let task = r#"{"id":"a","run":"true"}"#;
    run(&mut air.nats_cli(&[
        "pub",
        "--jetstream",
        "-H",
        "Air-Attempt:2",
        "air.tasks.j",
        task,
    ]));
    let said = verify(&air, &["j"]);
    let places = said.names("I2", "no record of attempt 1 asks for it");
    assert_eq!(places[0].0, "air.tasks.j");

    let task = r#"{"id":"ghost","run":"true"}"#;
    let parent = "Air-Parent:k/never";
    run(&mut air.nats_cli(&["pub", "--jetstream", "-H", parent, "air.tasks.j", task]));
    let places = verify(&air, &["k"]);
    assert_eq!(places.code, 0, "it is in another job: {:#}", places.json);
    let places = verify(&air, &["j"]).names("I5", "such as j/ghost");
    assert_eq!(places[0].0, "air.tasks.j");
    verify(&air, &[]).names("I5", "it has no record of a success, but 1 sub-task");
}

#[tokio::test]
async fn families_that_are_not_whole() {
    let mut air = Installation::start(1).await;
    air.spec("wide", r#"{"paused":true}"#).await;
    let many =
        r#"for i in $(seq 1100); do echo "{\"run\":\"true\",\"job\":\"wide\"}"; done > $AIR_TASKS"#;
    for (job, line) in [
        ("few", "airx task add -- true; airx task add -- true"),
        ("many", many),
    ] {
        air.spec(job, r#"{"on_failure":"continue"}"#).await;
        air.publish(job, &json!({"id": "parent", "run": line}).to_string())
            .await;
        if job == "many" {
            air.wait_record(job, "parent", Status::Succeeded).await;
        } else {
            air.wait_completed(job).await;
        }
    }
    air.wait_completed("many").await;
    air.managers.clear();
    verify(&air, &[]).is_proven();

    // As if the fan-out had not had its turn.
    let (seq, fanout) = air.records("many").await.pop().unwrap();
    air.nats.delete(seq).await.unwrap();
    let text = serde_json::to_string(fanout.spec.as_ref().unwrap()).unwrap();
    run(&mut air.nats_cli(&["pub", "--jetstream", "air.tasks.many", &text]));
    let said = verify(&air, &["many"]);
    let run_of = nth(&air, "many", 0).await.1.run.unwrap();
    let places = said.names("I5", &format!("in the blob {run_of}.1, which is gone"));
    assert_eq!(places[1].0, format!("air-blobs {run_of}.1"));

    let (seq, _) = nth(&air, "few", 0).await;
    air.nats.delete(seq).await.unwrap();
    verify(&air, &["few"]).names("I5", "it has no record of a success, but 2 sub-tasks");
}

#[tokio::test]
async fn what_was_lost() {
    let mut air = Installation::start(1).await;
    let big = r#"head -c 700000 /dev/zero | tr '\0' x | sed 's/^/"/;s/$/"/' > $AIR_OUTPUT"#;
    air.publish("big", &json!({"id": "t", "run": big}).to_string())
        .await;
    air.wait_completed("big").await;
    let later = json!({"id": "t", "run": "false", "retry": {"backoff": "1h", "max_backoff": "1h"}});
    air.publish("later", &later.to_string()).await;
    air.wait_record("later", "t", Status::Retrying).await;
    air.wait_state("later", |state| state.lease().is_none())
        .await;
    air.managers.clear();
    verify(&air, &[]).is_proven();

    let (seq, record) = nth(&air, "big", 0).await;
    let blob = record.output_blob.unwrap();
    assert!(air.nats.delete_blob(&blob).await.unwrap());
    let places = verify(&air, &["big"]).names("I3", "its output is in the blob");
    assert_eq!(places[0], ("air.results.big.t".to_owned(), seq));

    let stream = air.nats.names().stream();
    let schedules = air.nats.names().job_schedules(&name("later"));
    air.nats.purge(&stream, &schedules, None).await.unwrap();
    let said = verify(&air, &["later"]);
    let places = said.names("I3", "its next attempt is neither queued nor scheduled");
    assert_eq!(places[0].0, "air.results.later.t");
    let table = air.airx(&["verify"]).output().unwrap();
    let text = String::from_utf8(table.stdout).unwrap();
    assert!(text.contains("! I3 nothing-lost: later/t: "), "{text}");
    assert!(text.contains("\n  at air.results.later.t "), "{text}");
    assert!(text.contains("\n  which means: work is lost"), "{text}");
}
