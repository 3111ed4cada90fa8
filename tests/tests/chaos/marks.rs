//! What tasks really did: each run writes marks into a file of its job, with a clock that all machines share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use air_protocol::names::JobName;
use uuid::Uuid;

/// Shell: defines `mark`, which writes a line with the seconds since the machine was started.
pub(crate) const MARK: &str = r#"mark() { read up idle < /proc/uptime; echo "$1 $AIR_TASK $AIR_RUNNER $AIR_FENCE $up" >> "$MARKS/$AIR_JOB"; }"#;

/// The clock of the marks.
pub(crate) fn uptime() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// What one run did.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) task: String,
    pub(crate) run: Uuid,
    pub(crate) fence: u64,
    pub(crate) start: f64,
    /// Its last mark: it lived until then, at least.
    pub(crate) last: f64,
    /// It came to its end.
    pub(crate) done: bool,
}

/// The runs of all jobs, by the order of their first marks.
pub(crate) fn read(folder: &Path) -> BTreeMap<JobName, Vec<Run>> {
    let mut jobs = BTreeMap::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        let mut runs: Vec<Run> = Vec::new();
        for line in text.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let [kind, task, run, fence, at] = words[..] else {
                panic!("a broken mark in {:?}: {line:?}", file.path());
            };
            let (run, at): (Uuid, f64) = (run.parse().unwrap(), at.parse().unwrap());
            match runs.iter_mut().rev().find(|known| known.run == run) {
                Some(known) => {
                    (known.last, known.done) = (at, known.done || kind == "E");
                    assert_ne!(kind, "S", "the run {run} started twice");
                }
                None => runs.push(Run {
                    task: task.to_owned(),
                    run,
                    fence: fence.parse().unwrap(),
                    start: at,
                    last: at,
                    done: kind == "E",
                }),
            }
        }
        runs.sort_by(|a, b| a.start.total_cmp(&b.start));
        let job = file.file_name().to_str().unwrap().parse().unwrap();
        jobs.insert(job, runs);
    }
    jobs
}

/// Two runs of one job at the same time.
#[derive(Debug)]
pub(crate) struct Overlap {
    pub(crate) job: JobName,
    pub(crate) at: f64,
    /// One of them was frozen by the test, which the protocol permits: the fence decides.
    pub(crate) permitted: bool,
    pub(crate) text: String,
}

/// Pairs of runs that were alive at the same time, or started against the order of their fences.
pub(crate) fn overlaps(
    jobs: &BTreeMap<JobName, Vec<Run>>,
    frozen: &BTreeSet<Uuid>,
) -> Vec<Overlap> {
    let mut found = Vec::new();
    for (job, runs) in jobs {
        let Some((first, others)) = runs.split_first() else {
            continue;
        };
        let (mut longest, mut newest) = (first, first);
        for run in others {
            let permitted = |other: &Run| frozen.contains(&run.run) || frozen.contains(&other.run);
            if run.start < longest.last {
                found.push(Overlap {
                    job: job.clone(),
                    at: run.start,
                    permitted: permitted(longest),
                    text: format!("{longest:?} and {run:?}"),
                });
            }
            if run.fence < newest.fence {
                found.push(Overlap {
                    job: job.clone(),
                    at: run.start,
                    permitted: permitted(newest),
                    text: format!("{run:?} started after {newest:?}, which has a newer fence"),
                });
            } else {
                newest = run;
            }
            if run.last > longest.last {
                longest = run;
            }
        }
    }
    found
}

#[test]
fn overlaps_are_found() {
    let run = |fence, start, last| Run {
        task: "t".into(),
        run: Uuid::from_u128(u128::from(fence)),
        fence,
        start,
        last,
        done: true,
    };
    let found = |runs: &[Run], frozen: &[u128]| {
        let jobs = [("j".parse().unwrap(), runs.to_vec())].into();
        let frozen = frozen.iter().map(|run| Uuid::from_u128(*run)).collect();
        let found = overlaps(&jobs, &frozen);
        found.iter().map(|one| one.permitted).collect::<Vec<_>>()
    };
    assert!(found(&[run(1, 1.0, 2.0), run(2, 2.0, 3.0)], &[]).is_empty());
    let longer = [run(1, 1.0, 9.0), run(2, 9.0, 9.5), run(3, 8.9, 9.1)];
    assert_eq!(found(&longer[..2], &[]).len(), 0);
    assert_eq!(found(&[run(1, 1.0, 2.1), run(2, 2.0, 3.0)], &[]), [false]);
    assert_eq!(found(&[run(1, 1.0, 2.1), run(2, 2.0, 3.0)], &[1]), [true]);
    assert_eq!(found(&[run(2, 1.0, 2.0), run(1, 2.0, 3.0)], &[]), [false]);
}
