//! Deletes all of a removed job: `manager/src/remove.rs`.

use air_protocol::job::JobState;
use air_protocol::names::JobName;

use super::{Env, Flow};
use crate::store::Write;

/// The work, as far as it is.
#[derive(Debug, Clone)]
pub struct Remove {
    /// The job.
    pub job: JobName,
    /// The revision that was acted on.
    pub revision: u64,
    /// What was published up to here goes.
    pub up_to: u64,
    /// The next request.
    pub stage: Stage,
}

/// The next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Reads the stream's end.
    End,
    /// Reads the key again.
    Key,
    /// Purges schedules.
    Schedules,
    /// Purges the queue.
    Queue,
    /// Erases the spec.
    Spec,
    /// Purges records.
    Records,
    /// Erases the key.
    Erase,
}

impl Remove {
    /// Begins, unless a holder whose lease was taken may still commit.
    pub fn new(job: JobName, state: &JobState, revision: u64, env: &Env<'_>) -> Option<Self> {
        let held = state.zombie_until.is_some_and(|until| until > env.now);
        (!held).then_some(Self {
            job,
            revision,
            up_to: 0,
            stage: Stage::End,
        })
    }

    /// Whether the next request is a write.
    pub fn writes(&self) -> bool {
        !matches!(self.stage, Stage::End | Stage::Key)
    }

    /// One request.
    pub fn step(&mut self, env: &mut Env<'_>) -> Flow {
        let names = env.store.names();
        let (write, next) = match self.stage {
            Stage::End => {
                self.up_to = env.store.leader().last_seq();
                self.stage = Stage::Key;
                return Flow::Goes;
            }
            Stage::Key => {
                if env.store.key(&self.job).revision() != self.revision {
                    return Flow::Ends;
                }
                self.stage = Stage::Schedules;
                return Flow::Goes;
            }
            Stage::Spec => {
                env.store.specs.remove(&self.job);
                self.stage = Stage::Records;
                return Flow::Goes;
            }
            Stage::Schedules => (names.job_schedules(&self.job), Stage::Queue),
            Stage::Queue => (names.tasks(&self.job), Stage::Spec),
            Stage::Records => (names.job_results(&self.job), Stage::Erase),
            Stage::Erase => {
                env.write(&Write::Erase(self.job.clone(), self.revision));
                return Flow::Ends;
            }
        };
        if env.write(&Write::Purge(write, self.up_to)).is_none() {
            return Flow::Ends;
        }
        self.stage = next;
        Flow::Goes
    }
}
