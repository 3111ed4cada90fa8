//! Long random runs from seeds, on one thread and in virtual time.
//!
//! Several managers and many runners work on some jobs while things go wrong; then the trouble stops, and
//! everything must end. The same seed gives the same run, and a run that fails is made smaller.

pub mod manager;
pub mod plan;
mod world;

use air_protocol::time::Time;

use crate::bug::Bug;
use plan::Plan;
use world::World;

/// How a run went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Requests and other events.
    pub events: u64,
    /// Records that were committed.
    pub records: u64,
    /// When everything had ended, in virtual time.
    pub ended: Time,
    /// A number over all that happened: two runs that give the same were the same.
    pub trace: u64,
}

/// What went wrong in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// When, in virtual time.
    pub at: Time,
    /// What.
    pub text: String,
    /// The last things that happened.
    pub log: Vec<String>,
}

/// Runs a plan.
///
/// # Errors
/// What is broken, or never ends.
pub fn run(plan: &Plan, bug: Option<Bug>) -> Result<Run, Failure> {
    World::new(plan.clone(), bug).run()
}

/// The smallest run that still fails, found by leaving out one thing after another.
pub fn shrink(plan: Plan, bug: Option<Bug>) -> Plan {
    let mut smallest = plan;
    while let Some(smaller) = smallest
        .smaller()
        .into_iter()
        .find(|plan| run(plan, bug).is_err())
    {
        smallest = smaller;
    }
    smallest
}
