//! The model's broker against a real server: the same requests, the same answers, the same contents.
//!
//! The search and the simulation of `air-model` stand on that broker; here is what holds it to the truth.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use air_model::broker::Publish;
use air_model::store::{Answer, Content, Message, Store, Value, Write};
use air_nats::commit::{Commit, Committed, NewTask, With};
use air_nats::jobs::{Key, Swap};
use air_nats::queue::Queued;
use air_nats::{Nats, Options};
use air_protocol::budget::Leash;
use air_protocol::job::JobState;
use air_protocol::names::JobName;
use air_protocol::record::{Record, Status};
use air_protocol::spec::Wire;
use air_protocol::task::{Task, Work};
use air_protocol::time::Time;
use air_tests::{Server, Servers, wait_for, wait_for_within};

/// Long enough for what is there before it to be seen.
const SOON: Duration = Duration::from_secs(4);
/// A replica is never behind for longer.
const LAG_MAX: Duration = Duration::from_secs(10);

/// One request.
#[derive(Debug, Clone)]
enum Request {
    /// A user publishes a task, perhaps with an id under which repetitions are dropped.
    Publish(&'static str, Option<&'static str>),
    /// A record of a task, expecting this one to be the last, with what goes with it.
    Commit(&'static str, u64, Vec<Beside>),
    /// A task's next attempt again, expecting this to be its last record.
    Again(Beside, u64),
    /// The key, expecting a revision.
    Key(u64),
    /// Every trace of the key up to a revision.
    Erase(u64),
    /// One message.
    Delete(u64),
    /// The queue up to a sequence.
    PurgeQueue(u64),
    /// The records up to a sequence.
    PurgeRecords(u64),
    /// The schedules up to a sequence.
    PurgeSchedules(u64),
    /// Waits until a schedule has fired.
    Fire,
}

/// What goes with a record.
#[derive(Debug, Clone, Copy)]
enum Beside {
    /// A task at once.
    Task(&'static str),
    /// A task, soon or in an hour.
    Soon(&'static str),
    /// In an hour.
    Later(&'static str),
    /// The own schedule goes.
    Unschedule,
}

use Beside::{Later, Soon, Unschedule};
use Request::{Delete, Erase, Fire, PurgeQueue, PurgeRecords, PurgeSchedules};

/// What the broker holds.
#[derive(Debug, PartialEq)]
struct Seen {
    queue: Vec<(u64, String, u32)>,
    schedules: Vec<(u64, String)>,
    records: Vec<u64>,
    last: Option<u64>,
    lasts: (Vec<u64>, Option<u64>),
    at: Vec<u64>,
    end: u64,
    key: u64,
}

fn job() -> JobName {
    "j".parse().unwrap()
}

fn now() -> Time {
    SystemTime::now().into()
}

fn task(id: &str) -> Task {
    let mut task = Task::new(Work::Run("true".into()));
    task.id = Some(id.parse().unwrap());
    task
}

fn with(one: &Beside) -> With {
    let new = |id: &str| NewTask {
        job: job(),
        id: id.parse().unwrap(),
        task: task(id),
        attempt: 2,
        parent: None,
        leash: Leash::default(),
        traceparent: None,
    };
    match one {
        Beside::Task(id) => With::Task(new(id)),
        Soon(id) => With::Schedule(new(id), now().after(SOON)),
        Later(id) => With::Schedule(new(id), now().after(Duration::from_secs(3600))),
        Unschedule => With::Unschedule,
    }
}

fn commit(id: &str, after: u64, beside: &[Beside]) -> Commit {
    let record = Record::new(id.parse().unwrap(), Status::Retrying, 1, now());
    Commit {
        job: job(),
        record: record.follows(None, after),
        with: beside.iter().map(with).collect(),
        wire: Wire::Json,
    }
}

/// Does it; `end` is the last sequence before.
async fn on_server(nats: &Nats, request: &Request, end: u64) -> Option<u64> {
    let names = nats.names();
    let purge = async |subject: String, up_to| {
        nats.purge(&names.stream(), &subject, Some(up_to))
            .await
            .unwrap();
        Some(0)
    };
    match request {
        Request::Publish(id, once) => {
            let text = serde_json::to_vec(&task(id)).unwrap();
            Some(nats.publish_task(&job(), None, text, *once).await.unwrap())
        }
        Request::Commit(id, after, beside) => {
            match nats.commit(&commit(id, *after, beside)).await.unwrap() {
                Committed::At(seq) => Some(seq),
                Committed::Over => None,
                Committed::Refused(text) => panic!("{text}"),
            }
        }
        Request::Again(beside, last) => {
            let again = with(beside);
            let stored = nats.publish_again(&again, *last, Wire::Json).await.unwrap();
            let end = nats.stream_end(&names.stream()).await.unwrap();
            stored.then_some(end)
        }
        Request::Key(expected) => {
            match nats
                .write_job(&job(), &JobState::new(now()), *expected)
                .await
                .unwrap()
            {
                Swap::Won(revision) => Some(revision),
                Swap::Lost => None,
            }
        }
        Erase(revision) => {
            nats.erase_job(&job(), *revision).await.unwrap();
            Some(0)
        }
        Delete(seq) => {
            nats.delete(*seq).await.unwrap();
            Some(*seq)
        }
        PurgeQueue(up_to) => purge(names.tasks(&job()), *up_to).await,
        PurgeRecords(up_to) => purge(names.job_results(&job()), *up_to).await,
        PurgeSchedules(up_to) => purge(names.job_schedules(&job()), *up_to).await,
        Fire => {
            let fired = wait_for("fired schedule", async || {
                let (queued, _) = nats.queued(&job(), end + 1, 100).await.unwrap();
                queued.last().map(|one| one.seq).ok_or(end)
            });
            Some(fired.await)
        }
    }
}

fn on_model(store: &mut Store, request: &Request) -> Option<u64> {
    let names = store.names().clone();
    let write = match request {
        Request::Publish(id, once) => {
            let content = Content::Task(Box::new(Message {
                task: Ok(task(id)),
                attempt: 1,
                parent: None,
            }));
            let mut message = Publish::new(names.tasks(&job()), content);
            message.id = once.map(str::to_owned);
            return store.air.publish(message, now()).ok();
        }
        Fire => {
            let (seq, _) = store.air.schedules().min_by_key(|(_, at)| *at).unwrap();
            return store.air.fire(seq, now());
        }
        Request::Commit(id, after, beside) => {
            Write::Commit(Arc::new(commit(id, *after, beside)), true)
        }
        Request::Again(beside, last) => Write::Again(Arc::new(with(beside)), *last),
        Request::Key(expected) => {
            let value = Value::State(Box::new(JobState::new(now())));
            Write::Key(job(), Arc::new(value), Some(*expected))
        }
        Erase(revision) => Write::Erase(job(), *revision),
        Delete(seq) => Write::Delete(*seq),
        PurgeQueue(up_to) => Write::Purge(names.tasks(&job()), *up_to),
        PurgeRecords(up_to) => Write::Purge(names.job_results(&job()), *up_to),
        PurgeSchedules(up_to) => Write::Purge(names.job_schedules(&job()), *up_to),
    };
    match store.apply(&write, now()) {
        Answer::At(seq) => Some(seq),
        Answer::Superseded => None,
    }
}

/// The tasks whose last records are looked at.
fn wanted() -> Vec<(JobName, air_protocol::names::TaskId)> {
    ["a", "b"].map(|id| (job(), id.parse().unwrap())).into()
}

fn ids(messages: &[Queued]) -> Vec<(u64, String)> {
    let id = |one: &Queued| (one.seq, one.id.to_string());
    messages.iter().map(id).collect()
}

fn attempts(messages: &[Queued]) -> Vec<(u64, String, u32)> {
    let attempt = |one: &Queued| (one.seq, one.id.to_string(), one.attempt);
    messages.iter().map(attempt).collect()
}

async fn server_holds(nats: &Nats) -> Seen {
    let lasts = nats.last_records(&job(), &wanted()).await.unwrap();
    let mut last_seqs: Vec<_> = lasts.records.values().map(|(seq, _)| *seq).collect();
    last_seqs.sort_unstable();
    let (queue, _) = nats.queued(&job(), 0, 100).await.unwrap();
    let end = nats.stream_end(&nats.names().stream()).await.unwrap();
    let mut at = Vec::new();
    for seq in 1..=end {
        at.extend(
            nats.queued_at(&job(), seq)
                .await
                .unwrap()
                .filter(|one| one.task.is_ok())
                .map(|_| seq),
        );
    }
    Seen {
        queue: attempts(&queue),
        schedules: ids(&nats.scheduled(&job()).await.unwrap()),
        records: (nats.records_after(&job(), 0, 100).await.unwrap().0.iter())
            .map(|(seq, _)| *seq)
            .collect(),
        last: nats
            .last_record(&job(), &"a".parse().unwrap())
            .await
            .unwrap()
            .map(|(seq, _)| seq),
        lasts: (last_seqs, lasts.up_to),
        at,
        end,
        key: nats.job(&job()).await.unwrap().revision(),
    }
}

fn model_holds(store: &Store) -> Seen {
    let lasts = store.last_records(&store.air, &job(), &wanted());
    let mut last_seqs: Vec<_> = lasts.records.values().map(|(seq, _)| *seq).collect();
    last_seqs.sort_unstable();
    let queue = store.queued(&store.air, &job(), 0);
    let scheduled = store.scheduled(&store.air, &job());
    Seen {
        queue: attempts(&queue),
        schedules: ids(&scheduled),
        records: (store.records_after(&store.air, &job(), 0).iter())
            .map(|(seq, _)| *seq)
            .collect(),
        last: store
            .last_record(&job(), &"a".parse().unwrap())
            .map(|(seq, _)| seq),
        lasts: (last_seqs, lasts.up_to),
        at: (1..=store.air.last_seq())
            .filter(|seq| store.queued_at(&job(), *seq).is_some())
            .collect(),
        end: store.air.last_seq(),
        key: store.key(&job()).revision(),
    }
}

/// Runs the requests on both, and compares after each. Replicas may lag: what the server holds is looked at until it
/// is what the model holds.
async fn both_agree(nats: &Nats, name: &str, requests: &[Request]) {
    let mut store = Store::default();
    for (number, request) in requests.iter().enumerate() {
        let answer = on_server(nats, request, store.air.last_seq()).await;
        let wanted = on_model(&mut store, request);
        assert_eq!(
            answer, wanted,
            "{name}: answer to request {number}: {request:?}"
        );
        let wanted = model_holds(&store);
        let what =
            format!("agreement in `{name}` after request {number}, {request:?}, on {wanted:?}");
        wait_for_within(LAG_MAX, &what, async || {
            let real = server_holds(nats).await;
            if real == wanted { Ok(()) } else { Err(real) }
        })
        .await;
    }
    assert_eq!(
        store.key(&job()) == Key::Absent,
        nats.job(&job()).await.unwrap() == Key::Absent
    );
}

/// Each scenario in an installation of its own on these servers.
async fn all_agree(urls: &str, replicas: usize) {
    for (number, (name, requests)) in scenarios().iter().enumerate() {
        let options = Options {
            url: Some(urls.to_owned()),
            names: format!("air{number}").parse().unwrap(),
            ..Options::default()
        };
        let nats = wait_for("server that takes streams", async || {
            let nats = Nats::connect(&options, "test").await;
            let nats = nats.map_err(|error| error.to_string())?;
            let made = nats.init(Some(replicas), true).await;
            made.map(|_| nats).map_err(|error| error.to_string())
        })
        .await;
        both_agree(&nats, name, requests).await;
    }
}

#[tokio::test]
async fn the_model_is_like_one_server() {
    all_agree(&Server::start().url(), 1).await;
}

#[tokio::test]
async fn the_model_is_like_three_servers() {
    all_agree(&Servers::cluster().urls(), 3).await;
}

fn publish(id: &'static str) -> Request {
    Request::Publish(id, None)
}

fn record(id: &'static str, after: u64, beside: &[Beside]) -> Request {
    Request::Commit(id, after, beside.to_vec())
}

/// What is asked, one request after another.
fn scenarios() -> Vec<(&'static str, Vec<Request>)> {
    [about_records(), about_the_rest()].concat()
}

#[rustfmt::skip]
fn about_records() -> Vec<(&'static str, Vec<Request>)> {
    vec![
        ("an expectation decides", vec![
            publish("a"),
            record("a", 7, &[]),
            record("a", 0, &[]),
            record("a", 0, &[]),
            record("b", 2, &[]),
            record("a", 2, &[]),
            record("a", 2, &[]),
        ]),
        ("what comes again is stored while its record is the last", vec![
            publish("a"),
            record("a", 0, &[Later("a")]),
            PurgeSchedules(9),
            Request::Again(Later("a"), 1),
            Request::Again(Later("a"), 2),
            Request::Again(Later("a"), 2),
            Request::Again(Beside::Task("a"), 2),
            record("a", 2, &[]),
            Request::Again(Beside::Task("a"), 2),
            Request::Again(Soon("a"), 2),
            Request::Again(Beside::Task("b"), 0),
        ]),
        ("a batch is stored whole or not at all", vec![
            publish("a"),
            record("a", 0, &[Beside::Task("x"), Beside::Task("y")]),
            record("a", 0, &[Beside::Task("z"), Later("a")]),
            record("a", 2, &[Later("a"), Beside::Task("z")]),
        ]),
    ]
}

#[rustfmt::skip]
fn about_the_rest() -> Vec<(&'static str, Vec<Request>)> {
    use Request::Key;
    vec![
        ("a key is compared and swapped", vec![
            Key(3),
            Key(0),
            Key(0),
            Key(1),
            Key(1),
            Erase(1),
            Erase(2),
            Key(2),
            Key(0),
        ]),
        ("what is deleted is no last message", vec![
            publish("a"),
            record("a", 0, &[]),
            record("a", 2, &[]),
            Delete(3),
            Delete(3),
            record("a", 3, &[]),
            Delete(1),
            publish("b"),
        ]),
        ("a purge ends at its sequence", vec![
            publish("a"),
            publish("b"),
            record("a", 0, &[Later("a")]),
            publish("c"),
            PurgeQueue(2),
            PurgeSchedules(3),
            PurgeSchedules(9),
            record("a", 3, &[]),
            PurgeRecords(4),
            record("a", 0, &[]),
            PurgeRecords(99),
            record("a", 0, &[]),
        ]),
        ("a schedule fires once and a new one replaces it", vec![
            record("a", 0, &[Later("a")]),
            record("a", 1, &[Soon("a")]),
            Fire,
            record("b", 0, &[Later("b")]),
            record("b", 6, &[Unschedule]),
            record("b", 6, &[Unschedule]),
        ]),
        ("an id is stored once", vec![
            Request::Publish("a", Some("once")),
            Request::Publish("a", Some("once")),
            Request::Publish("b", Some("twice")),
            publish("a"),
        ]),
    ]
}
