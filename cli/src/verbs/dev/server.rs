//! The nats-server of `airx dev`: its configuration, its start, its end.

use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::oneshot;

use crate::Failure;
use crate::app::App;

/// Time for which the server may take to listen.
const START_WITHIN: Duration = Duration::from_secs(60);
/// Time for which the server may take to end before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// A running nats-server.
pub(super) struct Server {
    pid: Pid,
    ended: Option<oneshot::Receiver<String>>,
    dir: PathBuf,
}

impl Server {
    /// Starts a server that keeps its state in `dir`. It gets no Ctrl-C of its own: the manager ends first.
    pub(super) async fn start(
        app: &App,
        program: &Path,
        dir: &Path,
        port: u16,
    ) -> Result<Self, Failure> {
        std::fs::create_dir_all(dir).map_err(Failure::io(format!("make {}", dir.display())))?;
        let dir = dir
            .canonicalize()
            .map_err(Failure::io(format!("find {}", dir.display())))?;
        end_former(app, &dir).await?;
        refuse_used(port)?;
        let ports = dir.join("ports");
        // Left by a server that was killed; a missing one is as good.
        let _ = std::fs::remove_dir_all(&ports);
        std::fs::create_dir_all(&ports)
            .map_err(Failure::io(format!("make {}", ports.display())))?;
        let file = dir.join("nats.conf");
        std::fs::write(&file, conf(&dir, port))
            .map_err(Failure::io(format!("write {}", file.display())))?;
        let child = Command::new(program)
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(Failure::io(format!("start {}", program.display())))?;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        Ok(Self {
            pid,
            ended: Some(end_of(child)),
            dir,
        })
    }

    /// The address, once the server listens.
    pub(super) async fn url(&mut self) -> Result<String, Failure> {
        let ports = self.dir.join("ports");
        let listen = async {
            loop {
                if let Some(url) = read_url(&ports) {
                    return url;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            url = listen => Ok(url),
            failure = self.ended() => Err(failure),
            () = tokio::time::sleep(START_WITHIN) => {
                self.stop().await;
                Err(Failure::Refused(format!("nats-server does not listen; its log is {}", self.log().display())))
            }
        }
    }

    fn log(&self) -> PathBuf {
        self.dir.join("nats-server.log")
    }

    /// Waits until the server ends by itself, and says how.
    pub(super) async fn ended(&mut self) -> Failure {
        let how = match &mut self.ended {
            Some(ended) => ended
                .await
                .unwrap_or_else(|_| "for an unknown reason".to_owned()),
            None => "before".to_owned(),
        };
        self.ended = None;
        let log = self.log();
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let last: Vec<_> = text
            .lines()
            .rev()
            .find(|line| line.contains("[FTL]") || line.contains("[ERR]"))
            .into_iter()
            .collect();
        let last = last
            .first()
            .map(|line| format!(": {line}"))
            .unwrap_or_default();
        Failure::Refused(format!(
            "nats-server has ended ({how}){last}; its log is {}",
            log.display()
        ))
    }

    /// Ends the server.
    pub(super) async fn stop(&mut self) {
        let Some(mut ended) = self.ended.take() else {
            return;
        };
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            if kill(self.pid, signal).is_err()
                || tokio::time::timeout(STOP_WITHIN, &mut ended).await.is_ok()
            {
                return;
            }
        }
    }
}

/// Tells when a child has ended. The manager may take over waiting for all children of this process: then
/// waiting for this one fails once it is gone, which is as good.
fn end_of(mut child: Child) -> oneshot::Receiver<String> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let how = match child.wait() {
            Ok(status) => status.to_string(),
            Err(_) => "its exit code is not known".to_owned(),
        };
        // Nobody listens any more when it was told to end.
        let _ = sender.send(how);
    });
    receiver
}

