//! Circles: tasks that wait for one another, and so would wait for ever.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap, HashSet};

use air_protocol::names::{JobName, TaskId};

/// Tasks that are named of a circle.
const NAMED_MAX: usize = 10;

type TaskRef = (JobName, TaskId);

/// Tasks that wait, and what each waits for; over all jobs that a manager has looked at.
#[derive(Debug, Clone, Default)]
pub struct Waits {
    edges: HashMap<TaskRef, Vec<TaskRef>>,
    by_job: HashMap<JobName, Waiting>,
    wanted: HashMap<JobName, BTreeSet<TaskRef>>,
    /// The tasks on circles, and perhaps some between circles; nearly always none.
    knots: OnceCell<HashSet<TaskRef>>,
}

/// What waits in one job.
#[derive(Debug, Clone)]
struct Waiting {
    tasks: Vec<TaskId>,
    /// Other jobs that its tasks wait for.
    others: BTreeSet<JobName>,
}

impl Waits {
    /// Replaces what is known of one job.
    pub fn replace(
        &mut self,
        job: &JobName,
        waiting: impl Iterator<Item = (TaskRef, Vec<TaskRef>)>,
    ) {
        if self.knots.get().is_some_and(|knots| !knots.is_empty()) {
            self.knots.take();
        }
        let before = self
            .by_job
            .remove(job)
            .map_or(Vec::new(), |waiting| waiting.tasks);
        let before: HashMap<_, _> = before
            .into_iter()
            .filter_map(|task| self.edges.remove_entry(&(job.clone(), task)))
            .collect();
        let mut now = Waiting {
            tasks: Vec::new(),
            others: BTreeSet::new(),
        };
        for (task, needs) in waiting {
            // A wait that ends makes no circle: only a new one may.
            let known = before.get(&task);
            if !known.is_some_and(|known| needs.iter().all(|need| known.contains(need))) {
                self.knots.take();
            }
            let others = needs
                .iter()
                .map(|need| &need.0)
                .filter(|other| *other != job);
            now.others.extend(others.cloned());
            now.tasks.push(task.1.clone());
            self.edges.insert(task, needs);
        }
        if !now.tasks.is_empty() {
            self.by_job.insert(job.clone(), now);
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
        let waits = self
            .by_job
            .iter()
            .filter(|(_, waiting)| waiting.others.contains(job));
        waits.map(|(waiter, _)| waiter.clone()).collect()
    }

    /// Whether a queued task needs the record of this one.
    pub fn is_needed(&self, task: &TaskRef) -> bool {
        self.wanted.values().any(|wanted| wanted.contains(task))
    }

    /// The circle on which `start` lies, if it lies on one.
    pub fn circle(&self, start: &TaskRef) -> Option<Vec<TaskRef>> {
        if !self.knots.get_or_init(|| self.knots()).contains(start) {
            return None;
        }
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

    /// Whoever leads to nobody who waits is on no circle, and whoever nobody leads to is not either.
    fn knots(&self) -> HashSet<TaskRef> {
        let onward = self.edges.iter();
        let onward = onward
            .map(|(from, to)| (from, to.iter().collect()))
            .collect();
        let left = peeled(&onward);
        let mut back: HashMap<&TaskRef, Vec<&TaskRef>> =
            left.iter().map(|task| (*task, Vec::new())).collect();
        for from in &left {
            for to in &onward[from] {
                if let Some(back) = back.get_mut(to) {
                    back.push(from);
                }
            }
        }
        peeled(&back).into_iter().cloned().collect()
    }
}

/// A circle as people write it: `a → b → a`, with the job's name where it is another job's task, and
/// shortened where it is long.
pub fn text(circle: &[TaskRef], job: &JobName) -> String {
    let name = |task: &TaskRef| {
        if task.0 == *job {
            task.1.to_string()
        } else {
            format!("{}/{}", task.0, task.1)
        }
    };
    let mut names: Vec<_> = circle.iter().take(NAMED_MAX).map(name).collect();
    let more = circle.len() - names.len();
    if more > 0 {
        names.push(format!("({more} more)"));
    }
    names.extend(circle.first().map(name));
    names.join(" → ")
}

/// What is left of the tasks when all that lead nowhere within what is left are taken away, again and again.
fn peeled<'a>(edges: &HashMap<&'a TaskRef, Vec<&'a TaskRef>>) -> HashSet<&'a TaskRef> {
    let mut onward: HashMap<&TaskRef, usize> = HashMap::with_capacity(edges.len());
    let mut back: HashMap<&TaskRef, Vec<&TaskRef>> = HashMap::new();
    for (from, to) in edges {
        let within = to.iter().filter(|to| edges.contains_key(*to));
        onward.insert(from, within.clone().count());
        for to in within {
            back.entry(to).or_default().push(from);
        }
    }
    let ends = onward.iter().filter(|(_, count)| **count == 0);
    let mut ends: Vec<&TaskRef> = ends.map(|(task, _)| *task).collect();
    while let Some(end) = ends.pop() {
        onward.remove(end);
        for from in back.get(end).into_iter().flatten() {
            if let Some(count) = onward.get_mut(from) {
                *count -= 1;
                if *count == 0 {
                    ends.push(from);
                }
            }
        }
    }
    onward.into_keys().collect()
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

    #[test]
    fn circles_come_and_go_with_what_is_told() {
        let job: JobName = "j".parse().unwrap();
        let mut waits = waits(&[("a", &["b"]), ("b", &["c"])]);
        assert!(waits.circle(&task("a")).is_none());
        let told = |edges: &[(&str, &str)]| {
            let edge = |(from, to): &(&str, &str)| (task(from), vec![task(to)]);
            edges.iter().map(edge).collect::<Vec<_>>().into_iter()
        };
        waits.replace(
            &job,
            told(&[("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")]),
        );
        assert_eq!(waits.circle(&task("b")).unwrap().len(), 3);
        assert!(waits.circle(&task("d")).is_none());
        waits.replace(&job, told(&[("a", "b"), ("b", "c"), ("d", "a")]));
        assert!(waits.circle(&task("b")).is_none());
    }

    #[test]
    fn a_circle_over_two_jobs_comes_with_its_last_wait() {
        let (j, k): (JobName, JobName) = ("j".parse().unwrap(), "k".parse().unwrap());
        let (one, two) = (task("a"), (k.clone(), "b".parse().unwrap()));
        let mut waits = Waits::default();
        waits.replace(&j, [(one.clone(), vec![two.clone()])].into_iter());
        assert!(waits.circle(&one).is_none());
        waits.replace(&k, [(two, vec![one.clone()])].into_iter());
        assert_eq!(waits.circle(&one).unwrap().len(), 2);
    }

    #[test]
    fn circles_are_searched_for_only_where_there_may_be_any() {
        let job: JobName = "j".parse().unwrap();
        let chain: &[(&str, &[&str])] =
            &[("a", &["b"]), ("b", &["c"]), ("c", &["d"]), ("d", &["e"])];
        let mut waits = waits(chain);
        assert!(waits.knots().is_empty(), "a chain has no circle");
        assert!(waits.circle(&task("a")).is_none());
        waits.replace(&job, [(task("a"), vec![task("b")])].into_iter());
        assert!(waits.knots.get().is_some(), "waits that end make no circle");
        waits.replace(&job, [(task("a"), vec![task("a")])].into_iter());
        assert!(waits.circle(&task("a")).is_some());
        waits.replace(&job, std::iter::empty());
        assert!(waits.knots.get().is_none(), "that circle is gone");
    }

    #[test]
    fn what_a_queued_task_needs_is_known_until_it_is_replaced() {
        let job: JobName = "k".parse().unwrap();
        let mut waits = Waits::default();
        waits.want(&job, [task("a")].into_iter());
        assert!(waits.is_needed(&task("a")) && !waits.is_needed(&task("b")));
        waits.want(&job, std::iter::empty());
        assert!(!waits.is_needed(&task("a")));
    }

    #[test]
    fn a_long_circle_is_shortened() {
        let names: Vec<_> = (0..12).map(|number| task(&format!("t{number}"))).collect();
        let text = text(&names, &"j".parse().unwrap());
        assert!(text.ends_with("t9 → (2 more) → t0"), "{text}");
    }
}
