//! `$AIR_TASKS`: the lines in which a task lists its sub-tasks, and the pages that are made of them.

use std::future::Future;

use air_protocol::budget::Leash;
use air_protocol::limits::{BATCH_MESSAGES_MAX, CHILDREN_MAX};
use air_protocol::names::{JobName, TaskId};
use air_protocol::spec::Wire;
use air_runner::subtasks::{Parent, family_of, of_lines};

use crate::truths::{comes_back, is_told_well};

/// A future that waits for nothing but its turn.
fn finished<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(work))
}

pub(crate) fn air_tasks(bytes: &[u8]) {
    let job: JobName = "j".parse().unwrap();
    let task: TaskId = "t".parse().unwrap();
    let leash = Leash::default();
    let parent = Parent {
        job: &job,
        task: &task,
        leash: &leash,
        traceparent: None,
        wire: Wire::Msgpack,
    };
    let (family, pages) = match finished(family_of(bytes, parent)) {
        Err(error) => return is_told_well(&error),
        Ok(read) => read,
    };
    let paged: usize = pages.iter().map(|page| page.tasks.len()).sum();
    assert_eq!(family.count, (family.tasks.len() + paged) as u64);
    assert_eq!(family.rest.is_some(), paged > 0);
    assert!(family.tasks.len() < BATCH_MESSAGES_MAX && family.jobs.len() <= CHILDREN_MAX);
    for new in &family.tasks {
        assert_eq!(Some(&new.id), new.task.id.as_ref());
        new.task.check().unwrap();
    }
    for page in &pages {
        comes_back(&page.tasks, of_lines(&page.to_lines()));
    }
}

pub(crate) fn page(bytes: &[u8]) {
    match of_lines(bytes) {
        Err(error) => is_told_well(&error),
        Ok(tasks) => tasks.iter().for_each(|(_, task)| task.check().unwrap()),
    }
}
