//! Deletes all of a removed job: `manager/src/remove.rs`.

use air_protocol::job::JobState;
use air_protocol::names::JobName;

use super::empty::{bound, up_to};
use super::{Env, Flow, Swapping};
use crate::store::Write;

/// The work, as far as it is.
#[derive(Debug, Clone)]
pub struct Remove {
    /// The job.
    pub job: JobName,
    /// The state that was acted on.
    pub state: JobState,
    /// Its revision.
    pub revision: u64,
    /// The next request.
    pub stage: Stage,
}

/// The next request.
#[derive(Debug, Clone)]
pub enum Stage {
    /// Reads the stream's end.
    End,
    /// Fixes how far is purged.
    Bound(Swapping),
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
            state: state.clone(),
            revision,
            stage: Stage::End,
        })
    }

    /// Whether the next request is a write.
    pub fn writes(&self) -> bool {
        !matches!(self.stage, Stage::End)
    }

    /// One request.
    pub fn step(&mut self, env: &mut Env<'_>) -> Flow {
        let names = env.store.names();
        let (write, next) = match &mut self.stage {
            Stage::End => {
                match bound(env, &self.state, self.revision) {
                    Some(swapping) => self.stage = Stage::Bound(swapping),
                    None => self.stage = Stage::Schedules,
                }
                return Flow::Goes;
            }
            Stage::Bound(swapping) => {
                match swapping.step(env, &self.job) {
                    None => {}
                    Some(None) => return Flow::Ends,
                    Some(Some(revision)) => {
                        self.state = swapping.state().clone();
                        self.revision = revision;
                        self.stage = Stage::Schedules;
                    }
                }
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
        if env
            .write(&Write::Purge(write, up_to(&self.state)))
            .is_none()
        {
            return Flow::Ends;
        }
        self.stage = next;
        Flow::Goes
    }
}
