//! For tests alone: a process that dies at a chosen step, as if by `kill -9`.
//!
//! `AIR_CRASH_AT=<step>@<file>` makes the first process that reaches the step, and so makes the file,
//! abort. Nothing is told, flushed or cleaned up. A release build knows nothing of it.

/// Dies here if this is the step to die at, and nobody died there before.
pub fn point(step: &str) {
    #[cfg(debug_assertions)]
    if let Ok(chosen) = std::env::var("AIR_CRASH_AT")
        && let Some((name, file)) = chosen.split_once('@')
        && name == step
        && std::fs::File::create_new(file).is_ok()
    {
        std::process::abort();
    }
    #[cfg(not(debug_assertions))]
    let _ = step;
}
