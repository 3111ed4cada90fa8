//! Which jobs a verb is for: names, patterns with `*` and `?`, labels, and what their tasks queued elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use air_nats::jobs::Key;
use air_nats::specs::spec_of;
use air_nats::{Entry, Nats};
use air_protocol::names::JobName;

use crate::Failure;

/// Which jobs, as the command line says.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Selection {
    /// Only jobs with this label in their spec: NAME=VALUE, or NAME for any value
    #[arg(short = 'l', long = "selector", value_name = "LABEL")]
    pub labels: Vec<String>,
    /// Also the jobs into which the tasks of these jobs queued tasks, and so on
    #[arg(long)]
    pub tree: bool,
}

/// All jobs that there are, with what selecting needs to know of them.
#[derive(Debug, Default)]
struct Known {
    labels: BTreeMap<JobName, BTreeMap<String, String>>,
    children: BTreeMap<JobName, BTreeSet<JobName>>,
    all: BTreeSet<JobName>,
}

/// Whether a word is a pattern for several jobs.
pub fn is_pattern(word: &str) -> bool {
    word.contains(['*', '?'])
}

/// The jobs of `words`, each of which is a name, a pattern, or several of them with commas between.
///
/// # Errors
/// A word that is no name, a pattern that fits no job, or no word and no label.
pub async fn jobs(
    nats: &Nats,
    words: &[String],
    selection: &Selection,
) -> Result<Vec<JobName>, Failure> {
    let words: Vec<&str> = words
        .iter()
        .flat_map(|word| word.split(','))
        .map(str::trim)
        .collect();
    if words.is_empty() && selection.labels.is_empty() {
        return Err(Failure::Usage(
            "name a job, a pattern such as `build-*`, or a label with -l".to_owned(),
        ));
    }
    let plain = selection.labels.is_empty()
        && !selection.tree
        && !words.iter().any(|word| is_pattern(word));
    let known = if plain {
        Known::default()
    } else {
        known(nats).await?
    };
    choose(&words, selection, &known)
}

fn choose(words: &[&str], selection: &Selection, known: &Known) -> Result<Vec<JobName>, Failure> {
    let mut chosen = Vec::new();
    for word in words {
        if !is_pattern(word) {
            let name: JobName = word.parse().map_err(|error| usage(&error))?;
            chosen.push(name);
            continue;
        }
        let before = chosen.len();
        chosen.extend(
            known
                .all
                .iter()
                .filter(|job| fits(word, job.as_str()))
                .cloned(),
        );
        if chosen.len() == before {
            return Err(Failure::NotFound(format!(
                "no job fits `{word}`; `airx status` lists all jobs"
            )));
        }
    }
    if words.is_empty() {
        chosen.extend(known.all.iter().cloned());
    }
    for label in &selection.labels {
        chosen.retain(|job| {
            known
                .labels
                .get(job)
                .is_some_and(|labels| has(labels, label))
        });
    }
    if chosen.is_empty() {
        let labels = selection.labels.join(", ");
        return Err(Failure::NotFound(format!(
            "no job has the label {labels}; `airx spec JOB set labels.NAME=VALUE` gives one"
        )));
    }
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    let mut next: std::collections::VecDeque<_> = chosen.into();
    while let Some(job) = next.pop_front() {
        if !seen.insert(job.clone()) {
            continue;
        }
        if selection.tree {
            next.extend(known.children.get(&job).into_iter().flatten().cloned());
        }
        all.push(job);
    }
    Ok(all)
}

async fn known(nats: &Nats) -> Result<Known, Failure> {
    let mut known = Known::default();
    for entry in nats.all_jobs().await? {
        let Some(job) = name(&entry) else { continue };
        if let Some(state) = Key::of_entry(Some(&entry)).state() {
            known
                .children
                .insert(job.clone(), state.ledger.children.clone());
        }
        known.all.insert(job);
    }
    known.all.extend(nats.queues().await?.jobs.into_keys());
    for entry in nats.all_specs().await? {
        if let (Some(job), Ok(spec)) = (name(&entry), spec_of(Some(&entry))) {
            known.all.insert(job.clone());
            known.labels.insert(job, spec.labels);
        }
    }
    Ok(known)
}

/// The job of an entry that was not deleted.
fn name(entry: &Entry) -> Option<JobName> {
    entry.value.as_ref().and_then(|_| entry.key.parse().ok())
}

fn has(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|is| is == value),
        None => labels.contains_key(wanted),
    }
}

/// Whether `text` fits a pattern in which `*` stands for anything and `?` for one character.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_at_checked(1) {
        None => text.is_empty(),
        Some(("*", rest)) => {
            (0..=text.len()).any(|at| text.get(at..).is_some_and(|text| fits(rest, text)))
        }
        Some((head, rest)) => text
            .split_at_checked(1)
            .is_some_and(|(first, text)| (head == "?" || head == first) && fits(rest, text)),
    }
}

/// A failure for a word that is no name.
pub fn usage(error: &air_protocol::names::NameError) -> Failure {
    Failure::Usage(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str) -> JobName {
        name.parse().unwrap()
    }

    fn some() -> Known {
        let mut known = Known::default();
        for name in ["build-a", "build-b", "test"] {
            known.all.insert(job(name));
        }
        known
            .children
            .insert(job("build-a"), [job("test"), job("build-a")].into());
        known.children.insert(job("test"), [job("deep")].into());
        known
            .labels
            .insert(job("test"), [("team".to_owned(), "x".to_owned())].into());
        known
    }

    fn names(words: &[&str], labels: &[&str], tree: bool) -> Result<Vec<String>, Failure> {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let jobs = choose(words, &Selection { labels, tree }, &some())?;
        Ok(jobs.iter().map(JobName::to_string).collect())
    }

    #[test]
    fn names_patterns_labels_and_trees() {
        assert_eq!(names(&["new"], &[], false).unwrap(), ["new"]);
        assert_eq!(
            names(&["build-*", "build-a"], &[], false).unwrap(),
            ["build-a", "build-b"]
        );
        assert_eq!(
            names(&["build-a"], &[], true).unwrap(),
            ["build-a", "test", "deep"]
        );
        assert_eq!(names(&[], &["team=x"], false).unwrap(), ["test"]);
        assert_eq!(names(&["t*"], &["team"], false).unwrap(), ["test"]);
        assert_eq!(names(&["x*"], &[], false).unwrap_err().exit().code(), 3);
        assert_eq!(names(&[], &["team=y"], false).unwrap_err().exit().code(), 3);
        assert_eq!(names(&["a b"], &[], false).unwrap_err().exit().code(), 2);
    }

    #[test]
    fn patterns_fit_whole_names() {
        for (pattern, text, wanted) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a", "ab", false),
            ("*b*", "abc", true),
        ] {
            assert_eq!(fits(pattern, text), wanted, "{pattern} {text}");
        }
    }
}
