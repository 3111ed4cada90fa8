//! Parked jobs: their next task waits for a place on certain backends, while others have room.

use std::collections::{HashMap, VecDeque};

use air_protocol::names::JobName;

/// Jobs that wait for a place, first come, first served for each backend.
#[derive(Debug, Default)]
pub(super) struct Parked {
    jobs: VecDeque<(JobName, Vec<String>)>,
}

impl Parked {
    /// The job waits for a place on one of these backends.
    pub(super) fn park(&mut self, job: JobName, backends: Vec<String>) {
        match self.jobs.iter_mut().find(|(other, _)| *other == job) {
            Some((_, before)) => *before = backends,
            None => self.jobs.push_back((job, backends)),
        }
    }

    /// Takes out the jobs that there is room for now: as many of each backend as it has places.
    pub(super) fn wake(&mut self, free_of: impl Fn(&str) -> usize) -> Vec<JobName> {
        let mut free: HashMap<String, usize> = HashMap::new();
        let mut woken = Vec::new();
        self.jobs.retain(|(job, backends)| {
            let fits = backends.iter().find(|backend| {
                let known = free.get(*backend).copied();
                known.unwrap_or_else(|| free_of(backend)) > 0
            });
            let Some(backend) = fits else {
                return true;
            };
            let left = free
                .entry(backend.clone())
                .or_insert_with(|| free_of(backend));
            *left -= 1;
            woken.push(job.clone());
            false
        });
        woken
    }

    pub(super) fn clear(&mut self) {
        self.jobs.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str) -> JobName {
        name.parse().unwrap()
    }

    #[test]
    fn as_many_jobs_go_on_as_their_backends_have_places() {
        let mut parked = Parked::default();
        let docker = || vec!["docker".to_owned()];
        for name in ["a", "b", "c", "a"] {
            parked.park(job(name), docker());
        }
        parked.park(job("d"), vec!["docker".to_owned(), "gpu".to_owned()]);
        assert!(parked.wake(|_| 0).is_empty());
        let two_of_docker = |backend: &str| if backend == "docker" { 2 } else { 0 };
        assert_eq!(parked.wake(two_of_docker), [job("a"), job("b")]);
        let gpu = |backend: &str| usize::from(backend == "gpu");
        assert_eq!(
            parked.wake(gpu),
            [job("d")],
            "nobody waits behind another backend"
        );
        parked.clear();
        assert!(parked.wake(|_| 9).is_empty());
    }
}
