//! A server and a manager of our own: `airx dev` in a fresh folder on a free port.
//!
//! A shell stands between us and `airx dev`. It waits for the end of its standard input, which comes when we say so, and
//! also when we are gone for whatever reason (Ctrl-C, a signal that cannot be caught): then it ends `airx dev` and the
//! runners that are at work, which would otherwise try for a while to reach the server, and removes the folder.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::command;
use crate::error::{Error, Result};

/// Time that the system may take to start.
const START_WITHIN: Duration = Duration::from_secs(30);
/// Time between two looks whether it has.
const PAUSE: Duration = Duration::from_millis(50);

/// `$1`: the folder; `$2`: the address of the server; the rest: the command. Told to keep it, the shell waits until
/// somebody else ends the command.
const KEEPER: &str = r#"
folder=$1 url=$2
shift 2
exec 3<&0
"$@" </dev/null 3<&- &
pid=$!
echo "$pid"
exec >/dev/null
{
    read -r word <&3
    [ "$word" = keep ] && exit
    kill -TERM "$pid"
    while kill -0 "$pid"; do sleep 0.05; done
    for signal in TERM KILL; do
        for process in $(grep -lzx "NATS_URL=$url" /proc/[0-9]*/environ); do
            process=${process%/environ}
            [ "$(cat "$process/comm")" = air-runner ] && kill -"$signal" "${process#/proc/}" && sleep 0.2
        done
    done
} 2>/dev/null &
wait "$pid"
code=$?
rm -rf -- "$folder"
exit "$code"
"#;

/// A running system.
pub(super) struct System {
    airx: PathBuf,
    url: String,
    log: PathBuf,
    keeper: Child,
    stdin: ChildStdin,
    pid: String,
}

