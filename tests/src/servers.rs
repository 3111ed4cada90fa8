//! Servers on this machine, one or three, with a configuration that the project ships.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::process::Program;
use crate::server::nats_server;

/// Servers that a test may freeze, kill and start again; killed when dropped.
#[derive(Debug)]
pub struct Servers {
    servers: Vec<Member>,
    folder: TempDir,
}

#[derive(Debug)]
struct Member {
    program: Option<Program>,
    store: PathBuf,
    port: u16,
    route: u16,
}

impl Servers {
    /// Starts one for each folder, in which it stores, with a text of `nats/conf`. A relative folder is in a temporary one.
    pub fn start(conf: &str, stores: impl IntoIterator<Item = PathBuf>) -> Self {
        let stores: Vec<_> = stores.into_iter().collect();
        let mut ports = free_ports(2 * stores.len()).into_iter();
        let mut port = || ports.next().expect("two for each");
        let member = |store| Member {
            program: None,
            store,
            port: port(),
            route: port(),
        };
        let mut servers = Self {
            servers: stores.into_iter().map(member).collect(),
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::write(servers.folder.path().join("nats.conf"), conf).unwrap();
        for number in 0..servers.servers.len() {
            servers.launch(number);
        }
        servers
    }

    /// A cluster of three as `nats/conf/cluster.conf` has it.
    pub fn cluster() -> Self {
        let conf = include_str!("../../nats/conf/cluster.conf");
        Self::start(conf, ["1", "2", "3"].map(PathBuf::from))
    }

    /// Their addresses.
    pub fn urls(&self) -> String {
        let url = |server: &Member| format!("nats://127.0.0.1:{}", server.port);
        self.servers.iter().map(url).collect::<Vec<_>>().join(",")
    }

    /// The program of the server at this place.
    pub fn program(&self, place: usize) -> &Program {
        let program = self.servers[place].program.as_ref();
        program.expect("the server runs")
    }

    /// Kills a server.
    pub fn kill(&mut self, place: usize) {
        drop(self.servers[place].program.take());
    }

    /// Starts a server that is not there.
    pub fn launch(&mut self, place: usize) {
        let address = |port: u16| format!("127.0.0.1:{port}");
        let routes: Vec<_> = self.servers.iter().map(|one| address(one.route)).collect();
        let folder = self.folder.path();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join("log"));
        let server = &mut self.servers[place];
        let mut command = Command::new(nats_server());
        command
            .arg("--config")
            .arg(folder.join("nats.conf"))
            .args(["--addr", "127.0.0.1", "--port", &server.port.to_string()])
            .env("AIR_NATS_NAME", format!("n{place}"))
            .env("AIR_NATS_LISTEN", address(server.port))
            .env("AIR_NATS_CLUSTER", address(server.route))
            .env("AIR_NATS_STORE", folder.join(&server.store))
            .stdout(Stdio::null())
            .stderr(log.unwrap());
        for (number, route) in routes.iter().enumerate() {
            let name = format!("AIR_NATS_ROUTE_{}", number + 1);
            command.env(name, format!("nats://{route}"));
        }
        server.program = Some(Program::start(&mut command));
    }

    /// What the servers complained of, but for one another's absence.
    pub fn complaints(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("log")).unwrap();
        let bad = |line: &&str| {
            (line.contains("[ERR]") || line.contains("[FTL]")) && !line.contains("route")
        };
        text.lines().filter(bad).map(str::to_owned).collect()
    }
}

/// Ports that are free now: all held at once, so that none comes twice.
fn free_ports(count: usize) -> Vec<u16> {
    let bind = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let held: Vec<_> = (0..count).map(|_| bind()).collect();
    let port = |listener: &TcpListener| listener.local_addr().expect("it is bound").port();
    held.iter().map(port).collect()
}
