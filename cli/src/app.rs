//! What every verb gets: the console, and the way to NATS.

use std::time::{Duration, SystemTime};

use air_nats::{Nats, Options};
use air_protocol::time::Time;

use crate::Failure;
use crate::console::Console;
use crate::context::{self, Flags};

/// What every verb gets.
#[derive(Debug, Clone)]
pub struct App {
    /// Where output goes.
    pub console: Console,
    /// What the command line says about the connection.
    pub flags: Flags,
}

impl App {
    /// How to connect.
    ///
    /// # Errors
    /// A context or prefix that is none.
    pub fn options(&self) -> Result<Options, Failure> {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        context::options(&self.flags, var)
    }

    /// A connection.
    ///
    /// # Errors
    /// There is none.
    pub async fn nats(&self) -> Result<Nats, Failure> {
        Ok(Nats::connect(&self.options()?, "airx").await?)
    }

    /// Warns when no manager is there to do what is asked.
    ///
    /// # Errors
    /// NATS does not answer as it should.
    pub async fn warn_unless_managed(&self, nats: &Nats) -> Result<(), Failure> {
        if nats.managers().await?.is_empty() {
            self.console.warn(
                "no manager runs, so nothing goes on; start one with `airx manager` or `airx dev`",
            );
        }
        Ok(())
    }
}

/// The time by this machine's clock.
pub fn now() -> Time {
    SystemTime::now().into()
}

/// Does `work` within a time, if there is one.
///
/// # Errors
/// Those of `work`, and that its time is over.
pub async fn within<T>(
    timeout: Option<Duration>,
    what: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let Some(timeout) = timeout else {
        return work.await;
    };
    tokio::time::timeout(timeout, work)
        .await
        .unwrap_or_else(|_| {
            let span = air_protocol::time::Span(timeout);
            Err(Failure::TimedOut(format!("{what} within {span}")))
        })
}

/// A span of time in the two largest units that matter: `3d4h`, `12m5s`, `250ms`.
pub fn short(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes, seconds) {
        (0, 0, 0, 0) => format!("{}ms", span.as_millis()),
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m{}s", s % 60),
        (0, h, m, _) => format!("{h}h{m}m"),
        (d, h, ..) => format!("{d}d{h}h"),
    }
}

/// `1 task`, `2 tasks`.
pub fn count(number: u64, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        let texts = [250, 2_000, 725_000, 7_500_000, 273_600_000]
            .map(|ms| short(Duration::from_millis(ms)));
        assert_eq!(texts, ["250ms", "2s", "12m5s", "2h5m", "3d4h"]);
        assert_eq!(
            (count(1, "task"), count(0, "task")),
            ("1 task".into(), "0 tasks".into())
        );
    }
}
