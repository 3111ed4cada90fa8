//! Publishes tasks again whose next message is gone: `manager/src/requeue.rs`.

use std::collections::VecDeque;
use std::sync::Arc;

use air_manager::requeue::{Unseen, again};
use air_nats::commit::With;
use air_protocol::names::{JobName, TaskId};

use super::{Env, Flow};
use crate::store::{Answer, Write};

/// The search, as far as it is.
#[derive(Debug, Clone)]
pub struct Requeue {
    /// The job.
    pub job: JobName,
    /// Tasks of which no message was seen.
    pub unseen: Unseen,
    /// Tasks that may have none, and where their last records are.
    pub tasks: VecDeque<(TaskId, u64)>,
    /// Whether any was published again.
    pub found: bool,
    /// The next request.
    pub stage: Stage,
}

/// The next request.
#[derive(Debug, Clone)]
pub enum Stage {
    /// Reads all records.
    Records,
    /// Reads the schedules.
    Schedules,
    /// Reads the queue.
    Queue,
    /// Reads the last record of the first task.
    Read,
    /// Publishes it again.
    Publish(Arc<With>, u64),
}

impl Requeue {
    /// Begins.
    pub fn new(job: JobName) -> Self {
        Self {
            job,
            unseen: Unseen::default(),
            tasks: VecDeque::new(),
            found: false,
            stage: Stage::Records,
        }
    }

    /// Whether the next request is a write.
    pub fn writes(&self) -> bool {
        matches!(self.stage, Stage::Publish(..))
    }

    /// One request.
    pub fn step(&mut self, env: &mut Env<'_>) -> Flow {
        let leader = env.store.leader();
        match &self.stage {
            Stage::Records => {
                for (seq, record) in env.store.records_after(leader, &self.job, 0) {
                    self.unseen.record(seq, &record);
                }
                self.stage = Stage::Schedules;
            }
            Stage::Schedules => {
                for message in env.store.scheduled(leader, &self.job) {
                    self.unseen.message(&message);
                }
                self.stage = Stage::Queue;
            }
            Stage::Queue => {
                for message in env.store.queued(leader, &self.job, 0) {
                    self.unseen.message(&message);
                }
                self.tasks = std::mem::take(&mut self.unseen).tasks().into();
                return self.next();
            }
            Stage::Read => return self.read(env),
            Stage::Publish(with, last) => match env.write(&Write::Again(with.clone(), *last)) {
                None => {}
                Some(answer) => {
                    self.found |= matches!(answer, Answer::At(_));
                    self.tasks.pop_front();
                    return self.next();
                }
            },
        }
        Flow::Goes
    }

    fn next(&mut self) -> Flow {
        self.stage = Stage::Read;
        if self.tasks.is_empty() {
            Flow::Ends
        } else {
            Flow::Goes
        }
    }

    fn read(&mut self, env: &Env<'_>) -> Flow {
        let Some((task, seq)) = self.tasks.front() else {
            return Flow::Ends;
        };
        let last = env.store.last_record(&self.job, task);
        let last = last.filter(|(found, _)| found == seq);
        match last.and_then(|(seq, record)| Some((again(&self.job, &record, env.now)?, seq))) {
            Some((with, seq)) => {
                self.stage = Stage::Publish(Arc::new(with), seq);
                Flow::Goes
            }
            None => {
                self.tasks.pop_front();
                self.next()
            }
        }
    }
}
