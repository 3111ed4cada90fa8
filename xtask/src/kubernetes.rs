//! `cargo xtask kubernetes`: a real cluster of one node on this machine, for the tests of the Kubernetes backend.
//!
//! etcd, API server, controllers, scheduler and a kubelet with containerd below it, so that pods really run. Nothing is
//! pulled: the program is compiled here ([`crate::tools`]), the images are those of `cargo xtask images`. All state is in
//! `target/kubernetes`, and what listens does so on the loopback device. One cluster a machine, and as root.

mod control_plane;
mod daemons;
mod node;
mod pki;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::docker::Docker;
use crate::error::{Error, Result};
use crate::{command, images, system, tools, workspace};
use daemons::Daemons;

/// The first Service address, at which pods look for the API server: an address of the loopback device here, to which pods have a
/// route. Tests have their servers of NATS there.
pub(crate) const ADDRESS: &str = "10.96.0.1";
/// Image of the container that holds the namespaces of a pod.
const PAUSE: &str = "air-pause";

/// What to do with the cluster.
#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Start it, with the images of this project, and print what `kubectl` needs
    Up,
    /// Stop it, and remove all that it left
    Down,
}

/// The verb `kubernetes`.
pub(crate) fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Up => {
            let docker = Docker::start()?;
            images::build(&docker)?;
            let cluster = Cluster::start(&docker)?.left_running();
            println!("export KUBECONFIG={}", cluster.kubeconfig().display());
            println!("alias kubectl='{} kubectl'", cluster.program.display());
            Ok(())
        }
        Verb::Down => stop(&folder()?),
    }
}

/// A cluster that runs; one that was started here ends when this is dropped.
pub(crate) struct Cluster {
    folder: PathBuf,
    program: PathBuf,
    stops: bool,
}

impl Cluster {
    /// Starts a cluster, or finds the one that `cargo xtask kubernetes up` has started, and hands it the images.
    pub(crate) fn start(docker: &Docker) -> Result<Self> {
        let mut cluster = Self {
            folder: folder()?,
            program: tools::kubernetes()?,
            stops: false,
        };
        if cluster.kubectl(&["get", "--raw=/readyz"]).is_err() {
            stop(&cluster.folder)?;
            install_packages()?;
            cluster.stops = true;
            cluster.launch(docker)?;
        }
        for image in images::names() {
            node::load(docker, &cluster.folder, image)?;
        }
        Ok(cluster)
    }

    fn launch(&self, docker: &Docker) -> Result<()> {
        println!("starting Kubernetes");
        let daemons = Daemons::new(&self.folder)?;
        let address = format!("{ADDRESS}/32");
        // It may be there already.
        let _ =
            command::capture(Command::new("ip").args(["address", "add", &address, "dev", "lo"]));
        pki::make(&self.folder, ADDRESS)?;
        control_plane::start(&daemons, &self.program, &self.folder, ADDRESS)?;
        daemons.wait("the API server", || self.kubectl(&["get", "--raw=/readyz"]))?;
        control_plane::start_controllers(&daemons, &self.program, &self.folder)?;
        node::start_containerd(&daemons, &self.folder, ADDRESS)?;
        node::load(docker, &self.folder, PAUSE)?;
        node::start_kubelet(&daemons, &self.program, &self.folder)?;
        let ready = [
            "wait",
            "--for=condition=Ready",
            "node",
            "--all",
            "--timeout=1s",
        ];
        daemons.wait("its node", || self.kubectl(&ready))?;
        let account = ["get", "serviceaccount", "default"];
        daemons.wait("its controllers", || self.kubectl(&account))
    }

    fn left_running(mut self) -> Self {
        self.stops = false;
        self
    }

    /// The file by which its administrator reaches it.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Asks it something as its administrator; it must say yes.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Result<()> {
        let mut kubectl = Command::new(&self.program);
        kubectl
            .arg("kubectl")
            .arg("--kubeconfig")
            .arg(self.kubeconfig());
        command::capture(kubectl.args(args)).map(drop)
    }

    /// What tests of the cluster find in their environment.
    pub(crate) fn env(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("AIR_KUBERNETES", self.program.clone()),
            ("AIR_KUBECONFIG", self.kubeconfig()),
            ("AIR_KUBERNETES_ADDRESS", ADDRESS.into()),
        ]
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.stops
            && let Err(error) = stop(&self.folder)
        {
            eprintln!("could not stop Kubernetes: {error}");
        }
    }
}

fn folder() -> Result<PathBuf> {
    Ok(workspace::target()?.join("kubernetes"))
}

/// Stops what was started there, and takes back what it changed on this machine.
fn stop(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let daemons = Daemons::new(folder)?;
    daemons.stop("kubelet");
    node::end_containers(folder);
    for name in [
        "containerd",
        "kube-scheduler",
        "kube-controller-manager",
        "kube-apiserver",
        "etcd",
    ] {
        daemons.stop(name);
    }
    node::clean_up(folder);
    let address = format!("{ADDRESS}/32");
    let _ = command::capture(Command::new("ip").args(["address", "del", &address, "dev", "lo"]));
    std::fs::remove_dir_all(folder).map_err(Error::file(folder))
}

fn install_packages() -> Result<()> {
    for (program, package) in [
        ("containerd", "containerd"),
        ("runc", "runc"),
        ("openssl", "openssl"),
        ("ip", "iproute2"),
        ("mount", "mount"),
    ] {
        system::ensure(program, package)?;
    }
    if !Path::new(node::CNI).join("ptp").is_file() {
        system::install("containernetworking-plugins")?;
    }
    Ok(())
}
