//! Three machines, each with a server of one cluster and a manager.
//!
//! It runs in a network and process namespace that [`Cluster::enter`] makes, so that nothing of it is seen from
//! outside, it sees and signals nothing of others, and all of it ends with the test.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use air_nats::{Nats, Options};
use nix::sys::signal::Signal;

use crate::node::{Inside, Node};
use crate::process::binary;
use crate::server::{Server, nats_server};
use crate::{Installation, wait_for};

/// Set for the process inside of the namespaces.
const INSIDE: &str = "AIR_TESTS_INSIDE";
/// Machines of a cluster.
const NODES: usize = 3;

/// A node, and what runs on it.
#[derive(Debug)]
struct Machine {
    server: Option<Inside>,
    manager: Option<Inside>,
    node: Node,
}

/// Three machines and what is installed on them.
pub struct Cluster {
    /// What tests ask.
    pub air: Installation,
    /// A connection for each server, of which each is the first address.
    pub clients: Vec<Nats>,
    machines: Vec<Machine>,
}

impl Cluster {
    /// Runs the named test of this program again in namespaces of its own; `true` within them.
    ///
    /// # Panics
    /// The test fails there, or this machine lets nobody make namespaces.
    pub fn enter(test: &str) -> bool {
        if std::env::var_os(INSIDE).is_some() {
            return true;
        }
        let unshare = || {
            let mut command = Command::new("unshare");
            if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
                command.args(["--user", "--map-root-user"]);
            }
            command.args(["--net", "--pid", "--mount", "--mount-proc", "--fork"]);
            command.arg("--kill-child");
            command
        };
        let mut probe = unshare();
        let needed =
            "ip link add air0 type bridge && iptables -w -L >&2 && tc -V >&2 && nsenter --version";
        let probed = probe.args(["sh", "-c", needed]).output();
        let missing = match &probed {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).replace('\n', " ")),
            Err(error) => Some(error.to_string()),
        };
        assert!(
            missing.is_none(),
            "chaos needs network namespaces (unshare, nsenter, ip, iptables, tc; as root, or with user namespaces): {}",
            missing.unwrap_or_default()
        );
        let mut again = unshare();
        again.arg(std::env::current_exe().unwrap());
        again
            .args(["--exact", test, "--nocapture"])
            .env(INSIDE, "1");
        // Its output is told at once, whatever becomes of it: a seed that fails must be known.
        let status = again.stdin(Stdio::null()).status().unwrap();
        assert!(status.success(), "{test} failed; its output is above");
        false
    }

    /// Starts servers and managers, with three copies of all streams.
    pub async fn start() -> Self {
        let server = Server::elsewhere(&addresses(1));
        Node::bridge();
        let machine = |number| {
            let node = Node::start(number, server.folder());
            let (server, manager) = (None, None);
            Machine {
                server,
                manager,
                node,
            }
        };
        let mut machines: Vec<_> = (1..=NODES).map(machine).collect();
        for machine in &mut machines {
            machine.start_server(server.folder());
        }
        let air = Installation::on_cluster(server, NODES).await;
        let mut clients = Vec::new();
        for machine in &machines {
            let options = Options {
                url: Some(Node::url_of(machine.node.number)),
                ..Options::default()
            };
            clients.push(wait_for("server", async || Nats::connect(&options, "chaos").await).await);
        }
        let mut cluster = Self {
            air,
            clients,
            machines,
        };
        for number in 1..=NODES {
            cluster.start_manager(number);
        }
        cluster
    }

    /// The node with this number, from 1.
    pub fn node(&self, number: usize) -> &Node {
        &self.machines[number - 1].node
    }

    /// Kills a server, as a crash would.
    pub fn kill_server(&mut self, number: usize) {
        drop(self.machines[number - 1].server.take());
    }

    /// Starts a killed server.
    pub fn start_server(&mut self, number: usize) {
        self.machines[number - 1].start_server(self.air.server.folder());
    }

    /// Signals a server.
    pub fn signal_server(&mut self, number: usize, signal: Signal) {
        let server = self.machines[number - 1].server.as_mut();
        server.expect("the server runs").signal(signal);
    }

    /// What a server has logged.
    pub fn server_log(&self, number: usize) -> String {
        let log = self.air.server.folder().join(format!("node{number}.log"));
        let bytes = std::fs::read(log).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Kills a manager.
    pub fn kill_manager(&mut self, number: usize) {
        drop(self.machines[number - 1].manager.take());
    }

    /// Signals a manager.
    pub fn signal_manager(&mut self, number: usize, signal: Signal) {
        let manager = self.machines[number - 1].manager.as_mut();
        manager.expect("the manager runs").signal(signal);
    }

    /// Starts a manager, whose first server is that of its own machine.
    pub fn start_manager(&mut self, number: usize) {
        let folder = self.air.server.folder();
        let log = folder.join(format!("manager{number}.log"));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let machine = &mut self.machines[number - 1];
        let mut command = machine.node.command(binary("airx").as_os_str());
        command.args(["manager", "--poll", "1s", "--max-runners", "8"]);
        command.args(["--sync-interval", "0", "--runner"]);
        command.arg(binary("air-runner"));
        command
            .env("NATS_URL", addresses(number))
            .env("AIR_LOG", "info");
        command.stdout(Stdio::null()).stderr(log);
        machine.manager = Some(Inside::start(&mut command));
    }

    /// Servers and managers that ended although nobody killed them.
    pub fn fallen(&mut self) -> Vec<String> {
        let mut fallen = Vec::new();
        for (number, machine) in (1..).zip(&mut self.machines) {
            for (what, program) in [
                ("server", machine.server.as_mut()),
                ("manager", machine.manager.as_mut()),
            ] {
                if program.is_some_and(Inside::has_ended) {
                    fallen.push(format!("{what} {number}"));
                }
            }
            if !machine.node.lives() {
                fallen.push(format!("node {number}"));
            }
        }
        fallen
    }

    /// The number of the server that leads the stream of tasks.
    pub async fn leader(&self) -> usize {
        let info = ["stream", "info", "AIR", "--json", "--timeout", "2s"];
        wait_for("leader", async || {
            let output = self.air.nats_cli(&info).output().unwrap();
            let json: serde_json::Value =
                serde_json::from_slice(&output.stdout).unwrap_or_default();
            let leader = json["cluster"]["leader"].as_str();
            let number = leader.and_then(|name| name.strip_prefix("node")?.parse().ok());
            number.ok_or(output)
        })
        .await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("logs are kept in {}", self.air.server.folder().display());
            self.air.server.keep_folder();
        }
    }
}

impl Machine {
    /// Starts its server, on the configuration that the project ships for clusters.
    fn start_server(&mut self, folder: &Path) {
        let name = format!("node{}", self.node.number);
        let address = self.node.address();
        let mut command = self.node.command(nats_server().as_os_str());
        command
            .arg("--config")
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../nats/conf/cluster.conf"
            ))
            .arg("--log")
            .arg(folder.join(format!("{name}.log")))
            .env("AIR_NATS_NAME", &name)
            .env("AIR_NATS_LISTEN", format!("{address}:4222"))
            .env("AIR_NATS_CLUSTER", format!("{address}:6222"))
            .env("AIR_NATS_STORE", self.node.disk.join("store"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        for number in 1..=NODES {
            let route = format!("nats://{}:6222", Node::address_of(number));
            command.env(format!("AIR_NATS_ROUTE_{number}"), route);
        }
        self.server = Some(Inside::start(&mut command));
    }
}

/// The addresses of all servers, that of this node first.
fn addresses(first: usize) -> String {
    let mut urls: Vec<_> = (1..=NODES).map(Node::url_of).collect();
    urls.rotate_left(first - 1);
    urls.join(",")
}