/// Two servers on one folder would destroy it. One that a killed `airx dev` left behind is ended.
async fn end_former(app: &App, dir: &Path) -> Result<(), Failure> {
    let text = std::fs::read_to_string(dir.join("nats-server.pid")).unwrap_or_default();
    let Some(pid) = text.trim().parse().ok().filter(|pid| *pid > 0) else {
        return Ok(());
    };
    let conf = dir.join("nats.conf");
    if !serves(pid, &conf) {
        return Ok(());
    }
    let used = Failure::Refused(format!(
        "{} is in use by a nats-server (process {pid}); end it, or choose another folder with --dir",
        dir.display()
    ));
    if parent_of(pid).is_some_and(|parent| name_of(parent) == "airx") {
        return Err(used);
    }
    app.console.note(format_args!(
        "ending the nats-server (process {pid}) that an earlier `airx dev` left behind"
    ));
    let gone = async {
        while serves(pid, &conf) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let told = kill(Pid::from_raw(pid), Signal::SIGTERM).is_ok();
    match tokio::time::timeout(STOP_WITHIN, gone).await {
        Ok(()) if told => Ok(()),
        _ => Err(used),
    }
}

/// Whether a process is a server with this configuration: the number may be another program's by now.
fn serves(pid: i32, conf: &Path) -> bool {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words
        .split(|byte| *byte == 0)
        .any(|word| word == conf.as_os_str().as_bytes())
}

/// The name of a process; empty when there is none.
fn name_of(pid: i32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    text.trim().to_owned()
}

fn parent_of(pid: i32) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

fn refuse_used(port: u16) -> Result<(), Failure> {
    match TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(Failure::Refused(
            format!("port {port} is in use; choose another with --port, or 0 for a free one"),
        )),
        Err(error) => Err(Failure::io(format!(
            "listen on port {port}; choose another with --port"
        ))(error)),
    }
}

fn conf(dir: &Path, port: u16) -> String {
    let port = if port == 0 {
        "-1".to_owned()
    } else {
        port.to_string()
    };
    let path = |name: &str| serde_json::Value::from(dir.join(name).to_string_lossy()).to_string();
    format!(
        "# Written by `airx dev` at each start; what is changed here is lost.
listen: \"127.0.0.1:{port}\"
ports_file_dir: {ports}
pid_file: {pid}
log_file: {log}
logfile_size_limit: 10MB
logfile_max_num: 2
jetstream {{
  store_dir: {store}
  # What is acknowledged survives a power cut.
  sync_interval: always
  limits {{ batch {{ max_inflight_per_stream: 1000, max_inflight_total: 10000 }} }}
}}
",
        ports = path("ports"),
        pid = path("nats-server.pid"),
        log = path("nats-server.log"),
        store = path("jetstream"),
    )
}

/// The address in the file that the server writes once it listens.
fn read_url(ports: &Path) -> Option<String> {
    let file = std::fs::read_dir(ports).ok()?.next()?.ok()?;
    let text = std::fs::read_to_string(file.path()).ok()?;
    let value: serde_json::Value = serde_json::from_str(&text).ok()?;
    Some(value["nats"][0].as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_port_is_refused_with_the_way_out() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let failure = refuse_used(port).unwrap_err().to_string();
        assert!(
            failure.contains("--port") && !failure.contains('\n'),
            "{failure}"
        );
        assert!(refuse_used(0).is_ok());
    }

    #[test]
    fn only_a_server_of_this_folder_is_one() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(!serves(own, Path::new("/nonexistent/nats.conf")));
        let program = std::env::args().next().unwrap();
        assert!(serves(own, Path::new(&program)));
        assert!(parent_of(own).is_some_and(|parent| !name_of(parent).is_empty()));
    }

    #[test]
    fn the_configuration_quotes_paths() {
        let text = conf(Path::new("/a b/\"c\""), 0);
        assert!(
            text.contains(r#"store_dir: "/a b/\"c\"/jetstream""#),
            "{text}"
        );
        assert!(text.contains("127.0.0.1:-1"));
    }
}
