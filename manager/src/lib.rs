//! Managers decide which tasks of Air-Executor run next, and start their runners.
//!
//! Any number of equal replicas run side by side; none knows anything that NATS does not. Start at
//! [`decide`] for what a manager does next for one job, a pure function; [`backlog`], [`agenda`],
//! [`leases`], [`offers`] and [`circle`] are pure as well. `control` is the loop around them, `advance` one look
//! at one job, and each longer act has a file of its own: [`settle`], [`recover`], [`empty`],
//! `expire`, `remove`; what the first three commit is made by pure functions.

mod advance;
pub mod agenda;
mod backend;
pub mod backlog;
mod budget;
pub mod circle;
mod control;
pub mod decide;
pub mod empty;
mod expire;
mod feeds;
mod kubernetes_options;
mod launch;
pub mod leases;
pub mod offers;
pub mod recover;
mod remove;
pub mod requeue;
pub mod settle;
mod shared;
mod workspaces;

pub use advance::hold;

pub use backend::fleet::Limits;
pub use backend::http::Secret;
pub use kubernetes_options::{KubernetesOptions, PodTemplate, Taint};

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use air_protocol::limits::{POLL_DEFAULT, POLL_MAX, POLL_MIN};
use air_protocol::names::JobName;
use air_protocol::time::Span;
use tokio::sync::watch;

/// How a manager is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where NATS is.
    pub nats: air_nats::Options,
    /// Id of the manager, at most 64 of `A-Za-z0-9_-`; made of host and process id when none.
    pub id: Option<String>,
    /// What starts runners, in the order in which it is tried.
    pub backends: Vec<BackendOptions>,
    /// Runners that it may have at once.
    pub runners_max: usize,
    /// Other limits, as they are told while it runs.
    pub new_limits: Option<watch::Receiver<Limits>>,
    /// Time between two looks at everything, 1 s to 60 s.
    pub poll: Duration,
    /// The program `air-runner`.
    pub runner: PathBuf,
    /// What becomes of its runners when it stops.
    pub on_stop: OnStop,
    /// The server's `sync_interval`: consumed messages are deleted only when their records are synced.
    /// Zero where the server syncs always.
    pub sync_interval: Duration,
}

/// A backend that a manager has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendOptions {
    /// Its name: what tasks ask for, and records tell.
    pub name: String,
    /// Runners that it may have at once, where not as many as the manager.
    pub runners_max: Option<usize>,
    /// What it is.
    pub infrastructure: Infrastructure,
}

/// What starts runners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Infrastructure {
    /// The machine of the manager: runners are child processes.
    Process(ProcessOptions),
    /// A Docker daemon, or what answers like one: runners are containers.
    Docker(DockerOptions),
    /// A namespace of a Kubernetes cluster: runners are pods.
    Kubernetes(Box<KubernetesOptions>),
    /// An Airflow: runners are runs of a DAG.
    Airflow(AirflowOptions),
    /// A Prefect server: runners are flow runs.
    Prefect(PrefectOptions),
    /// An address of the user's: runners are what it starts.
    Webhook(WebhookOptions),
}

/// How processes are started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProcessOptions {
    /// Nice value of the runners, -20 to 19; that of the manager when none.
    pub nice: Option<i32>,
    /// User and perhaps group, `user` or `user:group`, by names or numbers; the manager's when none. Needs root.
    pub user: Option<String>,
    /// Where the cgroups of runners are whose tasks ask for resources.
    pub cgroup: CgroupOptions,
}

/// Where cgroups are made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CgroupOptions {
    /// Below that of the manager, where they can be made; else nowhere.
    #[default]
    Auto,
    /// Below that of this path, which begins at the root of the hierarchy; a manager does not start where they cannot.
    Path(String),
    /// Nowhere: the kernel limits the address space of each process, and nothing else.
    None,
}

