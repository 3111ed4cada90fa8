//! Why a verb did not do what it was asked to do: one clear line for people, one exit code for scripts.

use air_nats::topology::TopologyError;
use air_nats::{ConnectError, Error as NatsError};
use air_protocol::names::{JobName, TaskId};

use crate::Exit;

/// A verb did not do what it was asked to do. The text is what people read after `airx: `.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line, a file or a value is wrong.
    #[error("{0}")]
    Usage(String),
    /// There is no such job.
    #[error(
        "there is no job `{0}`; `airx status` lists all jobs, and a task published to it makes it"
    )]
    NoJob(JobName),
    /// There is no such task.
    #[error("there is no task `{task}` in the job `{job}`; `airx tasks {job}` lists its tasks")]
    NoTask {
        /// The job.
        job: JobName,
        /// The task.
        task: TaskId,
    },
    /// Something else is not there.
    #[error("{0}")]
    NotFound(String),
    /// What was asked cannot be done as things are.
    #[error("{0}")]
    Refused(String),
    /// The time of `--timeout` is over.
    #[error("{0}")]
    TimedOut(String),
    /// Interrupted from the keyboard.
    #[error("{0}")]
    Interrupted(String),
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The streams cannot be made.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// A stream or bucket is missing.
    #[error("this NATS server has no streams of Air-Executor; make them with `airx init`")]
    NoStreams,
    /// One of them is missing.
    #[error("{0}")]
    Missing(String),
    /// NATS refuses a request.
    #[error("{0}")]
    Nats(#[source] NatsError),
    /// A file or stream of the operating system.
    #[error("failed to {doing}: {source}")]
    Io {
        /// What was done.
        doing: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Whoever reads our output has gone away.
    #[error("nobody reads the output any more")]
    Hangup,
}

/// JetStream's code for a stream that does not exist.
const NO_STREAM: u64 = 10059;

impl From<NatsError> for Failure {
    fn from(error: NatsError) -> Self {
        match error {
            NatsError::NoResponders => Self::NoStreams,
            error if error.code() == Some(NO_STREAM) => Self::NoStreams,
            error => Self::Nats(error),
        }
    }
}

impl Failure {
    /// A failure of the operating system while `doing` something (fits behind "failed to").
    pub fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| match source.kind() {
            std::io::ErrorKind::BrokenPipe => Self::Hangup,
            _ => Self::Io { doing, source },
        }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::NoJob(_) | Self::NoTask { .. } | Self::NotFound(_) => Exit::NotFound,
            Self::Refused(_) | Self::Io { .. } => Exit::Failed,
            Self::TimedOut(_) => Exit::TimedOut,
            Self::Interrupted(_) => Exit::Interrupted,
            Self::Connect(ConnectError::Prefix(_) | ConnectError::Address { .. }) => Exit::Usage,
            Self::Connect(_)
            | Self::Topology(_)
            | Self::NoStreams
            | Self::Missing(_)
            | Self::Nats(_) => Exit::Nats,
            Self::Hangup => Exit::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_code() {
        let code = |failure: Failure| failure.exit().code();
        assert_eq!(code(Failure::Usage(String::new())), 2);
        assert_eq!(code(Failure::NoJob("j".parse().unwrap())), 3);
        assert_eq!(code(NatsError::NoResponders.into()), 4);
        assert_eq!(code(NatsError::Timeout.into()), 4);
        assert_eq!(code(Failure::TimedOut(String::new())), 124);
        let hangup = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(code(Failure::io("write")(hangup)), 0);
    }

    #[test]
    fn missing_streams_name_the_way_to_make_them() {
        assert!(
            Failure::from(NatsError::NoResponders)
                .to_string()
                .contains("airx init")
        );
    }
}
