//! The gate: where a runner waits that its manager has to put in its place first, such as a cgroup.
//!
//! Its manager writes one byte into the runner's standard input then. A manager that could not, or was killed
//! meanwhile, closes it without: nothing runs where it should not.

use std::io::Read as _;

/// In the environment of a runner that has to wait.
pub const VARIABLE: &str = "AIR_GATE";

/// Waits, where there is a gate; false if it stays closed for good.
pub fn pass() -> bool {
    if std::env::var_os(VARIABLE).is_none() {
        return true;
    }
    let mut byte = [0];
    matches!(std::io::stdin().lock().read(&mut byte), Ok(1))
}
