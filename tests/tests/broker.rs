//! What the protocol builds on, checked on a real server: expectations, batches, schedules, reads.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

use std::time::{Duration, SystemTime};

use air_nats::End;
use air_nats::commit::{Commit, Committed, NewTask, With};
use air_nats::jobs::{Key, Swap};
use air_nats::topology::Outcome;
use air_protocol::budget::Leash;
use air_protocol::job::{Change, Event, JobState};
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::{Record, Status};
use air_protocol::spec::{Spec, Wire};
use air_protocol::task::{Task, Work};
use air_protocol::time::Time;
use air_tests::{Installation, Server, ok, wait_for};

fn job() -> JobName {
    "j".parse().unwrap()
}

fn now() -> Time {
    SystemTime::now().into()
}

fn record(task: &str, status: Status, attempt: u32, after: u64) -> Record {
    Record::new(task.parse().unwrap(), status, attempt, now()).follows(None, after)
}

fn commit(record: Record, with: Vec<With>) -> Commit {
    Commit {
        job: job(),
        record,
        with,
        wire: Wire::Json,
    }
}

fn new_task(id: &str, attempt: u32) -> NewTask {
    NewTask {
        job: job(),
        id: id.parse().unwrap(),
        task: Task::new(Work::Run("true".into())),
        attempt,
        parent: Some("j/p".into()),
        leash: Leash::default(),
        traceparent: None,
    }
}

#[tokio::test]
async fn init_makes_what_is_missing_and_changes_nothing() {
    let server = Server::start();
    let nats = server.connect().await;
    assert!(
        nats.init(None, false)
            .await
            .unwrap()
            .iter()
            .all(|found| found.outcome == Outcome::Missing)
    );
    assert!(
        nats.init(Some(1), true)
            .await
            .unwrap()
            .iter()
            .all(|found| found.outcome == Outcome::Created)
    );
    assert!(
        nats.init(None, true)
            .await
            .unwrap()
            .iter()
            .all(|found| found.outcome == Outcome::Same)
    );
}

#[tokio::test]
async fn a_key_is_written_by_who_knows_its_revision() {
    let server = Server::start();
    let nats = server.connect_init().await;
    let state = JobState::new(now());
    assert_eq!(nats.job(&job()).await.unwrap(), Key::Absent);
    let Swap::Won(revision) = nats.write_job(&job(), &state, 0).await.unwrap() else {
        panic!("lost")
    };
    assert_eq!(nats.write_job(&job(), &state, 0).await.unwrap(), Swap::Lost);
    let Ok(Change::To(next)) = state.apply(&Event::Drained { at: 7 }, now()) else {
        panic!("no change")
    };
    assert!(matches!(
        nats.write_job(&job(), &next, revision).await.unwrap(),
        Swap::Won(_)
    ));
    let Key::State(read, _) = nats.job(&job()).await.unwrap() else {
        panic!("no state")
    };
    assert_eq!(read, next);
    let other = "other".parse().unwrap();
    let Swap::Won(written) = nats.write_job(&other, &state, 0).await.unwrap() else {
        panic!("lost")
    };
    let end = |written, newest| End { written, newest };
    assert_eq!(nats.jobs_end().await.unwrap(), end(written, written));
    nats.erase_job(&other, u64::MAX - 1).await.unwrap();
    assert_eq!(nats.job(&other).await.unwrap(), Key::Absent);
    let newest = written - 1;
    assert_eq!(
        nats.jobs_end().await.unwrap(),
        end(written, newest),
        "no watch tells what was erased"
    );
    nats.erase_job(&job(), u64::MAX - 1).await.unwrap();
    assert_eq!(nats.jobs_end().await.unwrap(), end(written, 0));
}

#[tokio::test]
async fn a_watch_knows_when_it_has_told_all() {
    let server = Server::start();
    let nats = server.connect_init().await;
    assert!(
        nats.watch_specs().await.unwrap().is_current(),
        "there is nothing"
    );
    let spec = Spec::default();
    for name in ["a", "b"] {
        let job = name.parse().unwrap();
        nats.write_spec(&job, &spec, 0).await.unwrap();
    }
    let mut watch = nats.watch_specs().await.unwrap();
    for is_current in [false, true] {
        let before = watch.is_current();
        watch.next().await.unwrap();
        assert_eq!((before, watch.is_current()), (false, is_current));
    }
    nats.delete_spec(&"b".parse().unwrap(), 1).await.unwrap();
    nats.delete_spec(&"a".parse().unwrap(), 1).await.unwrap();
    let marker = watch.next().await.unwrap();
    assert_eq!(
        (marker.key.as_str(), marker.value),
        ("a", None),
        "b is at 2, and stays"
    );
}

