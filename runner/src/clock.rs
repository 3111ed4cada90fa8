//! The clocks: wall time for what people read, and one that counts suspension for the lease.

use std::time::{Duration, SystemTime};

use air_protocol::time::Time;
use nix::time::{ClockId, clock_gettime};

/// Wall time.
pub(crate) fn now() -> Time {
    SystemTime::now().into()
}

/// Time since boot, with the time that the machine was suspended: the clock of tokio and std
/// stands still meanwhile, so that a lease would look fresh that is long over.
pub(crate) fn boot() -> Duration {
    match clock_gettime(ClockId::CLOCK_BOOTTIME) {
        Ok(time) => Duration::from(time),
        // Every Linux that we run on has it; without it no lease may look fresh.
        Err(_) => Duration::MAX,
    }
}