impl System {
    /// Starts one with its state below `folder`, and waits until it answers.
    pub(super) fn start(airx: &Path, server: &Path, folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let state = folder.join(format!("state-{port}"));
        // Left by an earlier run with the same port; a missing one is as good.
        let _ = std::fs::remove_dir_all(&state);
        std::fs::create_dir_all(&state).map_err(Error::file(&state))?;
        let log = folder.join("airx-dev.log");
        let file = File::create(&log).map_err(Error::file(&log))?;
        let url = format!("nats://127.0.0.1:{port}");
        let mut shell = clean(Command::new("/bin/sh"));
        shell.args(["-c", KEEPER, "keeper"]).arg(&state).arg(&url);
        shell.arg(airx).args(["dev", "--port", &port.to_string()]);
        shell.arg("--dir").arg(&state);
        shell.env("AIR_NATS_SERVER", server).env("AIR_LOG", "warn");
        // A group of its own: Ctrl-C is for us, and our end is what ends it.
        shell.process_group(0).stderr(file);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = shell.spawn().map_err(|cause| Error::Start {
            command: "airx dev".into(),
            cause,
        })?;
        let (Some(stdin), Some(stdout)) = (keeper.stdin.take(), keeper.stdout.take()) else {
            return Err(Error::Demo("the shell has no standard input".into()));
        };
        let mut pid = String::new();
        // Without it the system does not answer either, and that is told.
        let _ = BufReader::new(stdout).read_line(&mut pid);
        let mut system = Self {
            airx: airx.to_path_buf(),
            url,
            log,
            keeper,
            stdin,
            pid: pid.trim().to_owned(),
        };
        system.wait_until_it_answers()?;
        Ok(system)
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let Err(error) = command::capture(&mut self.airx(&["status", "-o", "json"])) else {
                return Ok(());
            };
            let ended = self.keeper.try_wait().is_ok_and(|status| status.is_some());
            if ended || begun.elapsed() > START_WITHIN {
                let what = format!("`airx dev` does not start: {error}; {}", self.log_is());
                return Err(Error::Demo(what));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// A call of `airx` for this system, whatever the environment says of others.
    pub(super) fn airx(&self, arguments: &[&str]) -> Command {
        let mut command = clean(Command::new(&self.airx));
        command.args(arguments).env("NATS_URL", &self.url);
        command
    }

    /// What a call of `airx` answers, in JSON.
    pub(super) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut call = self.airx(arguments);
        let answer = command::capture(call.args(["-o", "json"]))?;
        serde_json::from_str(&answer).map_err(|cause| Error::Answer {
            command: format!("airx {}", arguments.join(" ")),
            what: cause.to_string(),
        })
    }

    /// Where to look when something went wrong, with the last that was said there.
    pub(super) fn log_is(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        let last = last.map_or_else(String::new, |line| format!(" (last: {})", line.trim()));
        format!("the log is {}{last}", self.log.display())
    }

    /// The program `airx`.
    pub(super) fn program(&self) -> &Path {
        &self.airx
    }

    /// Where the server listens.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The process of `airx dev`.
    pub(super) fn pid(&self) -> &str {
        &self.pid
    }

    /// Leaves it running.
    pub(super) fn keep(mut self) -> Result<()> {
        let told = self.stdin.write_all(b"keep\n");
        told.map_err(|cause| Error::Demo(format!("cannot leave it running: {cause}")))
    }

    /// Ends it, and waits until all of it is gone.
    pub(super) fn end(self) {
        let Self {
            stdin, mut keeper, ..
        } = self;
        drop(stdin);
        // Its exit code says nothing that the audit does not.
        let _ = keeper.wait();
    }
}

/// A command without the settings by which a person has chosen another system.
fn clean(mut command: Command) -> Command {
    let names = std::env::vars_os().map(|(name, _)| name);
    let chosen = |name: &std::ffi::OsString| {
        let name = name.to_string_lossy();
        name.starts_with("NATS_") || name == "AIR_PREFIX"
    };
    for name in names.filter(chosen) {
        command.env_remove(name);
    }
    command
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    let address = listener.map_err(|cause| Error::Demo(format!("there is no free port: {cause}")));
    Ok(address?.port())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A folder with a fake `airx` that answers `status` and `dev` as told, removed when dropped.
    struct Fake(PathBuf);

    impl Fake {
        fn new(name: &str, status: &str, dev: &str) -> Self {
            let name = format!("air-xtask-demo-{}-{name}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            let text = format!("#!/bin/sh\ncase $1 in\nstatus) {status} ;;\ndev) {dev} ;;\nesac\n");
            let program = folder.join("airx");
            std::fs::write(&program, text).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            Self(folder)
        }

        fn start(&self) -> Result<System> {
            System::start(&self.0.join("airx"), Path::new("nats-server"), &self.0)
        }

        fn states(&self) -> usize {
            let entries = std::fs::read_dir(&self.0)
                .unwrap()
                .map(|entry| entry.unwrap());
            let is_state = |name: std::ffi::OsString| name.to_string_lossy().starts_with("state-");
            entries.filter(|entry| is_state(entry.file_name())).count()
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_was_started_is_told_to_end_and_leaves_nothing() {
        let dev = "trap 'echo told >&2; exit' TERM; touch ${0%/*}/up; while :; do sleep 0.05; done";
        // It answers once it is up, as the real one does: a signal before its trap would end it unheard.
        let fake = Fake::new("end", "[ -e ${0%/*}/up ] && echo '[]'", dev);
        let system = fake.start().unwrap();
        assert_eq!(
            (fake.states(), system.json(&["status"]).unwrap()),
            (1, serde_json::json!([]))
        );
        assert!(system.log_is().ends_with("airx-dev.log"));
        system.end();
        let log = std::fs::read_to_string(fake.0.join("airx-dev.log")).unwrap();
        assert_eq!((log.as_str(), fake.states()), ("told\n", 0));
    }

    #[test]
    fn what_does_not_start_is_told_with_its_last_words() {
        let fake = Fake::new(
            "dead",
            "echo nobody answers >&2; exit 1",
            "echo no room >&2; exit 3",
        );
        let error = fake.start().err().unwrap().to_string();
        assert!(error.starts_with("`airx dev` does not start: "), "{error}");
        assert!(error.ends_with("airx-dev.log (last: no room)"), "{error}");
    }
}
