//! What the tests of schedulers have in common: an Airflow that was started for them. The tests are in `tests/`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

pub mod airflow;
mod door;
