//! I5, as records and messages of all jobs come by: who queued whom. Kept are parents only.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use super::{Finding, Findings, Place, short};
use crate::invariants::Invariant;
use crate::names::{JobName, TaskId};
use crate::record::{Record, Status};

const UNTRACED: &str = "some sub-tasks left no trace: their ids were taken already, retention purged them, their job was removed, or they are lost";
const REPEATED: &str = "a parent was removed or purged, and its id was used again: sub-tasks of both cannot be told apart";
const NO_PARENT: &str =
    "the parent of a sub-task is in a job that was removed, or whose records retention purged";

/// A task that queued others, or is said to have done so.
#[derive(Debug)]
struct Family {
    name: Box<str>,
    /// Sub-tasks, and the record that says so.
    said: Option<(u64, u64)>,
    found: u64,
    /// A fan-out of it waits.
    pending: bool,
    /// Not all of its sub-tasks were looked for.
    partial: bool,
    /// Sequence of the message of the oldest sub-task.
    oldest: u64,
    /// A sub-task, until the parent's record is known.
    child: Option<Box<(JobName, TaskId, Place)>>,
}

/// A parent without a record that says so: it must be looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubtful {
    /// The parent's job.
    pub job: JobName,
    /// The parent.
    pub task: TaskId,
    /// Sequence of the message of its oldest sub-task; 0 when not even that is known.
    pub oldest: u64,
    /// Whether a sub-task that was seen is in the parent's own job.
    pub in_own_job: bool,
}

/// The families of all jobs that were read, or of one.
#[derive(Debug, Default)]
pub struct Families {
    of: HashMap<u64, Family>,
    only: Option<JobName>,
    elsewhere: BTreeSet<JobName>,
}

fn split(name: &str) -> Option<(JobName, TaskId)> {
    let (job, task) = name.split_once('/')?;
    Some((job.parse().ok()?, task.parse().ok()?))
}

impl Families {
    /// Families of this job, or of all jobs.
    pub fn new(only: Option<JobName>) -> Self {
        Self {
            only,
            ..Self::default()
        }
    }

    /// The job whose families they are; none for all jobs.
    pub fn only(&self) -> Option<&JobName> {
        self.only.as_ref()
    }

    /// Takes in what was seen of another job.
    pub fn merge(&mut self, other: Self) {
        self.elsewhere.extend(other.elsewhere);
        for (name, family) in other.of {
            match self.of.entry(name) {
                Entry::Vacant(entry) => drop(entry.insert(family)),
                Entry::Occupied(mut entry) => {
                    let ours = entry.get_mut();
                    ours.said = ours.said.or(family.said);
                    ours.found += family.found;
                    ours.pending |= family.pending;
                    ours.partial |= family.partial;
                    ours.oldest = ours.oldest.min(family.oldest);
                    ours.child = ours.child.take().or(family.child);
                }
            }
        }
    }

    /// Other jobs into which tasks of the job queued sub-tasks: their records and messages are wanted too.
    pub fn elsewhere(&self) -> &BTreeSet<JobName> {
        &self.elsewhere
    }

    fn is_only(&self, job: &JobName) -> bool {
        self.only.as_ref().is_none_or(|only| only == job)
    }

    fn of(&mut self, name: &str) -> &mut Family {
        let family = self.of.entry(short(name));
        family.or_insert_with(|| Family {
            name: name.into(),
            said: None,
            found: 0,
            pending: false,
            partial: false,
            oldest: u64::MAX,
            child: None,
        })
    }

    /// A record that may say how many sub-tasks its task queued.
    pub fn parent(&mut self, job: &JobName, task: &TaskId, seq: u64, record: &Record) {
        if record.status != Status::Succeeded || !self.is_only(job) {
            return;
        }
        let name = format!("{job}/{task}");
        if record.subtasks == 0 && !self.of.contains_key(&short(name.as_str())) {
            return;
        }
        self.elsewhere.extend(record.jobs.iter().cloned());
        let family = self.of(&name);
        family.said = Some((record.subtasks, seq));
        family.child = None;
    }

