//! The one-shot process that runs one task of Air-Executor.
//!
//! [`run`] lives for exactly one task message: it starts under the claim that a manager made, runs
//! the task, commits what became of it together with its sub-tasks, gives the lease back and ends.
//! It holds no state: killed at any moment, it leaves the rest to the managers. It never chooses
//! a task and never takes a lease.
//!
//! Where to start: `life` has the steps in their order, `hold` the lease, `judge` what an end means.
//! [`execute`] runs a program and its whole process tree and knows nothing of NATS; [`sweep`]
//! finds what runners left behind on a host; [`task_add`] is `airx task add`.

mod brake;
mod claude;
mod clock;
mod compose;
pub mod execute;
pub mod exit;
mod fanout;
pub mod files;
pub mod gate;
mod guard;
pub mod hold;
pub mod judge;
pub mod key;
mod life;
pub mod link;
mod logs;
pub mod look;
pub mod options;
mod patience;
pub mod record;
pub mod settle;
mod spend;
pub mod subtasks;
pub mod sweep;
pub mod task_add;
pub mod workspace;

pub use exit::Exit;
pub use life::run;
pub use options::Options;