#[tokio::test]
async fn a_commit_is_taken_once_and_whole() {
    let server = Server::start();
    let nats = server.connect_init().await;
    let with: Vec<_> = (0..50)
        .map(|n| With::Task(new_task(&format!("s{n}"), 1)))
        .collect();
    let first = commit(record("p", Status::Succeeded, 1, 0), with);
    let Committed::At(seq) = nats.commit(&first).await.unwrap() else {
        panic!("refused")
    };
    assert_eq!(
        nats.last_record(&job(), &"p".parse().unwrap())
            .await
            .unwrap(),
        Some((seq, first.record.clone()))
    );
    assert_eq!(nats.commit(&first).await.unwrap(), Committed::Over);
    assert_eq!(
        nats.commit(&commit(record("p", Status::Failed, 2, 0), vec![]))
            .await
            .unwrap(),
        Committed::Over
    );
    let (queued, more) = nats.queued(&job(), 0, 100).await.unwrap();
    assert_eq!((queued.len(), more), (50, 0));
    assert_eq!(queued[49].id, "s49".parse::<TaskId>().unwrap());
    assert_eq!(queued[0].parent.as_deref(), Some("j/p"));
    nats.delete(queued[1].seq).await.unwrap();
    nats.delete(queued[1].seq).await.unwrap();
    let (queued, _) = nats.queued(&job(), queued[0].seq + 1, 1).await.unwrap();
    assert_eq!(queued[0].id, "s2".parse::<TaskId>().unwrap());
}

