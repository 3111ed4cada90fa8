//! Words: names, ids, needs, subjects, times, spans, and the environment of a runner.

use std::collections::HashMap;
use std::fmt::{Debug, Display};
use std::str::FromStr;

use air_protocol::codec::nearest;
use air_protocol::names::{JobName, Names, TaskId};
use air_protocol::task::{Need, TASK_FIELDS};
use air_protocol::time::{Span, Time};
use air_runner::Options;

use crate::truths::{comes_back, is_told_well};

/// What is a word is written as it is read, and read again; what is none is told well.
fn word<T: FromStr + Display + PartialEq + Debug>(text: &str) -> Option<T>
where
    T::Err: Display + Debug,
{
    match text.parse::<T>() {
        Err(error) => {
            is_told_well(&error);
            None
        }
        Ok(value) => {
            comes_back(&value, value.to_string().parse());
            Some(value)
        }
    }
}

pub(crate) fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let job = word::<JobName>(text);
    let task = word::<TaskId>(text);
    let _ = word::<Need>(text);
    let _ = nearest(text, TASK_FIELDS);
    let names = text.parse::<Names>().unwrap_or_else(|error| {
        is_told_well(&error);
        Names::default()
    });
    let _ = (names.job_token(text), names.task_token(text));
    if let Some(task) = &task {
        let sequence = task.sequence();
        assert!(sequence.is_none_or(|seq| TaskId::of_sequence(seq) == *task));
    }
    if let (Some(job), Some(task)) = (job, task) {
        for subject in [names.results(&job, &task), names.schedule(&job, &task)] {
            assert_eq!(names.job_token(&subject), Some(job.as_str()));
            assert_eq!(names.task_token(&subject), Some(task.as_str()));
            assert!(!subject.contains(['*', '>', ' ']), "{subject} is a pattern");
        }
    }
}

pub(crate) fn times(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let time = word::<Time>(text);
    let span = word::<Span>(text);
    if let Ok(span) = serde_json::from_slice::<Span>(bytes) {
        comes_back(&span, span.to_string().parse());
        let _ = time.unwrap_or_default().after(span.0).to_string();
    }
    if let (Some(time), Some(span)) = (time, span) {
        assert!(time.after(span.0) >= time);
    }
}

/// A variable on each line.
pub(crate) fn environment(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let variables: HashMap<_, _> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let var = |name: &str| variables.get(name).map(|&value| value.to_owned());
    match Options::from_env(var) {
        Err(error) => is_told_well(&error),
        Ok(options) => {
            let given: HashMap<_, _> = options.nats.to_env().into_iter().collect();
            let again = air_nats::Options::from_env(|name| given.get(name).cloned());
            let again = again.map(|again| again.to_env());
            comes_back(&options.nats.to_env(), again);
        }
    }
}
