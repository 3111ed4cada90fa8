//! Circles: tasks that wait for one another, and so would wait for ever.

use std::collections::{BTreeSet, HashMap};

use air_protocol::names::{JobName, TaskId};

type TaskRef = (JobName, TaskId);

/// Tasks that wait, and what each waits for; over all jobs that a manager has looked at.
#[derive(Debug, Clone, Default)]
pub struct Waits {
    edges: HashMap<TaskRef, Vec<TaskRef>>,
    by_job: HashMap<JobName, Vec<TaskId>>,
    wanted: HashMap<JobName, BTreeSet<TaskRef>>,
}

impl Waits {
    /// Replaces what is known of one job.
    pub fn replace(
        &mut self,
        job: &JobName,
        waiting: impl Iterator<Item = (TaskRef, Vec<TaskRef>)>,
    ) {
        for task in self.by_job.remove(job).unwrap_or_default() {
            self.edges.remove(&(job.clone(), task));
        }
        let mut tasks = Vec::new();
        for (task, needs) in waiting {
            tasks.push(task.1.clone());
            self.edges.insert(task, needs);
        }
        if !tasks.is_empty() {
            self.by_job.insert(job.clone(), tasks);
        }
    }

    /// Replaces what is known of the records that queued tasks of one job need.
    pub fn want(&mut self, job: &JobName, wanted: impl Iterator<Item = TaskRef>) {
        let wanted: BTreeSet<_> = wanted.collect();
        if wanted.is_empty() {
            self.wanted.remove(job);
        } else {
            self.wanted.insert(job.clone(), wanted);
        }
    }

    /// The jobs of which a task waits for a task of `job`.
    pub fn waiters(&self, job: &JobName) -> BTreeSet<JobName> {
        let waits = |needs: &Vec<TaskRef>| needs.iter().any(|need| need.0 == *job);
        let others = self
            .edges
            .iter()
            .filter(|(task, needs)| task.0 != *job && waits(needs));
        others.map(|(task, _)| task.0.clone()).collect()
    }

    /// Whether a queued task needs the record of this one.
    pub fn is_needed(&self, task: &TaskRef) -> bool {
        self.wanted.values().any(|wanted| wanted.contains(task))
    }

    /// The circle on which `start` lies, if it lies on one.
    pub fn circle(&self, start: &TaskRef) -> Option<Vec<TaskRef>> {
        let mut seen = BTreeSet::new();
        let mut path = vec![(start, 0)];
        while let Some((task, next)) = path.last().copied() {
            let need = self.edges.get(task).and_then(|needs| needs.get(next));
            match need {
                None => drop(path.pop()),
                Some(need) if need == start => {
                    return Some(path.into_iter().map(|(task, _)| task.clone()).collect());
                }
                Some(need) => {
                    if let Some(top) = path.last_mut() {
                        top.1 += 1;
                    }
                    if seen.insert(need) {
                        path.push((need, 0));
                    }
                }
            }
        }
        None
    }
}

/// A circle as people write it: `a → b → a`, with the job's name where it is another job's task.
pub fn text(circle: &[TaskRef], job: &JobName) -> String {
    let name = |task: &TaskRef| {
        if task.0 == *job {
            task.1.to_string()
        } else {
            format!("{}/{}", task.0, task.1)
        }
    };
    let names: Vec<_> = circle.iter().chain(circle.first()).map(name).collect();
    names.join(" → ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &str) -> TaskRef {
        ("j".parse().unwrap(), name.parse().unwrap())
    }

    fn waits(edges: &[(&str, &[&str])]) -> Waits {
        let mut waits = Waits::default();
        let edges = edges
            .iter()
            .map(|(from, to)| (task(from), to.iter().map(|to| task(to)).collect()));
        waits.replace(&"j".parse().unwrap(), edges);
        waits
    }

    #[test]
    fn a_circle_is_named() {
        let waits = waits(&[
            ("a", &["x", "b"]),
            ("b", &["c"]),
            ("c", &["a"]),
            ("d", &["a"]),
        ]);
        let circle = waits.circle(&task("a")).unwrap();
        assert_eq!(text(&circle, &"j".parse().unwrap()), "a → b → c → a");
        assert!(
            waits.circle(&task("d")).is_none(),
            "d waits for the circle, and is not on it"
        );
    }

    #[test]
    fn a_diamond_is_no_circle() {
        let waits = waits(&[
            ("a", &["b", "c"]),
            ("b", &["d"]),
            ("c", &["d"]),
            ("d", &["e"]),
        ]);
        assert!(waits.circle(&task("a")).is_none());
    }

    #[test]
    fn jobs_that_wait_for_a_job_are_known() {
        let mut waits = waits(&[("a", &["b"])]);
        let other: JobName = "k".parse().unwrap();
        waits.replace(
            &other,
            [((other.clone(), "t".parse().unwrap()), vec![task("a")])].into_iter(),
        );
        assert_eq!(
            waits.waiters(&"j".parse().unwrap()),
            BTreeSet::from([other.clone()])
        );
        waits.replace(&other, std::iter::empty());
        assert!(waits.waiters(&"j".parse().unwrap()).is_empty());
    }
}