#[tokio::test]
async fn a_schedule_brings_a_task_back_unless_a_record_takes_it_away() {
    let server = Server::start();
    let nats = server.connect_init().await;
    let soon = now().after(Duration::from_millis(1500));
    for task in ["a", "b"] {
        let with = vec![With::Schedule(new_task(task, 2), soon)];
        assert!(matches!(
            nats.commit(&commit(record(task, Status::Retrying, 1, 0), with))
                .await,
            Ok(Committed::At(_))
        ));
    }
    assert_eq!(nats.scheduled(&job()).await.unwrap().len(), 2);
    let (after, _) = nats
        .last_record(&job(), &"b".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    let cancelled = commit(
        record("b", Status::Cancelled, 2, after),
        vec![With::Unschedule],
    );
    assert!(matches!(
        nats.commit(&cancelled).await,
        Ok(Committed::At(_))
    ));
    assert_eq!(nats.scheduled(&job()).await.unwrap().len(), 1);
    let back = wait_for("task", async || {
        let (queued, _) = nats.queued(&job(), 0, 10).await.unwrap();
        if queued.is_empty() {
            Err("an empty queue")
        } else {
            Ok(queued)
        }
    })
    .await;
    assert_eq!(
        (back[0].id.as_str(), back[0].attempt, back.len()),
        ("a", 2, 1)
    );
    assert!(nats.scheduled(&job()).await.unwrap().is_empty());
}

#[tokio::test]
async fn records_are_read_in_order_and_by_task() {
    let server = Server::start();
    let nats = server.connect_init().await;
    for n in 0..5 {
        nats.commit(&commit(
            record(&format!("t{n}"), Status::Succeeded, 1, 0),
            vec![],
        ))
        .await
        .unwrap();
    }
    let (records, more) = nats.records_after(&job(), 0, 3).await.unwrap();
    assert_eq!((records.len(), more), (3, true));
    let (records, more) = nats.records_after(&job(), records[2].0, 3).await.unwrap();
    assert_eq!((records.len(), more), (2, false));
    nats.publish_task(&job(), None, br#"{"run":"true"}"#.to_vec(), None)
        .await
        .unwrap();
    let wanted = [
        (job(), "t1".parse().unwrap()),
        (job(), "none".parse().unwrap()),
    ];
    let lasts = nats.last_records(&job(), &wanted).await.unwrap();
    assert_eq!(lasts.records.len(), 1);
    assert_eq!(lasts.up_to, Some(6));
    let depth = nats.depth(&nats.names().tasks(&job())).await.unwrap();
    assert_eq!((depth.messages.len(), depth.last_seq), (1, 6));
}

#[tokio::test]
async fn an_id_of_the_system_is_no_users() {
    let server = Server::start();
    let nats = server.connect_init().await;
    let seq = nats
        .publish_task(&job(), None, br#"{"run":"true","id":"_77"}"#.to_vec(), None)
        .await
        .unwrap();
    let again = nats
        .publish_task(&job(), None, br#"{"run":"true"}"#.to_vec(), Some("once"))
        .await
        .unwrap();
    assert_eq!(
        nats.publish_task(&job(), None, br#"{"run":"true"}"#.to_vec(), Some("once"))
            .await
            .unwrap(),
        again
    );
    let (queued, _) = nats.queued(&job(), 0, 10).await.unwrap();
    assert_eq!(queued.len(), 2);
    assert_eq!(queued[0].id, TaskId::of_sequence(seq));
    assert!(queued[0].task.as_ref().unwrap_err().reason.contains("_77"));
}

#[tokio::test]
async fn blobs_come_back_as_they_were() {
    let server = Server::start();
    let nats = server.connect_init().await;
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    nats.put_blob("b", &bytes).await.unwrap();
    assert_eq!(nats.get_blob("b").await.unwrap(), Some(bytes));
    assert!(nats.delete_blob("b").await.unwrap());
    assert!(!nats.delete_blob("b").await.unwrap(), "it is gone");
    assert_eq!(nats.get_blob("b").await.unwrap(), None);
    let run = uuid::Uuid::now_v7();
    for name in [run.to_string(), format!("{run}.1"), format!("{run}.2")] {
        nats.put_blob(&name, b"x").await.unwrap();
    }
    nats.delete_blobs_of(run).await.unwrap();
    assert_eq!(nats.get_blob(&format!("{run}.2")).await.unwrap(), None);
    let left = nats.stream_messages("OBJ_air-blobs").await.unwrap();
    assert_eq!(left, 0, "not even a marker is left");
}

/// A server that leads the logs dies: until another one does, nobody takes what a task prints.
#[tokio::test]
async fn a_chunk_that_nobody_takes_is_stored_when_somebody_does() {
    let air = Installation::start(0).await;
    ok(&mut air.nats_cli(&["stream", "rm", "--force", "AIR_LOGS"]));
    let run = uuid::Uuid::now_v7();
    let mut log = (air.nats).log_writer(&job(), &"t".parse().unwrap(), 1, run);
    log.write("hi".into()).await.unwrap();
    // What came before it on the connection was refused by now.
    air.nats.stream_messages("AIR").await.unwrap();
    let (finished, made) = tokio::join!(log.finish(), air.nats.init(None, true));
    finished.unwrap();
    made.unwrap();
    let chunks = air.nats.logs(&job(), None, 1, 10).await.unwrap();
    let texts: Vec<_> = chunks.iter().map(|chunk| &chunk.payload[..]).collect();
    assert_eq!(texts, [b"hi"]);
}

/// Who reads a blob has the one or the other, and never waits for parts that are gone.
#[tokio::test]
async fn a_blob_that_is_replaced_all_the_time_can_be_read() {
    let server = Server::start();
    let nats = server.connect_init().await;
    let bytes = |n: u8| vec![n; 300_000];
    nats.put_blob("b", &bytes(0)).await.unwrap();
    let write = async {
        for n in 1..100 {
            nats.put_blob("b", &bytes(n)).await.unwrap();
        }
        nats.delete_blob("b").await.unwrap();
    };
    let read = async {
        while let Some(found) = nats.get_blob("b").await.unwrap() {
            assert_eq!(found, bytes(found[0]));
        }
    };
    tokio::join!(write, read);
}

/// One of which a part is gone for good is told, and not waited for.
#[tokio::test]
async fn a_blob_that_lacks_a_part_is_told() {
    let server = Server::start();
    let nats = server.connect_init().await;
    nats.put_blob("b", &[7; 300_000]).await.unwrap();
    let parts = "$O.air-blobs.C.>";
    nats.purge("OBJ_air-blobs", parts, Some(1)).await.unwrap();
    let told = nats.get_blob("b").await.unwrap_err().to_string();
    assert!(told.contains("the blob b lacks"), "{told}");
}

#[tokio::test]
async fn any_of_several_servers_will_do() {
    let server = Server::start();
    let dead = "nats://127.0.0.1:1";
    for url in [
        format!("{dead},{}", server.url()),
        format!("{},{dead}", server.url()),
    ] {
        let options = air_nats::Options {
            url: Some(url.clone()),
            ..air_nats::Options::default()
        };
        let nats = air_nats::Nats::connect(&options, "test").await;
        assert!(nats.is_ok(), "{url}: {nats:?}");
    }
}

#[tokio::test]
async fn another_number_of_copies_is_told() {
    let server = Server::start();
    let nats = server.connect_init().await;
    let found = nats.init(Some(3), true).await.unwrap();
    let Outcome::Differs(differences) = &found[0].outcome else {
        panic!("{found:?}")
    };
    assert_eq!(differences[..], ["num_replicas is 1, should be 3"]);
}

#[tokio::test]
async fn a_consumer_of_wakeups_that_is_dropped_is_made_anew() {
    let server = Server::start();
    let nats = server.connect_init().await;
    nats.drop_wakeups().await.unwrap();
    assert!(
        nats.init(None, false)
            .await
            .unwrap()
            .iter()
            .any(|found| found.outcome == Outcome::Missing)
    );
    nats.wakeups().await.unwrap();
    assert!(
        nats.init(None, false)
            .await
            .unwrap()
            .iter()
            .all(|found| found.outcome == Outcome::Same)
    );
}
