//! The model of Air-Executor: its own decisions, run over a small broker, searched and simulated.
//!
//! [`search`] looks at every state that a small scenario can reach; [`simulation`] runs long random
//! histories from seeds. Both drive the processes of [`actor`] over [`store`]. What is proven how is in
//! `docs/reliability.md`.

pub mod actor;
pub mod broker;
pub mod bug;
pub mod canon;
pub mod history;
pub mod search;
pub mod simulation;
pub mod store;
