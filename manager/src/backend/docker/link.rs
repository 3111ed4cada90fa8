//! The link to the daemon: made when it is needed, given up when it breaks; and what its answers mean.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bollard::Docker as Client;
use bollard::errors::Error;
use bollard::models::ContainerSummary;
use bollard::query_parameters::ListContainersOptions;

use crate::backend::SpawnError;

/// Where the daemon is, unless told otherwise.
const HOST: &str = "unix:///var/run/docker.sock";
/// Time in which the daemon must begin to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The link to a daemon.
#[derive(Debug)]
pub(super) struct Link {
    host: String,
    /// None while the daemon is away.
    up: Mutex<Option<Up>>,
}

#[derive(Debug, Clone)]
struct Up {
    client: Client,
    realm: String,
}

/// Why a request came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The daemon does not answer.
    Away(String),
    /// It answered with this status and this text.
    Answer(u16, String),
    /// What was asked for cannot be.
    Refused(String),
}

impl Link {
    pub(super) fn new(host: Option<String>) -> Self {
        let environment = || std::env::var("DOCKER_HOST").ok();
        let host = host.or_else(environment);
        Self {
            host: host.unwrap_or_else(|| HOST.to_owned()),
            up: Mutex::default(),
        }
    }

    /// A name that only this daemon has; none while it is away. Machines that were copied from one may have its id: so the
    /// name of the machine is in it.
    pub(super) fn realm(&self) -> Option<String> {
        self.up().as_ref().map(|up| up.realm.clone())
    }

    fn up(&self) -> std::sync::MutexGuard<'_, Option<Up>> {
        self.up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The daemon; asks it for its version and its name where the link is new.
    pub(super) async fn daemon(&self) -> Result<Client, Fault> {
        let known = self.up().as_ref().map(|up| up.client.clone());
        if let Some(client) = known {
            return Ok(client);
        }
        let client = Client::connect_with_host(&self.host).map_err(|error| self.away(&error))?;
        let client = client.with_timeout(ANSWER_WITHIN);
        let client = client.negotiate_version().await;
        let client = client.map_err(|error| self.fault(error))?;
        let about = client.info().await.map_err(|error| self.fault(error))?;
        let (id, machine) = (about.id.unwrap_or_default(), about.name.unwrap_or_default());
        let realm = format!("docker:{id}/{machine}");
        tracing::info!(host = self.host, realm, "the Docker daemon answers");
        *self.up() = Some(Up {
            client: client.clone(),
            realm,
        });
        Ok(client)
    }

    /// What an error means. The link is made anew after one that is no answer.
    pub(super) fn fault(&self, error: Error) -> Fault {
        match error {
            Error::DockerResponseServerError {
                status_code,
                message,
            } => Fault::Answer(status_code, message),
            Error::DockerStreamError { error } => Fault::Answer(500, error),
            error => self.away(&error),
        }
    }

    fn away(&self, error: &Error) -> Fault {
        *self.up() = None;
        let mut text = format!(
            "the Docker daemon at {} does not answer: {error}",
            self.host
        );
        let mut cause = std::error::Error::source(error);
        while let Some(deeper) = cause {
            text = format!("{text}: {deeper}");
            cause = deeper.source();
        }
        Fault::Away(text)
    }

    /// All containers with a label, whatever their state.
    pub(super) async fn list(
        &self,
        daemon: &Client,
        label: String,
    ) -> Result<Vec<ContainerSummary>, Fault> {
        let options = ListContainersOptions {
            all: true,
            filters: Some([("label".to_owned(), vec![label])].into()),
            ..ListContainersOptions::default()
        };
        let listed = daemon.list_containers(Some(options)).await;
        listed.map_err(|error| self.fault(error))
    }
}

impl Fault {
    /// The image cannot be had, whatever the reason.
    pub(super) fn of_pull(self, image: &str) -> Self {
        match self {
            Self::Answer(_, text) | Self::Refused(text) => Self::Refused(format!(
                "the image `{image}` cannot be had: {}",
                text.trim()
            )),
            away @ Self::Away(_) => away,
        }
    }

    /// The container cannot be created: the daemon says what is wrong with it.
    pub(super) fn of_create(self, image: &str) -> Self {
        match self {
            Self::Answer(400 | 404 | 409, text) => Self::Refused(format!(
                "no container can be made from the image `{image}`: {}",
                text.trim()
            )),
            other => other,
        }
    }

    /// The container cannot be started.
    pub(super) fn of_start(self, image: &str) -> Self {
        match self {
            Self::Answer(400 | 404 | 409, text) => Self::Refused(format!(
                "the container of the image `{image}` cannot be started: {}",
                text.trim()
            )),
            other => other,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(text) | Self::Refused(text) => f.write_str(text),
            Self::Answer(status, text) => write!(f, "{} (status {status})", text.trim()),
        }
    }
}

impl From<Fault> for SpawnError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(text) => Self::Refused(text),
            fault => Self::Unavailable(fault.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16) -> Fault {
        Fault::Answer(status, "so it says\n".into())
    }

    #[test]
    fn what_is_wrong_with_the_task_is_refused_and_all_else_is_not() {
        for fault in [
            answer(404).of_create("i"),
            answer(400).of_start("i"),
            answer(500).of_pull("i"),
        ] {
            let error = SpawnError::from(fault);
            let SpawnError::Refused(text) = &error else {
                panic!("{error:?}")
            };
            assert!(
                text.contains("`i`") && text.ends_with("so it says"),
                "{text}"
            );
        }
        let away = || Fault::Away("nobody".into());
        for fault in [
            answer(500).of_create("i"),
            answer(500).of_start("i"),
            away().of_pull("i"),
            away().of_create("i"),
            answer(404),
        ] {
            let error = SpawnError::from(fault);
            assert!(matches!(error, SpawnError::Unavailable(_)), "{error:?}");
        }
    }

    #[tokio::test]
    async fn nobody_at_the_address_is_a_daemon_that_is_away() {
        let link = Link::new(Some("unix:///nowhere/docker.sock".into()));
        let fault = link.daemon().await.unwrap_err();
        assert!(
            matches!(&fault, Fault::Away(text) if text.contains("/nowhere/docker.sock")),
            "{fault}"
        );
        assert_eq!(link.realm(), None);
    }
}
