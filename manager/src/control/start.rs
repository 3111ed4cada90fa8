//! Starting: what a manager sets up before its loop turns.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use air_nats::Nats;
use air_nats::managers::Heartbeat;
use air_protocol::VERSION;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::Control;
use super::parked::Parked;
use super::poll::Told;
use super::remembered::Remembered;
use crate::agenda::Agenda;
use crate::backend::Backend;
use crate::backend::airflow::Airflow;
use crate::backend::docker::Docker;
use crate::backend::fleet::Fleet;
use crate::backend::kubernetes::Kubernetes;
use crate::backend::polled::Polled;
use crate::backend::prefect::Prefect;
use crate::backend::process::Process;
use crate::backend::watched::Watched;
use crate::backend::webhook::Webhook;
use crate::decide::Me;
use crate::feeds::{self, Ear};
use crate::leases::Leases;
use crate::shared::{Shared, now};
use crate::{Error, Infrastructure, Options, workspaces};

/// News that may wait to be heard.
const NEWS_MAX: usize = 4096;

/// Runs a manager until `shutdown` is ready.
pub(crate) async fn run(
    nats: Nats,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let system = nats.system().await?;
    let (me, heartbeat) = identity(&options);
    let fleet = fleet(&options, &system)?;
    let delete_after = options.sync_interval;
    let shared = Arc::new(Shared::new(nats.clone(), me, fleet, delete_after));
    let (ear, news) = mpsc::channel(NEWS_MAX);
    let (ends_in, ends) = mpsc::unbounded_channel();
    let (remake, remade) = watch::channel(0);
    let (room, free) = watch::channel(options.runners_max);
    let (beat, beats) = watch::channel(heartbeat);
    let _ = nix::sys::prctl::set_child_subreaper(true);
    let mut feeds = JoinSet::new();
    let ear = Ear(ear);
    feeds.spawn(feeds::jobs(nats.clone(), ear.clone(), remade.clone()));
    feeds.spawn(feeds::specs(nats.clone(), ear.clone(), remade));
    feeds.spawn(feeds::managers(nats.clone(), ear.clone()));
    feeds.spawn(feeds::wakeups(nats.clone(), ear.clone(), free));
    feeds.spawn(feeds::signals(nats.clone(), ear));
    feeds.spawn(feeds::heartbeats(nats.clone(), beats));
    feeds.spawn(workspaces::sweep(nats, system));
    shared.fleet.watch(&ends_in, &mut feeds);
    let era = shared.era();
    let control = Control {
        shared,
        options,
        agenda: Agenda::default(),
        leases: Leases::new(Instant::now()),
        known: HashMap::new(),
        quiet: HashMap::new(),
        backlogs: Remembered::default(),
        parked: Parked::default(),
        recovering: HashSet::new(),
        over_budget: HashMap::new(),
        woken: HashSet::new(),
        tasks: JoinSet::new(),
        under_way: HashMap::new(),
        looks: 0,
        claiming: 0,
        era,
        jobs_told: Told::default(),
        specs_told: Told::default(),
        stream_seen: 0,
        walk: 0,
        remake,
        room,
        beat,
    };
    control.run(news, ends, shutdown).await;
    feeds.shutdown().await;
    Ok(())
}

/// Who this manager is, and what it says of itself.
fn identity(options: &Options) -> (Me, Heartbeat) {
    let host = host();
    let id = options.id.clone().unwrap_or_else(|| fresh_id(&host));
    let names = options.backends.iter().map(|one| one.name.clone());
    let heartbeat = Heartbeat {
        v: VERSION,
        manager: id.clone(),
        host,
        backends: names.collect(),
        runners: 0,
        runners_max: options.runners_max,
        since: now(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    (Me { id }, heartbeat)
}

/// The backends, as the options name them.
fn fleet(options: &Options, system: &str) -> Result<Fleet, Error> {
    let nats = options.nats.to_env().into_iter();
    let env = nats.chain([("AIR_SYSTEM", system.to_owned())]);
    let env: Vec<_> = env.map(|(name, value)| (name.to_owned(), value)).collect();
    let backend = |one: &crate::BackendOptions| -> Result<Arc<dyn Backend>, Error> {
        let name = one.name.clone();
        Ok(match &one.infrastructure {
            Infrastructure::Process(process) => {
                let program = options.runner.clone();
                let made = Process::new(name.clone(), program, env.clone(), system, process);
                Arc::new(made.map_err(|text| Error::Backend { name, text })?)
            }
            Infrastructure::Docker(docker) => {
                let host = Docker::new(docker.clone(), &options.nats, system);
                Arc::new(Watched::new(name, docker.image.clone(), host))
            }
            Infrastructure::Kubernetes(kubernetes) => {
                let host = Kubernetes::new(kubernetes.as_ref().clone(), &options.nats, system);
                Arc::new(Watched::new(name, kubernetes.image.clone(), host))
            }
            Infrastructure::Airflow(airflow) => {
                let every = airflow.poll;
                let airflow = Airflow::new(name, airflow.clone(), system);
                Arc::new(Polled::new(airflow, every))
            }
            Infrastructure::Prefect(prefect) => {
                let remote = Prefect::new(name, prefect.clone(), &options.nats, system);
                Arc::new(Polled::new(remote, prefect.poll))
            }
            Infrastructure::Webhook(webhook) => {
                Arc::new(Webhook::new(name, webhook.clone(), &options.nats, system))
            }
        })
    };
    let members = options.backends.iter().map(backend);
    Ok(Fleet::new(
        members.collect::<Result<_, _>>()?,
        options.limits(),
    ))
}

fn host() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "unknown".into())
}

/// An id that nobody else has, and that people recognise: host, process, and a few random letters.
fn fresh_id(host: &str) -> String {
    let host: String = host
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(40)
        .collect();
    let random = Uuid::new_v4().simple().to_string();
    format!("{host}-{}-{}", std::process::id(), &random[..4])
}