/// How containers are started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DockerOptions {
    /// Address of the daemon, `unix://…` or `tcp://…`; `DOCKER_HOST`, or Docker's socket, when none.
    pub host: Option<String>,
    /// Image of tasks that ask for none; such tasks are left to others when none.
    pub image: Option<String>,
    /// Whether images are fetched.
    pub pull: Pull,
    /// The static `air-runner` on the machine of the daemon: an absolute path, or the name of a volume that has it.
    pub runner: String,
    /// Addresses of NATS as containers see them; those of the manager when none.
    pub nats_url: Option<String>,
    /// Network of the containers; the daemon's default when none.
    pub network: Option<String>,
    /// What is mounted besides: `source:target` or `source:target:ro`.
    pub mounts: Vec<String>,
    /// User and group; the image's when none.
    pub user: Option<String>,
    /// Whether the file system of the image is read-only, with a `/tmp` in memory.
    pub read_only: bool,
    /// Capabilities that are taken away, such as `ALL`.
    pub cap_drop: Vec<String>,
}

/// Whether images are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pull {
    /// Where the daemon does not have them.
    #[default]
    Missing,
    /// Each time, so that a tag that was moved is noticed.
    Always,
    /// Never: the daemon has all that there are.
    Never,
}

impl Pull {
    fn is_allowed(self) -> bool {
        match self {
            Self::Missing | Self::Always => true,
            Self::Never => false,
        }
    }
}

/// How runs of Airflow are started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AirflowOptions {
    /// Address of the API server, `http://…` or `https://…`.
    pub url: String,
    /// The DAG.
    pub dag: String,
    /// Who asks.
    pub login: AirflowLogin,
    /// Time between two lists of runs.
    pub poll: Duration,
    /// Whether its executor is Kubernetes, so that images and resources count.
    pub kubernetes: bool,
}

/// Who asks Airflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AirflowLogin {
    /// Whoever a token was given to.
    Token(Secret),
    /// A user, with a password.
    Password(String, Secret),
}

/// How flow runs of Prefect are started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefectOptions {
    /// Address of the API, such as `http://127.0.0.1:4200/api`.
    pub url: String,
    /// As whom; nobody when none.
    pub auth: Option<PrefectAuth>,
    /// The work pool whose workers run them.
    pub work_pool: String,
    /// Name of the deployment of the flow `air-runner`; made where it is missing.
    pub deployment: String,
    /// Time between two looks at all flow runs.
    pub poll: Duration,
    /// Addresses of NATS as flow runs see them; those of the manager when none.
    pub nats_url: Option<String>,
    /// Whether the image that a task asks for is handed over as the job variable `image`.
    pub images: bool,
    /// Job variables of all flow runs.
    pub job_variables: serde_json::Map<String, serde_json::Value>,
}

/// As whom Prefect is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrefectAuth {
    /// With an API key.
    Key(Secret),
    /// As `user:password`, which a server of one's own may ask for.
    Basic(Secret),
}

/// How runners are asked for at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookOptions {
    /// Where runners are started.
    pub url: String,
    /// Where they are ended; the same address when none.
    pub stop_url: Option<String>,
    /// What requests are signed with: `whsec_` and 24 to 64 bytes in base64.
    pub secret: Secret,
    /// Further headers of each request.
    pub headers: Vec<(String, String)>,
    /// Time for an answer.
    pub timeout: Duration,
    /// Addresses of NATS as runners see them; those of the manager when none.
    pub nats_url: Option<String>,
    /// Whether the receiver runs images.
    pub images: bool,
    /// Whether it gives tasks the resources that they ask for.
    pub resources: bool,
}

impl BackendOptions {
    /// Child processes, as many as the manager may have.
    pub fn process() -> Self {
        Self {
            name: "process".to_owned(),
            runners_max: None,
            infrastructure: Infrastructure::Process(ProcessOptions::default()),
        }
    }
}