    /// A sub-task of `parent`, at its first sight; `message` is its message, 0 when that is not known.
    pub fn child(
        &mut self,
        parent: &str,
        job: &JobName,
        task: &TaskId,
        message: u64,
        place: Place,
    ) {
        let Some((of, _)) = split(parent) else { return };
        let own = self.is_only(&of);
        if !own && !self.is_only(job) {
            return;
        }
        let family = self.of(parent);
        family.found += 1;
        family.partial |= !own;
        family.oldest = family.oldest.min(message);
        if family.said.is_none() && family.child.is_none() {
            family.child = Some(Box::new((job.clone(), task.clone(), place)));
        }
    }

    /// A fan-out of `parent` waits.
    pub fn pending(&mut self, parent: &str) {
        if split(parent).is_some_and(|(job, _)| self.is_only(&job)) {
            self.of(parent).pending = true;
        }
    }

    /// Parents without a record that says so, of which the caller looks for each, at most so many.
    pub fn doubtful(&self, most: usize) -> Vec<Doubtful> {
        let open = self.of.values().filter(|family| family.said.is_none());
        let open = open.filter_map(|family| {
            let (job, task) = split(&family.name)?;
            let child = family.child.as_ref();
            Some(Doubtful {
                in_own_job: child.is_some_and(|child| child.0 == job),
                oldest: family.oldest,
                job,
                task,
            })
        });
        open.take(most).collect()
    }

    /// What the records of a parent say, from the leader: the sub-tasks of its success and where that
    /// stands; none when it never succeeded.
    pub fn resolve(
        &mut self,
        parent: &Doubtful,
        said: Option<(u64, u64)>,
        findings: &mut Findings,
    ) {
        let name = format!("{}/{}", parent.job, parent.task);
        let family = self.of(&name);
        if said.is_some() {
            family.said = said;
            return;
        }
        // Known to be wrong: it is told here, and not once more as unknown.
        family.partial = true;
        family.said = Some((family.found, 0));
        let found = family.found;
        let (places, whose) = match family.child.take() {
            Some(child) => (
                vec![child.2.clone()],
                format!(", such as {}/{}", child.0, child.1),
            ),
            None => (Vec::new(), String::new()),
        };
        if found == 0 {
            return;
        }
        findings.add(Finding {
            invariant: Invariant::WholeFamilies,
            job: parent.job.clone(),
            task: Some(parent.task.clone()),
            places,
            text: format!("it has no record of a success, but {found} sub-tasks{whose}"),
        });
    }

    /// Ends the check: what is still unknown is not proven.
    pub fn end(self, findings: &mut Findings) {
        let mut families: Vec<_> = self.of.into_values().collect();
        families.sort_by(|one, other| one.name.cmp(&other.name));
        for family in families {
            let Some((job, task)) = split(&family.name) else {
                continue;
            };
            let Some((said, seq)) = family.said else {
                findings.doubt(Invariant::WholeFamilies, NO_PARENT, &*family.name);
                continue;
            };
            let found = family.found;
            if found > said && family.oldest < seq {
                findings.doubt(Invariant::WholeFamilies, REPEATED, &*family.name);
            } else if found > said {
                let places = vec![Place::Record(Some(task.clone()), seq)];
                findings.add(Finding {
                    invariant: Invariant::WholeFamilies,
                    job,
                    task: Some(task),
                    places,
                    text: format!(
                        "it queued {said} sub-tasks, but {found} say that it is their parent"
                    ),
                });
            } else if found < said && !family.pending && !family.partial {
                let missing = said - found;
                let example = format!("{}: {missing} of {said}", family.name);
                findings.doubt(Invariant::WholeFamilies, UNTRACED, example);
            }
        }
    }
}
