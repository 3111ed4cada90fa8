//! For tests alone: a process that dies or freezes at a chosen step, as if by `kill -9` or `kill -STOP`.
//!
//! `AIR_CRASH_AT=<step>@<file>` makes the first process that reaches the step, and so makes the file,
//! abort; `AIR_FREEZE_AT` makes it stop until it gets SIGCONT, its process id in the file. Nothing is
//! told, flushed or cleaned up. A release build knows nothing of it.

/// Dies or freezes here if this is the step to do so, and nobody did before.
pub fn point(step: &str) {
    #[cfg(debug_assertions)]
    {
        if reached("AIR_CRASH_AT", step) {
            std::process::abort();
        }
        if reached("AIR_FREEZE_AT", step) {
            let own = std::process::id().to_string();
            let _ = std::process::Command::new("kill")
                .args(["-STOP", &own])
                .status();
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = step;
}

/// Whether the variable names the step, and the file was not there.
#[cfg(debug_assertions)]
fn reached(variable: &str, step: &str) -> bool {
    use std::io::Write as _;
    let chosen = std::env::var(variable).unwrap_or_default();
    let Some((name, path)) = chosen.split_once('@') else {
        return false;
    };
    let file = (name == step).then(|| std::fs::File::create_new(path));
    file.and_then(Result::ok)
        .is_some_and(|mut file| writeln!(file, "{}", std::process::id()).is_ok())
}
