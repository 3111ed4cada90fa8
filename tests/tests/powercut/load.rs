//! The load under which the power is cut: what was acknowledged, and which commits a reader saw.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use air_nats::Nats;
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::Record;
use uuid::Uuid;

/// Jobs of the load.
const JOBS: usize = 8;
/// Tasks that wait at most: enough that the managers are never idle.
const QUEUED_MAX: usize = 160;
/// Time before a server that is away is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// A commit: task, attempt and run.
type Commit = (JobName, TaskId, u32, Option<Uuid>);

/// What is published, and what is known of it.
pub(crate) struct Load {
    /// Where the tasks note that they run, on a disk that nobody cuts.
    ran: PathBuf,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    published: usize,
    /// Published and not seen to be done, as far as that says how much to publish.
    waiting: usize,
    acknowledged: BTreeMap<JobName, Vec<TaskId>>,
    seen: BTreeSet<Commit>,
}

/// What a cut has taken.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Lost {
    /// Publishes that were acknowledged.
    pub(crate) acknowledged: usize,
    /// Those of them that are gone.
    pub(crate) tasks: usize,
    /// Commits that a reader had seen, and that are gone.
    pub(crate) commits: usize,
}

impl Load {
    /// Nothing yet; tasks note their runs in this folder.
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            ran: folder.join("ran"),
            known: Mutex::default(),
        }
    }

    /// The jobs of the load.
    pub(crate) fn jobs() -> Vec<JobName> {
        let name = |number| format!("load{number}").parse();
        (0..JOBS)
            .map(|number| name(number).expect("a name"))
            .collect()
    }

    /// Publishes and reads in turn until it is told to stop, whatever the server does.
    pub(crate) async fn run(&self, nats: &Nats, stop: &AtomicBool) {
        let mut from: BTreeMap<JobName, u64> = BTreeMap::new();
        while !stop.load(Ordering::Relaxed) {
            let mut away = false;
            for job in Self::jobs() {
                if self.known().waiting < QUEUED_MAX {
                    away |= self.publish(nats, &job).await.is_err();
                }
                let from = from.entry(job.clone()).or_default();
                match nats.records_after(&job, *from, 256).await {
                    Ok((records, _)) => {
                        *from = records.last().map_or(*from, |(seq, _)| *seq);
                        self.see(&job, &records);
                    }
                    Err(_) => away = true,
                }
            }
            if away {
                air_tests::time_passes(PAUSE).await;
            }
        }
    }

    /// Commits seen up to now.
    pub(crate) fn seen(&self) -> usize {
        self.known().seen.len()
    }

    /// Program starts beyond those that the load asks for.
    pub(crate) fn ran_again(&self) -> usize {
        let text = std::fs::read_to_string(&self.ran).unwrap_or_default();
        let mut runs: BTreeMap<&str, usize> = BTreeMap::new();
        for line in text.lines() {
            *runs.entry(line).or_default() += 1;
        }
        let again = |(task, count): (&str, usize)| {
            let wanted = if task.starts_with('r') { 2 } else { 1 };
            count.saturating_sub(wanted)
        };
        runs.into_iter().map(again).sum()
    }

    /// Compares what is there with what was; from now on only that counts which is there.
    pub(crate) async fn compare(&self, air: &air_tests::Installation, keep: bool) -> Lost {
        let (mut tasks, mut commits) = (BTreeSet::new(), BTreeSet::new());
        for job in Self::jobs() {
            for (_, record) in air.records(job.as_str()).await {
                tasks.insert((job.clone(), record.task.clone()));
                commits.insert(commit(&job, &record));
            }
            for queued in air.queue(job.as_str()).await {
                tasks.insert((job.clone(), queued.id.clone()));
            }
        }
        let mut known = self.known();
        let all = |known: &Known| known.acknowledged.values().map(Vec::len).sum::<usize>();
        let acknowledged = all(&known);
        let mut left = known.acknowledged.clone();
        for (job, ids) in &mut left {
            ids.retain(|id| tasks.contains(&(job.clone(), id.clone())));
        }
        let lost = Lost {
            acknowledged,
            tasks: acknowledged - left.values().map(Vec::len).sum::<usize>(),
            commits: known.seen.difference(&commits).count(),
        };
        if keep {
            air.set_acknowledged(left.clone());
            known.acknowledged = left;
            known.seen = commits;
            known.waiting = 0;
        }
        lost
    }

    /// Of ten tasks one queues a sub-task, and one fails at first: commits that are batches.
    async fn publish(&self, nats: &Nats, job: &JobName) -> Result<(), air_nats::Error> {
        let number = {
            let mut known = self.known();
            known.published += 1;
            known.waiting += 1;
            known.published
        };
        let (kind, then) = match number % 10 {
            3 => (
                "p",
                format!(r#"; echo '{{"id":"s{number}","run":"true"}}' >> $AIR_TASKS"#),
            ),
            7 => ("r", "; test $AIR_ATTEMPT -gt 1".to_owned()),
            _ => ("t", String::new()),
        };
        let id = format!("{kind}{number}");
        let line = format!("echo {id} >> {}{then}", self.ran.display());
        let task = serde_json::json!({ "id": id, "run": line }).to_string();
        nats.publish_task(job, None, task.into_bytes(), None)
            .await?;
        let id = id.parse().expect("an id");
        let mut known = self.known();
        known.acknowledged.entry(job.clone()).or_default().push(id);
        Ok(())
    }

    fn see(&self, job: &JobName, records: &[(u64, Record)]) {
        let mut known = self.known();
        for (_, record) in records {
            let ours = record.attempt == 1 && !record.task.as_str().starts_with('s');
            if known.seen.insert(commit(job, record)) && ours {
                known.waiting = known.waiting.saturating_sub(1);
            }
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().expect("nobody panics while it is held")
    }
}

fn commit(job: &JobName, record: &Record) -> Commit {
    (job.clone(), record.task.clone(), record.attempt, record.run)
}
