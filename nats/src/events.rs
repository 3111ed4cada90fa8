//! Life-cycle events: published without waiting, kept by the stream `AIR_EVENTS`.

use std::time::SystemTime;

use air_protocol::codec;
use air_protocol::event::{Data, Event, Kind};
use air_protocol::names::JobName;
use air_protocol::spec::Wire;
use uuid::Uuid;

use crate::direct::Stored;
use crate::{Error, Nats};

impl Nats {
    /// Tells that something happened. Best effort: an event that is lost changes nothing.
    pub async fn emit(&self, kind: Kind, data: Data) {
        let subject = self.names.events(data.job.as_ref(), kind.as_str());
        let event = Event::new(kind, data, SystemTime::now().into(), Uuid::now_v7());
        let payload = codec::encode(Wire::Json, &event).into();
        if let Err(error) = self.client.publish(subject, payload).await {
            tracing::debug!(%error, "could not tell an event");
        }
    }

    /// Up to `count` stored events from the sequence `from` on, of one job or of all.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn events(
        &self,
        job: Option<&JobName>,
        from: u64,
        count: usize,
    ) -> Result<Vec<Stored>, Error> {
        let subject = job.map_or_else(|| self.names.all_events(), |job| self.names.job_events(job));
        Ok(self
            .get_next(&self.names.events_stream(), &subject, from, count)
            .await?
            .messages)
    }
}
