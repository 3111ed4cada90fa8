//! Carries a program's output to the stream of logs. A log that cannot be written never fails a task.

use air_nats::logs::LogWriter;
use tokio::sync::mpsc;

/// Chunks that may wait for NATS.
pub(crate) const WAITING_MAX: usize = 16;

/// The log of one attempt.
pub(crate) struct Log {
    writer: LogWriter,
    failures: u64,
}

impl Log {
    pub(crate) fn new(writer: LogWriter) -> Self {
        Self {
            writer,
            failures: 0,
        }
    }

    /// Writes chunks as they come, until the program's output has ended.
    pub(crate) async fn carry(&mut self, mut chunks: mpsc::Receiver<Vec<u8>>) {
        while let Some(chunk) = chunks.recv().await {
            self.write(chunk).await;
        }
    }

    /// Says how much is missing, and waits until all chunks are stored.
    pub(crate) async fn finish(&mut self, dropped: u64) {
        if dropped > 0 {
            let text = format!("\n[{dropped} bytes of output are not kept]\n");
            self.write(text.into_bytes()).await;
        }
        if let Err(error) = self.writer.finish().await {
            self.note(&error);
        }
    }

    async fn write(&mut self, chunk: Vec<u8>) {
        // A failure tells of an earlier chunk, and keeps this one back.
        for _ in 0..2 {
            match self.writer.write(chunk.clone().into()).await {
                Ok(()) => return,
                Err(error) => self.note(&error),
            }
        }
    }

    fn note(&mut self, error: &air_nats::Error) {
        self.failures += 1;
        if self.failures == 1 {
            tracing::warn!(%error, "output could not be stored; the log has a gap");
        }
    }
}
