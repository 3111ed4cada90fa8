//! The Kubernetes backend stands the conformance suite, in namespaces of the level `restricted` and in an image that knows nothing
//! of Air-Executor; and what is its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

mod deploy;
mod ends;
mod pods;
mod quota;

use air_kubernetes::Pods;

air_tests::conformance!(Pods);
