//! Servers, one or three, each on a disk of its own, with the configuration of `nats/conf`.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use air_tests::{Program, nats_server};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::disk::Disk;

const SINGLE: &str = include_str!("../../../nats/conf/single.conf");
const CLUSTER: &str = include_str!("../../../nats/conf/cluster.conf");
const SYNC: &str = "sync_interval: always";

/// The servers of an installation.
pub(crate) struct Servers {
    servers: Vec<Server>,
}

/// A server and its disk. The program comes first: it must be gone before its disk is.
struct Server {
    program: Option<Program>,
    disk: Disk,
    folder: TempDir,
    port: u16,
    route: u16,
}

impl Servers {
    /// Starts this many; with `always` as `nats/conf` has it, else with the server's own interval.
    pub(crate) fn start(count: usize, always: bool) -> Self {
        let text = if count == 1 { SINGLE } else { CLUSTER };
        assert!(text.contains(SYNC), "the configuration has another default");
        let kept = if always { SYNC } else { "" };
        let conf = text.replace(SYNC, kept);
        let mut ports = free_ports(2 * count).into_iter();
        let mut port = || ports.next().expect("two for each");
        let servers = (0..count).map(|_| {
            let folder = tempfile::tempdir().expect("a temporary folder");
            std::fs::write(folder.path().join("nats.conf"), &conf).expect("room for a file");
            Server {
                program: None,
                disk: Disk::new(folder.path()).expect("it was tried before"),
                folder,
                port: port(),
                route: port(),
            }
        });
        let mut servers = Self {
            servers: servers.collect(),
        };
        for number in 0..count {
            servers.launch(number);
        }
        servers
    }

    /// Their addresses.
    pub(crate) fn urls(&self) -> String {
        let url = |server: &Server| format!("nats://127.0.0.1:{}", server.port);
        self.servers.iter().map(url).collect::<Vec<_>>().join(",")
    }

    /// Lets all disks have everything that was written up to now.
    pub(crate) fn age(&self) {
        for server in &self.servers {
            server.disk.age();
        }
    }

    /// The power of these servers goes at once, and comes back.
    pub(crate) fn cut(&mut self, which: &[usize]) {
        // Frozen first: what their disks hold at this moment is what is left of them.
        for number in which {
            let program = self.servers[*number].program.as_ref();
            program.expect("it runs").signal(Signal::SIGSTOP);
        }
        for number in which {
            self.servers[*number].disk.cut();
        }
        for number in which {
            let server = &mut self.servers[*number];
            drop(server.program.take());
            server.disk.come_back();
        }
        for number in which {
            self.launch(*number);
        }
    }

    fn launch(&mut self, number: usize) {
        let route = |server: &Server| format!("nats://127.0.0.1:{}", server.route);
        let routes: Vec<_> = self.servers.iter().map(route).collect();
        let server = &mut self.servers[number];
        let folder = server.folder.path();
        let address = |port: u16| format!("127.0.0.1:{port}");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join("log"));
        let mut command = Command::new(nats_server());
        command
            .arg("--config")
            .arg(folder.join("nats.conf"))
            .args(["--addr", "127.0.0.1", "--port", &server.port.to_string()])
            .env("AIR_NATS_NAME", format!("n{number}"))
            .env("AIR_NATS_LISTEN", address(server.port))
            .env("AIR_NATS_CLUSTER", address(server.route))
            .env("AIR_NATS_STORE", store(server.disk.folder()))
            .stdout(Stdio::null())
            .stderr(log.expect("room for a log"));
        for (number, route) in routes.iter().enumerate() {
            command.env(format!("AIR_NATS_ROUTE_{}", number + 1), route);
        }
        server.program = Some(Program::start(&mut command));
    }

    /// What the servers complained of.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let read = |server: &Server| std::fs::read_to_string(server.folder.path().join("log"));
        let texts: Vec<_> = self.servers.iter().flat_map(read).collect();
        let bad = |line: &&str| {
            (line.contains("[ERR]") || line.contains("[FTL]")) && !line.contains("route")
        };
        let lines = texts.iter().flat_map(|text| text.lines().filter(bad));
        lines.map(str::to_owned).collect()
    }
}

/// Below the mount, beside what the file system keeps there itself.
fn store(disk: &Path) -> std::path::PathBuf {
    disk.join("store")
}

/// Ports that are free now: all held at once, so that none comes twice.
fn free_ports(count: usize) -> Vec<u16> {
    let bind = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let held: Vec<_> = (0..count).map(|_| bind()).collect();
    let port = |listener: &TcpListener| listener.local_addr().expect("it is bound").port();
    held.iter().map(port).collect()
}
