//! Running the program `git`: in a clean environment, without hooks, and without a question to anybody.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::SpaceError;

/// Time that one command of git may take.
const GIT_WITHIN: Duration = Duration::from_secs(30 * 60);
/// Characters of what git said that stand in an error.
const TEXT_CHARS_MAX: usize = 600;

/// Variables of the runner that git gets: how to find programs, keys and proxies. Nothing else.
const PASSED: [&str; 17] = [
    "PATH",
    "HOME",
    "XDG_CONFIG_HOME",
    "SSH_AUTH_SOCK",
    "GIT_SSH_COMMAND",
    "GIT_ASKPASS",
    "GIT_SSL_CAINFO",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
];

/// Settings that hold whatever a repository says of itself.
const SETTINGS: [(&str, &str); 11] = [
    ("safe.directory", "*"),
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.pager", "cat"),
    ("core.quotePath", "false"),
    ("commit.gpgSign", "false"),
    ("gc.autoDetach", "false"),
    ("maintenance.autoDetach", "false"),
    ("submodule.recurse", "false"),
    ("advice.detachedHead", "false"),
    ("init.defaultBranch", "main"),
];

/// Who commits what an agent left uncommitted.
pub(super) const NAME: &str = "Air-Executor";
pub(super) const EMAIL: &str = "air-executor@localhost";

/// Git, working on one repository.
#[derive(Debug, Clone)]
pub(super) struct Git {
    dir: PathBuf,
    tree: Option<PathBuf>,
    runner: String,
}

/// One command of git.
#[derive(Debug)]
pub(super) struct Call<'a> {
    git: &'a Git,
    doing: &'static str,
    arguments: Vec<OsString>,
    env: Vec<(&'static str, OsString)>,
    input: Vec<u8>,
}

impl Git {
    /// On the repository in `dir`, with its working tree in `tree`; both are said to git, so that no file in the tree
    /// leads it elsewhere.
    pub(super) fn new(dir: &Path, tree: Option<&Path>, runner: &str) -> Self {
        Self {
            dir: dir.to_owned(),
            tree: tree.map(Path::to_owned),
            runner: runner.to_owned(),
        }
    }

    /// The folder of the repository.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A command; `doing` fits "git failed to ...".
    pub(super) fn call(&self, doing: &'static str) -> Call<'_> {
        Call {
            git: self,
            doing,
            arguments: Vec::new(),
            env: Vec::new(),
            input: Vec::new(),
        }
    }
}

impl Call<'_> {
    /// Adds arguments.
    pub(super) fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        let arguments = arguments.into_iter();
        self.arguments
            .extend(arguments.map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets a variable.
    pub(super) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Gives something to read.
    pub(super) fn input(mut self, text: &str) -> Self {
        self.input = text.as_bytes().to_vec();
        self
    }

    /// Runs it to its end, whatever it is.
    pub(super) async fn output(self) -> Result<Output, SpaceError> {
        let mut command = self.command();
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => SpaceError::NoGit,
            _ => SpaceError::host("start", "git")(error),
        })?;
        let group = Group(child.id());
        let stdin = child.stdin.take();
        let input = self.input;
        let run = async {
            let write = async {
                if let Some(mut stdin) = stdin {
                    // One that reads nothing has told why by its end.
                    let _ = stdin.write_all(&input).await;
                }
            };
            tokio::join!(write, child.wait_with_output()).1
        };
        let Ok(output) = tokio::time::timeout(GIT_WITHIN, run).await else {
            let (doing, minutes) = (self.doing, GIT_WITHIN.as_secs() / 60);
            return Err(SpaceError::Slow { doing, minutes });
        };
        group.has_ended();
        output.map_err(SpaceError::host("wait for", "git"))
    }

    /// Runs it; what it printed, if it ended well.
    pub(super) async fn bytes(self) -> Result<Vec<u8>, SpaceError> {
        let doing = self.doing;
        let output = self.output().await?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let text = said(&output);
        Err(SpaceError::Git { doing, text })
    }

    /// The same as text, without white space around it.
    pub(super) async fn text(self) -> Result<String, SpaceError> {
        let bytes = self.bytes().await?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// What it printed if it ended well, nothing if it said no.
    pub(super) async fn maybe(self) -> Result<Option<String>, SpaceError> {
        let output = self.output().await?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(output.status.success().then_some(text))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("git");
        command.args(&self.arguments).env_clear();
        for name in PASSED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("LANG", "C.UTF-8")
            .env("LC_ALL", "C.UTF-8")
            .env("GIT_DIR", &self.git.dir)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh")
            .env("GIT_EDITOR", "true")
            .env("GIT_AUTHOR_NAME", NAME)
            .env("GIT_AUTHOR_EMAIL", EMAIL)
            .env("GIT_COMMITTER_NAME", NAME)
            .env("GIT_COMMITTER_EMAIL", EMAIL)
            .env("GIT_CONFIG_COUNT", SETTINGS.len().to_string())
            // By this a sweep finds what a dead runner left.
            .env("AIR_RUNNER", &self.git.runner);
        if let Some(system) = std::env::var_os("AIR_SYSTEM") {
            command.env("AIR_SYSTEM", system);
        }
        if let Some(tree) = &self.git.tree {
            command.env("GIT_WORK_TREE", tree);
        }
        for (index, (name, value)) in SETTINGS.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), name);
            command.env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        for (name, value) in &self.env {
            command.env(name, value);
        }
        let folders = self.git.tree.iter().chain([&self.git.dir]);
        let folder = folders.map(PathBuf::as_path).find(|path| path.is_dir());
        command
            .current_dir(folder.unwrap_or(Path::new("/")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command.as_std_mut().process_group(0);
        command
    }
}

/// The process group of a command: ended with all that is in it, if nobody waits for its end any more.
struct Group(Option<u32>);

impl Group {
    fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            let _ = killpg(Pid::from_raw(id.cast_signed()), Signal::SIGKILL);
        }
    }
}

/// What git said, fit for an error: short, and without passwords of addresses.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let text = without_passwords(text.trim());
    let text: String = text.chars().take(TEXT_CHARS_MAX).collect();
    match (text.is_empty(), output.status.code()) {
        (false, _) => text,
        (true, Some(code)) => format!("it ended with exit code {code} and said nothing"),
        (true, None) => "it was killed".to_owned(),
    }
}

/// `https://user:secret@host` becomes `https://***@host`.
pub(super) fn without_passwords(text: &str) -> String {
    let mut parts = text.split("://");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c == '/' || c == '\'' || c.is_whitespace());
        let (place, rest) = part.split_at(end.unwrap_or(part.len()));
        clean.push_str("://");
        match place.rsplit_once('@') {
            Some((_, host)) => {
                clean.push_str("***@");
                clean.push_str(host);
            }
            None => clean.push_str(place),
        }
        clean.push_str(rest);
    }
    clean
}
