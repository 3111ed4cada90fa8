//! Following a job's key: a watch for speed, a slow poll for truth, never a busy loop.

use std::time::Duration;

use air_nats::Nats;
use air_protocol::names::JobName;
use futures_util::FutureExt as _;
use tokio::time::Instant;

/// Time after which one looks even if nothing was heard.
const POLL: Duration = Duration::from_secs(1);
/// The shortest time between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Tells when a job's key may have changed.
pub struct Follow {
    nats: Nats,
    job: JobName,
    watch: Option<air_nats::Watch>,
    looked: Option<Instant>,
}

impl Follow {
    /// Follows the key of a job.
    pub fn new(nats: &Nats, job: &JobName) -> Self {
        Self {
            nats: nats.clone(),
            job: job.clone(),
            watch: None,
            looked: None,
        }
    }

    /// Waits until the key may have changed; the first time not at all.
    pub async fn changed(&mut self) {
        let Some(looked) = self.looked.replace(Instant::now()) else {
            self.watch = self.nats.watch_job(&self.job).await.ok();
            return;
        };
        let deadline = looked + POLL;
        let broken = match &mut self.watch {
            Some(watch) => {
                let next = tokio::time::timeout_at(deadline, watch.next()).await;
                tokio::time::sleep_until(looked + PAUSE).await;
                matches!(next, Ok(Err(_))) || drain(watch)
            }
            None => {
                tokio::time::sleep_until(deadline).await;
                true
            }
        };
        if broken {
            self.watch = self.nats.watch_job(&self.job).await.ok();
        }
        self.looked = Some(Instant::now());
    }
}

/// Takes what has arrived meanwhile; true when the watch is broken.
fn drain(watch: &mut air_nats::Watch) -> bool {
    loop {
        match watch.next().now_or_never() {
            None => return false,
            Some(Ok(_)) => {}
            Some(Err(_)) => return true,
        }
    }
}
