//! Carries a program's output from its pipe to the caller, in chunks, without ever holding
//! the program up for long.

use std::fs::File;
use std::io::{self, Read};
use std::pin::pin;
use std::time::Duration;

use air_protocol::limits::{LOG_CHUNK_BYTES_MAX, TAIL_BYTES};
use tokio::net::unix::pipe;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

/// Longest time between a chunk's first byte and its delivery.
const CHUNK_AGE_MAX: Duration = Duration::from_millis(100);
/// Longest time that a full channel may hold the program up; then chunks are dropped until
/// there is room again.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most that a pipe holds by the kernel's defaults.
const PIPE_BYTES_MAX: usize = 1024 * 1024;

/// The output of one program.
pub(super) struct Output {
    /// `None` once the end has been read.
    pipe: Option<pipe::Receiver>,
    chunks: mpsc::Sender<Vec<u8>>,
    /// How long the next full channel is waited for.
    patience: Duration,
    /// Bytes that may still be handed on.
    allowance: u64,
    chunk: Vec<u8>,
    /// When `chunk` is due; meaningful while it holds something.
    due: Instant,
    tail: Vec<u8>,
    bytes: u64,
    dropped: u64,
}

impl Output {
    pub(super) fn new(pipe: pipe::Receiver, chunks: mpsc::Sender<Vec<u8>>, bytes_max: u64) -> Self {
        Self {
            pipe: Some(pipe),
            chunks,
            patience: PATIENCE,
            allowance: bytes_max,
            chunk: Vec::new(),
            due: Instant::now(),
            tail: Vec::new(),
            bytes: 0,
            dropped: 0,
        }
    }

    /// Bytes read in all.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes read but not handed on.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The last bytes read.
    pub(super) fn into_tail(self) -> Vec<u8> {
        self.tail
    }

    /// Carries output until `all_gone` resolves, and then what is still in the pipe.
    ///
    /// The pipe's own end is not waited for: a process that is none of ours may hold it.
    pub(super) async fn pump(&mut self, all_gone: oneshot::Receiver<()>) {
        let mut all_gone = pin!(all_gone);
        let mut buffer = vec![0; LOG_CHUNK_BYTES_MAX];
        loop {
            let waiting = !self.chunk.is_empty();
            tokio::select! {
                biased;
                _ = &mut all_gone => break,
                () = sleep_until(self.due), if waiting => self.flush().await,
                () = readable(self.pipe.as_ref()) => {
                    let read = self.pipe.as_ref().map(|pipe| pipe.try_read(&mut buffer));
                    match read {
                        Some(Ok(count)) if count > 0 => self.take(&buffer[..count]).await,
                        Some(Err(error)) if is_passing(&error) => {}
                        _ => self.pipe = None,
                    }
                }
            }
        }
        self.drain(&mut buffer).await;
        self.flush().await;
    }

    /// Takes what the tree left in the pipe: no more than a pipe can hold, since a stranger
    /// may go on writing into it.
    async fn drain(&mut self, buffer: &mut [u8]) {
        // Past tokio, which may not have heard yet that there is something to read.
        let Some(Ok(fd)) = self.pipe.take().map(pipe::Receiver::into_nonblocking_fd) else {
            return;
        };
        let mut pipe = File::from(fd);
        let mut left = PIPE_BYTES_MAX;
        while left > 0 {
            match pipe.read(buffer) {
                Ok(0) => return,
                Ok(count) => {
                    left = left.saturating_sub(count);
                    self.take(&buffer[..count]).await;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Accounts for `bytes` and puts those within the limit into chunks.
    async fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.remember(bytes);
        let allowed = usize::try_from(self.allowance)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let (mut kept, beyond) = bytes.split_at(allowed);
        self.allowance -= kept.len() as u64;
        self.dropped += beyond.len() as u64;
        while !kept.is_empty() {
            if self.chunk.is_empty() {
                self.due = Instant::now() + CHUNK_AGE_MAX;
            }
            let room = LOG_CHUNK_BYTES_MAX - self.chunk.len();
            let (now, later) = kept.split_at(room.min(kept.len()));
            self.chunk.extend_from_slice(now);
            kept = later;
            if self.chunk.len() == LOG_CHUNK_BYTES_MAX {
                self.flush().await;
            }
        }
    }

    fn remember(&mut self, bytes: &[u8]) {
        let new = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        let old = self.tail.len().saturating_sub(TAIL_BYTES - new.len());
        self.tail.drain(..old);
        self.tail.extend_from_slice(new);
    }

    /// Hands the chunk on, or drops it if nobody takes it in time.
    async fn flush(&mut self) {
        if self.chunk.is_empty() {
            return;
        }
        let chunk = std::mem::take(&mut self.chunk);
        match self.chunks.send_timeout(chunk, self.patience).await {
            Ok(()) => self.patience = PATIENCE,
            Err(SendTimeoutError::Timeout(chunk)) => {
                self.patience = Duration::ZERO;
                self.dropped += chunk.len() as u64;
            }
            Err(SendTimeoutError::Closed(chunk)) => self.dropped += chunk.len() as u64,
        }
    }
}

/// Waits until there is something to read, the end included; for ever after the end.
async fn readable(pipe: Option<&pipe::Receiver>) {
    match pipe {
        Some(pipe) => {
            // An error here comes back from the read that follows.
            let _ = pipe.readable().await;
        }
        None => std::future::pending().await,
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