/// What becomes of the runners of a manager that stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStop {
    /// They go on; another manager goes on where they end.
    Leave,
    /// The manager waits until they have ended.
    Drain,
    /// They are told to end, and commit their tasks as to be run later, which counts as no failure.
    HandBack,
}

impl Options {
    /// Options with the defaults: twice as many runners as cores, and the poll of 5 s.
    pub fn new(nats: air_nats::Options, runner: PathBuf) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            nats,
            id: None,
            backends: vec![BackendOptions::process()],
            runners_max: 2 * cores,
            new_limits: None,
            poll: POLL_DEFAULT,
            runner,
            on_stop: OnStop::Leave,
            sync_interval: Duration::from_secs(120),
        }
    }

    /// Runners that it may have at once, in all and of each backend.
    pub fn limits(&self) -> Limits {
        let of = |one: &BackendOptions| Some((one.name.clone(), one.runners_max?));
        Limits {
            runners_max: self.runners_max,
            of: self.backends.iter().filter_map(of).collect(),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let mut names = HashSet::new();
        for backend in &self.backends {
            if backend.name.parse::<JobName>().is_err() {
                return Err(Error::BackendName(backend.name.clone()));
            }
            if !names.insert(&backend.name) {
                return Err(Error::Twice(backend.name.clone()));
            }
        }
        if self.backends.is_empty() {
            return Err(Error::NoBackend);
        }
        if self.runners_max == 0 {
            return Err(Error::NoRunners);
        }
        if self.poll < POLL_MIN || self.poll > POLL_MAX {
            return Err(Error::Poll(Span(self.poll)));
        }
        match &self.id {
            Some(id) if id.parse::<JobName>().is_err() => Err(Error::Id(id.clone())),
            _ => Ok(()),
        }
    }
}

/// The manager cannot start, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] air_nats::ConnectError),
    /// A request that must work did not.
    #[error("{0}")]
    Nats(#[from] air_nats::Error),
    /// The streams are missing.
    #[error("{0} is missing; make it with `airx init`")]
    Missing(String),
    /// The streams cannot be looked at.
    #[error(transparent)]
    Topology(#[from] air_nats::topology::TopologyError),
    /// No place for a runner.
    #[error("--max-runners is 0, but 1 is the least")]
    NoRunners,
    /// No backend.
    #[error("there is no backend; name one, such as `process`")]
    NoBackend,
    /// Two backends of one name.
    #[error("two backends have the name `{0}`; give one of them another")]
    Twice(String),
    /// A name that is none.
    #[error("`{0}` is no name of a backend; use 1 to 64 of the characters A-Z a-z 0-9 _ -")]
    BackendName(String),
    /// A backend that cannot be as it is wanted.
    #[error("backend `{name}`: {text}")]
    Backend {
        /// Its name.
        name: String,
        /// What cannot be, and how to mend it.
        text: String,
    },
    /// A poll that is too short or too long.
    #[error("--poll is {0}, but must be from {min} to {max}", min = Span(POLL_MIN), max = Span(POLL_MAX))]
    Poll(Span),
    /// An id that is none.
    #[error("`{0}` is no id of a manager; use 1 to 64 of the characters A-Z a-z 0-9 _ -")]
    Id(String),
}

/// Runs a manager until `shutdown` is ready. It owns all children of this process: whoever calls
/// this has no other children.
///
/// # Errors
/// [`Error`] when it cannot start.
pub async fn run(options: Options, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    options.check()?;
    let nats = air_nats::Nats::connect(&options.nats, "air-manager").await?;
    let missing =
        |found: &air_nats::topology::Found| found.outcome == air_nats::topology::Outcome::Missing;
    let found = nats.init(None, false).await?;
    let mut users = found
        .iter()
        .filter(|found| !nats.is_made_by_managers(found));
    if let Some(found) = users.find(|found| missing(found)) {
        return Err(Error::Missing(found.name.clone()));
    }
    nats.make_managers_bucket().await?;
    control::run(nats, options, shutdown).await
}
