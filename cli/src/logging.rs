//! Logs of the manager on stderr: `AIR_LOG` or `RUST_LOG` choose what is told.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Begins to log on stderr; `default` is what is told unless the environment says otherwise.
pub fn start(default: &str) {
    let wanted = ["AIR_LOG", "RUST_LOG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let filter = EnvFilter::try_new(wanted.as_deref().unwrap_or(default))
        .unwrap_or_else(|_| EnvFilter::new(default));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // A second call changes nothing: whoever set up logging first keeps it.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false)
        .try_init();
}
