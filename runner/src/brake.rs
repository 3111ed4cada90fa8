//! Why a program is to be ended from outside, noted once and heard by all who must know.

use tokio::sync::watch;

use crate::execute::Stop;

/// Why; a later one counts more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    /// The runner itself was asked to end: the task is to run again elsewhere.
    Drain,
    /// A user cancels the job.
    Cancelled,
    /// The task's last record is another one: the attempt is over.
    Over,
    /// The lease is lost, or may be.
    Lost,
}

/// Ends the program; see [`Brake::pull`].
#[derive(Debug)]
pub(crate) struct Brake {
    why: watch::Sender<Option<Why>>,
    stop: watch::Sender<Option<Stop>>,
}

impl Brake {
    pub(crate) fn new() -> Self {
        Self {
            why: watch::Sender::new(None),
            stop: watch::Sender::new(None),
        }
    }

    /// Ends the program for this reason, unless a graver one is known.
    pub(crate) fn pull(&self, why: Why) {
        let is_new = self.why.send_if_modified(|now| {
            let graver = *now < Some(why);
            if graver {
                *now = Some(why);
            }
            graver
        });
        if is_new {
            tracing::info!(?why, "ending the task");
            self.stop.send_replace(Some(match why {
                Why::Lost => Stop::LeaseLost,
                Why::Drain | Why::Cancelled | Why::Over => Stop::Cancel,
            }));
        }
    }

    /// The gravest reason so far.
    pub(crate) fn why(&self) -> Option<Why> {
        *self.why.borrow()
    }

    /// For [`crate::execute::execute`].
    pub(crate) fn stop(&self) -> watch::Receiver<Option<Stop>> {
        self.stop.subscribe()
    }

    /// Returns once the lease is lost.
    pub(crate) async fn lost(&self) {
        let mut why = self.why.subscribe();
        if why.wait_for(|why| *why == Some(Why::Lost)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_reason_stays() {
        let brake = Brake::new();
        assert_eq!(brake.why(), None);
        brake.pull(Why::Cancelled);
        brake.pull(Why::Drain);
        assert_eq!(brake.why(), Some(Why::Cancelled));
        assert_eq!(*brake.stop().borrow(), Some(Stop::Cancel));
        brake.pull(Why::Lost);
        brake.pull(Why::Over);
        assert_eq!(brake.why(), Some(Why::Lost));
        assert_eq!(*brake.stop().borrow(), Some(Stop::LeaseLost));
    }
}
