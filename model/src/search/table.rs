//! Runs scenarios, and prints what was covered as one table.

use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

use super::scenario::Scenario;
use super::{Action, Search};
use crate::bug::Bug;

/// What a search found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The scenario.
    pub name: &'static str,
    /// Its faults.
    pub faults: &'static str,
    /// States that differ.
    pub states: usize,
    /// Steps of the longest way.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Whether every state was seen.
    pub whole: bool,
    /// What is broken, and the way there.
    pub broken: Option<Broken>,
}

/// Something that must not be, and how it comes about.
#[derive(Debug, Clone)]
pub struct Broken {
    /// What.
    pub text: String,
    /// The shortest way.
    pub steps: Vec<Action>,
}

/// Searches one scenario, for so long at most.
pub fn search(scenario: Scenario, bug: Option<Bug>, within: Duration, threads: usize) -> Found {
    let (name, faults) = (scenario.name, scenario.faults);
    let begun = Instant::now();
    let checker = Search::new(scenario.clone(), bug).checker();
    let checker = checker
        .threads(threads)
        .timeout(within)
        .finish_when(HasDiscoveries::Any)
        .spawn_bfs()
        .join();
    let took = begun.elapsed();
    let broken = checker.discoveries().into_iter().next().map(|(_, path)| {
        let last = path.last_state();
        let search = Search::new(scenario, bug);
        let text = match &last.broken {
            Some(text) => text.clone(),
            None => search
                .drains(last)
                .err()
                .unwrap_or_else(|| "it ends after all".into()),
        };
        Broken {
            text,
            steps: path.into_actions(),
        }
    });
    Found {
        name,
        faults,
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        took,
        whole: took < within,
        broken,
    }
}

impl Found {
    /// A line of the table.
    pub fn line(&self) -> String {
        let held = match (&self.broken, self.whole) {
            (Some(_), _) => "BROKEN",
            (None, true) => "all hold",
            (None, false) => "all hold so far: cut",
        };
        format!(
            "| {} | {} | {} | {} | {:.1} | {held} |",
            self.name,
            self.faults,
            self.states,
            self.depth,
            self.took.as_secs_f64()
        )
    }
}

/// The head of the table.
pub const HEAD: &str = "| scenario | faults | states | depth | seconds | result |\n| --- | --- | --- | --- | --- | --- |";
