//! A real nats-server on a free port, with a store of its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use air_nats::{Nats, Options};
use tempfile::TempDir;

use crate::process::Program;
use crate::wait::HANGS;

/// Where servers listen, unless told otherwise.
const HOST: &str = "127.0.0.1";

/// How a server is started.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerOptions {
    /// Where it listens, where not at 127.0.0.1.
    pub host: Option<&'static str>,
    /// Extra lines of its configuration.
    pub extra: &'static str,
    /// Without JetStream.
    pub plain: bool,
    /// Every write is synced at once, as `airx dev` has it.
    pub sync_always: bool,
    /// What it may store, such as `12MB`, where not 8 GB.
    pub store_max: Option<&'static str>,
    /// It stores on a disk of this size, such as `24m`, in a mount namespace of its own.
    pub disk: Option<&'static str>,
}

/// A running nats-server; killed when dropped, its store with it.
#[derive(Debug)]
pub struct Server {
    program: Option<Program>,
    /// Holds the mount namespace with the disk, if there is one.
    holder: Option<Program>,
    folder: TempDir,
    host: &'static str,
    port: u16,
    /// The addresses of a server that somebody else starts and ends.
    elsewhere: Option<String>,
}

/// The server's program: `AIR_NATS_SERVER`, or `nats-server` on the PATH.
pub fn nats_server() -> PathBuf {
    std::env::var_os("AIR_NATS_SERVER").map_or_else(|| "nats-server".into(), PathBuf::from)
}

impl Server {
    /// Starts a server and waits until it listens.
    pub fn start() -> Self {
        Self::start_with(ServerOptions::default())
    }

    /// Starts a server with options.
    pub fn start_with(options: ServerOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let jetstream = if options.plain {
            String::new()
        } else {
            let store = folder.path().join("store");
            let sync = if options.sync_always {
                "sync_interval: always, "
            } else {
                ""
            };
            format!(
                "jetstream {{ store_dir: {:?}, {sync}max_file_store: {}, limits {{ batch {{ max_inflight_per_stream: 1000, max_inflight_total: 10000 }} }} }}\n",
                store,
                options.store_max.unwrap_or("8GB")
            )
        };
        let host = options.host.unwrap_or(HOST);
        let conf = format!("host: {host}\n{jetstream}{}", options.extra);
        std::fs::write(folder.path().join("nats.conf"), conf).unwrap();
        let holder = options.disk.map(|size| hold_disk(folder.path(), size));
        let mut server = Self {
            program: None,
            holder,
            folder,
            host,
            port: 0,
            elsewhere: None,
        };
        server.launch("-1");
        server
    }

    /// A server, or several with a comma between them, that the caller starts and ends.
    pub fn elsewhere(urls: &str) -> Self {
        Self {
            program: None,
            holder: None,
            folder: tempfile::tempdir().unwrap(),
            host: HOST,
            port: 0,
            elsewhere: Some(urls.to_owned()),
        }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        match &self.elsewhere {
            Some(urls) => urls.clone(),
            None => format!("nats://{}:{}", self.host, self.port),
        }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves its folder where it is, for who looks for a cause.
    pub(crate) fn keep_folder(&mut self) {
        self.folder.disable_cleanup(true);
    }

    /// Its program.
    pub fn program(&mut self) -> &mut Program {
        self.program.as_mut().expect("the server runs")
    }

    /// Kills the server, as a crash would.
    pub fn kill(&mut self) {
        drop(self.program.take());
    }

    /// Starts the killed server on the same store and port.
    pub fn restart(&mut self) {
        self.kill();
        let port = self.port.to_string();
        self.launch(&port);
    }

    /// Kills the server, and keeps a copy of what it stored; it starts again by [`Server::restart`], or
    /// with this copy by [`Server::restart_with`].
    pub fn kill_and_copy(&mut self) -> TempDir {
        self.kill();
        let copy = tempfile::tempdir().unwrap();
        copy_folder(
            &self.folder.path().join("store"),
            &copy.path().join("store"),
        );
        copy
    }

    /// Starts the server with what it had stored before.
    pub fn restart_with(&mut self, copy: &TempDir) {
        self.kill();
        let store = self.folder.path().join("store");
        std::fs::remove_dir_all(&store).unwrap();
        copy_folder(&copy.path().join("store"), &store);
        self.restart();
    }

    /// Makes the disk larger, as an administrator would.
    pub fn grow_disk(&self, size: &str) {
        let store = self.folder.path().join("store");
        let mut mount = self.inside("mount".as_ref());
        mount
            .args(["-o", &format!("remount,size={size}")])
            .arg(store);
        assert!(mount.status().unwrap().success(), "{mount:?}");
    }

    /// A command that sees the disk, if there is one.
    fn inside(&self, program: &OsStr) -> Command {
        let Some(holder) = &self.holder else {
            return Command::new(program);
        };
        let holder = holder.pid().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--user", "--mount", "--preserve-credentials", "--target"]);
        command.args([&holder, "--"]).arg(program);
        command
    }

    fn launch(&mut self, port: &str) {
        let ports = self.folder.path().join("ports");
        let _ = std::fs::remove_dir_all(&ports);
        std::fs::create_dir(&ports).unwrap();
        let mut command = self.inside(nats_server().as_os_str());
        command
            .arg("--config")
            .arg(self.folder.path().join("nats.conf"))
            .args(["--port", port, "--ports_file_dir"])
            .arg(&ports)
            .args(["--log"])
            .arg(self.folder.path().join("log"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let program = Program::start(&mut command);
        self.port = read_port(&ports, self.folder.path());
        self.program = Some(program);
    }

    /// A connection to it.
    pub async fn connect(&self) -> Nats {
        Nats::connect(&self.options(), "test")
            .await
            .expect("the server runs")
    }

    /// A connection to it, with streams and buckets made.
    pub async fn connect_init(&self) -> Nats {
        let nats = self.connect().await;
        nats.init(None, true).await.expect("streams can be made");
        nats
    }

    /// How to connect to it.
    pub fn options(&self) -> Options {
        Options {
            url: Some(self.url()),
            ..Options::default()
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

/// Mounts a disk on the folder `store`, in a namespace that lives as long as the program.
fn hold_disk(folder: &Path, size: &str) -> Program {
    std::fs::create_dir(folder.join("store")).unwrap();
    let script = r#"mkfifo "$2/never" && mount -t tmpfs -o "size=$1" none "$2/store" &&
        touch "$2/mounted" && exec cat "$2/never""#;
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    command.args([script, "sh", size]).arg(folder);
    let mut holder = Program::start(&mut command);
    while !folder.join("mounted").exists() {
        assert!(!holder.has_ended(), "no disk can be mounted");
        std::thread::yield_now();
    }
    holder
}

/// The port in the file that the server writes once it listens.
fn read_port(ports: &Path, folder: &Path) -> u16 {
    let start = Instant::now();
    loop {
        let file = std::fs::read_dir(ports).unwrap().next();
        let text = file.and_then(|file| std::fs::read_to_string(file.ok()?.path()).ok());
        let json = text.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
        let url = json.as_ref().and_then(|json| json["nats"][0].as_str());
        if let Some(port) = url.and_then(|url| url.rsplit(':').next()?.parse().ok()) {
            return port;
        }
        let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        assert!(
            start.elapsed() < HANGS,
            "the server does not listen: {}",
            log()
        );
        std::thread::yield_now();
    }
}
