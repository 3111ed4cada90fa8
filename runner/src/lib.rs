//! The one-shot process that runs one task of Air-Executor.
//!
//! [`execute`] runs a program and its whole process tree and knows nothing of NATS; [`sweep`]
//! finds what runners left behind on a host.

pub mod execute;
pub mod sweep;
