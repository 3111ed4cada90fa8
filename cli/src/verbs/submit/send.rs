//! Publishing tasks: in order, a window at a time, each under an id by which NATS drops repetitions.

use std::time::Duration;

use air_nats::{Error, Nats};
use air_protocol::codec;
use air_protocol::spec::Wire;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Order, Submitted};
use crate::Failure;
use crate::app::App;
use crate::progress::Progress;

/// Tasks that may be on their way at once.
const WINDOW: usize = 64;
/// Time for which a task is sent again: well below the two minutes for which NATS remembers its id.
const PATIENCE: Duration = Duration::from_secs(60);

/// Publishes tasks, in order.
pub(super) async fn all(
    nats: &Nats,
    app: &App,
    orders: Vec<Order>,
) -> Result<Vec<Submitted>, Failure> {
    let total = orders.len();
    let progress = (total > WINDOW).then(|| Progress::new(&app.console, "submitting"));
    let mut submitted = Vec::with_capacity(total);
    let mut sent = stream::iter(orders)
        .map(|order| one(nats, order))
        .buffered(WINDOW);
    loop {
        match sent.try_next().await {
            Ok(Some(one)) => submitted.push(one),
            Ok(None) => return Ok(submitted),
            Err(failure) => {
                if !submitted.is_empty() {
                    app.console.warn(format_args!(
                        "{} of {total} tasks are stored; give them ids, and the same file can be submitted again",
                        submitted.len()
                    ));
                }
                return Err(failure);
            }
        }
        if let Some(progress) = &progress {
            progress.show(submitted.len() as u64, total as u64, "");
        }
    }
}

/// Publishes one task, again while NATS does not answer.
async fn one(nats: &Nats, order: Order) -> Result<Submitted, Failure> {
    let payload = codec::encode(Wire::Json, &order.task);
    let message_id = Uuid::new_v4().to_string();
    let until = Instant::now() + PATIENCE;
    loop {
        let sent = nats
            .publish_task(&order.job, None, payload.clone(), Some(&message_id))
            .await;
        match sent {
            Ok(seq) => {
                return Ok(Submitted {
                    task: order.task.id_at(seq),
                    job: order.job,
                    seq,
                });
            }
            // Without a stream the first answer says so; with one it says so only while there is no leader.
            Err(Error::NoResponders)
                if nats.replicas().await.is_ok_and(|found| found.is_none()) =>
            {
                return Err(Failure::NoStreams);
            }
            Err(error) if error.is_passing() && Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
