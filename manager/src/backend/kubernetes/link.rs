//! The link to the API server: made when it is needed, given up when it breaks; and what its answers mean.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use air_protocol::task::Resources;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};

use super::quota;
use crate::backend::SpawnError;
use crate::kubernetes_options::KubernetesOptions;

/// Time in which the API server must be reached.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Time in which it must say something; longer than a watch lasts.
const ANSWER_WITHIN: Duration = Duration::from_secs(90);

/// The link to an API server.
#[derive(Debug)]
pub(super) struct Link {
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    namespace: Option<String>,
    /// None while it is away.
    up: Mutex<Option<Up>>,
}

/// A namespace that can be reached.
#[derive(Clone)]
pub(super) struct Up {
    pub(super) pods: Api<Pod>,
    pub(super) secrets: Api<Secret>,
    realm: String,
}

impl fmt::Debug for Up {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.realm)
    }
}

/// Why a request came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The API server does not answer.
    Away(String),
    /// It answered with this status and this text.
    Answer(u16, String),
}

impl Link {
    pub(super) fn new(options: &KubernetesOptions) -> Self {
        Self {
            kubeconfig: options.kubeconfig.clone(),
            context: options.context.clone(),
            namespace: options.namespace.clone(),
            up: Mutex::default(),
        }
    }

    /// A name that only this namespace of this cluster has; none while it is away.
    pub(super) fn realm(&self) -> Option<String> {
        self.lock().as_ref().map(|up| up.realm.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Up>> {
        self.up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The namespace; asks for its id where the link is new.
    pub(super) async fn up(&self) -> Result<Up, Fault> {
        let known = self.lock().clone();
        if let Some(up) = known {
            return Ok(up);
        }
        let mut config = self.config().await?;
        config.connect_timeout = Some(CONNECT_WITHIN);
        config.read_timeout = Some(ANSWER_WITHIN);
        let server = config.cluster_url.to_string();
        let name = config.default_namespace.clone();
        let client = Client::try_from(config).map_err(|error| self.fault(error))?;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let found = namespaces
            .get(&name)
            .await
            .map_err(|error| self.fault(error))?;
        let id = found.metadata.uid.unwrap_or_default();
        let up = Up {
            pods: Api::namespaced(client.clone(), &name),
            secrets: Api::namespaced(client, &name),
            realm: format!("kubernetes:{id}"),
        };
        tracing::info!(
            server,
            namespace = name,
            "the API server of Kubernetes answers"
        );
        *self.lock() = Some(up.clone());
        Ok(up)
    }

    async fn config(&self) -> Result<Config, Fault> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = match (&self.kubeconfig, &self.context) {
            (Some(file), _) => {
                let read = Kubeconfig::read_from(file);
                let read = read.map_err(|error| self.away(&error))?;
                Config::from_custom_kubeconfig(read, &options)
                    .await
                    .map_err(|error| self.away(&error))
            }
            (None, Some(_)) => Config::from_kubeconfig(&options)
                .await
                .map_err(|error| self.away(&error)),
            (None, None) => Config::infer().await.map_err(|error| self.away(&error)),
        };
        let mut config = config?;
        if let Some(namespace) = &self.namespace {
            config.default_namespace.clone_from(namespace);
        }
        Ok(config)
    }

    /// What an error means. The link is made anew after one that is no answer.
    pub(super) fn fault(&self, error: kube::Error) -> Fault {
        match error {
            kube::Error::Api(status) => Fault::Answer(status.code, status.message),
            error => self.away(&error),
        }
    }

    fn away(&self, error: &dyn std::error::Error) -> Fault {
        *self.lock() = None;
        let mut text = format!("Kubernetes does not answer: {error}");
        let mut cause = error.source();
        while let Some(deeper) = cause {
            let deeper_text = deeper.to_string();
            if !text.ends_with(&deeper_text) {
                text = format!("{text}: {deeper_text}");
            }
            cause = deeper.source();
        }
        Fault::Away(text)
    }
}

impl Fault {
    /// The pod cannot be created: what is wrong with what the task asks for is its own fault, and everything else is not.
    pub(super) fn of_create(self, image: &str, resources: Option<&Resources>) -> SpawnError {
        match self {
            Self::Away(text) => SpawnError::Unavailable(text),
            Self::Answer(400 | 422, text) => SpawnError::Refused(format!(
                "no pod can be made with the image `{image}`: {text}"
            )),
            Self::Answer(403, text) if resources.is_some() && quota::never_fits(&text) => {
                SpawnError::Refused(format!(
                    "the namespace never has what the task asks for: {text}"
                ))
            }
            Self::Answer(403, text) if text.contains("exceeded quota") => {
                SpawnError::Unavailable(format!("the namespace has no room now: {text}"))
            }
            Self::Answer(status, text) => {
                SpawnError::Unavailable(format!("no pod can be made: {text} (status {status})"))
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(text) => f.write_str(text),
            Self::Answer(status, text) => write!(f, "{} (status {status})", text.trim()),
        }
    }
}

impl From<Fault> for SpawnError {
    fn from(fault: Fault) -> Self {
        Self::Unavailable(fault.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, text: &str) -> SpawnError {
        let resources = Resources::default();
        Fault::Answer(status, text.into()).of_create("i", Some(&resources))
    }

    #[test]
    fn what_is_wrong_with_the_task_is_refused_and_all_else_is_not() {
        let never = "pods \"p\" is forbidden: exceeded quota: q, requested: limits.memory=2Gi, used: limits.memory=0, limited: limits.memory=1Gi";
        let range = "pods \"p\" is forbidden: maximum memory usage per Container is 64Mi, but limit is 128Mi";
        for error in [
            answer(422, "so it says"),
            answer(403, never),
            answer(403, range),
        ] {
            assert!(matches!(error, SpawnError::Refused(_)), "{error:?}");
        }
        let full = "pods \"p\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2";
        for (error, said) in [
            (answer(403, full), "has no room now"),
            (
                answer(
                    403,
                    "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\"",
                ),
                "status 403",
            ),
            (
                answer(403, "pods is forbidden: User \"x\" cannot create resource"),
                "cannot create",
            ),
            (answer(404, "namespaces \"n\" not found"), "not found"),
            (
                Fault::Answer(403, range.into()).of_create("i", None),
                "per Container",
            ),
            (Fault::Away("nobody".into()).of_create("i", None), "nobody"),
        ] {
            assert!(
                matches!(&error, SpawnError::Unavailable(text) if text.contains(said)),
                "{error:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there_is_a_cluster_that_is_away() {
        let options = KubernetesOptions {
            kubeconfig: Some("/nowhere/kubeconfig".into()),
            ..KubernetesOptions::default()
        };
        let link = Link::new(&options);
        let fault = link.up().await.unwrap_err();
        assert!(
            matches!(&fault, Fault::Away(text) if text.contains("/nowhere/kubeconfig")),
            "{fault}"
        );
        assert_eq!(link.realm(), None);
    }
}
