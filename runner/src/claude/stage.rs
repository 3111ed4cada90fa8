//! Makes all that the CLI needs before it starts: folders, prompt, session, servers, key.

use std::fs::{self, DirBuilder};
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use air_protocol::agent::Failure;
use air_protocol::claude::{Claude, PermissionMode};
use air_protocol::fate::Outcome;
use air_protocol::spec::ClaudeDefaults;
use air_protocol::task::Task;
use uuid::Uuid;

use super::command::{self, Begin, Limits, Places};
use super::saved::Saved;
use super::secret::{Handover, Key};
use super::{prompt, session, space};
use crate::compose;
use crate::execute::Program;
use crate::execute::workdir::Workdir;
use crate::record::Attempt;
use crate::workspace::Space;

/// The name of the CLI, unless `AIR_CLAUDE` gives another one.
const PROGRAM: &str = "claude";

/// Ready to start.
pub(super) struct Stage {
    pub(super) program: Program,
    pub(super) places: Places,
    pub(super) begin: Begin,
    pub(super) cwd: PathBuf,
    /// `AIR_TASKS`.
    tasks: PathBuf,
    /// The working tree, where the task asks for one.
    pub(super) space: Option<Space>,
    pub(super) key: Key,
    /// Gives the key while it lives.
    _handover: Handover,
}

/// Why nothing can start.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) failure: Failure,
    pub(super) outcome: Outcome,
    /// What is missing, and how to mend it.
    pub(super) text: String,
}

impl Stage {
    /// Sets the stage for an attempt.
    pub(super) async fn set(
        attempt: &Attempt<'_>,
        task: &Task,
        claude: &Claude,
        workdir: &Workdir,
    ) -> Result<Self, Trouble> {
        let spec = &attempt.found.spec;
        let defaults = spec.claude.clone().unwrap_or_default();
        check_mode(claude, &defaults)?;
        let Tools { cli, key, airx } = Tools::find()?;
        let folder = workdir.path().join("agent");
        let host = |error: io::Error| {
            let text = format!("the host cannot make the agent's folder: {error}");
            passing(Failure::Workspace, text)
        };
        let places = Places::below(&folder);
        let saved = match &attempt.found.last {
            Some((_, last)) => session::load(attempt.hold, claude, last).await,
            None => None,
        };
        let space = space::open(attempt.hold, task, claude, saved.is_some(), workdir).await?;
        let cwd = match &space {
            Some(space) => space::folder(space, task)?,
            None => working_folder(task, workdir).map_err(host)?,
        };
        make([&folder, &places.config, &places.temporary]).map_err(host)?;
        let (begin, prompt) = begin(
            attempt,
            task,
            claude,
            saved,
            &places,
            (&cwd, &workdir.tasks()),
        )?;
        let prompt = match (&begin, &space) {
            (Begin::Resume(_), Some(space)) => prompt + space::note(space),
            _ => prompt,
        };
        fs::write(&places.prompt, prompt).map_err(host)?;
        let servers = command::servers(claude, &airx).to_string();
        fs::write(&places.servers, servers).map_err(host)?;
        let handover = Handover::new(places.key.clone(), &key).map_err(host)?;
        let program = compose::program(attempt.hold, attempt.found, task, workdir);
        let argv = command::argv(
            &cli,
            claude,
            &defaults,
            Limits::of(claude, spec, attempt.limits),
            &begin,
            &handover.settings(),
            &places.servers,
        );
        let env = command::environment(program.env.clone(), &places, claude, |name| {
            std::env::var_os(name)
        });
        let program = Program {
            argv,
            env,
            stdin: Some(places.prompt.clone()),
            stderr: Some(places.stderr.clone()),
            cwd: cwd.clone(),
            // Its lines are counted where they are understood.
            output_bytes_max: u64::MAX,
            ..program
        };
        Ok(Self {
            program,
            places,
            begin,
            cwd,
            tasks: workdir.tasks(),
            space,
            key,
            _handover: handover,
        })
    }

    /// What a further attempt would go on from.
    pub(super) fn saved(&self) -> Option<Saved> {
        let session = self.begin.session();
        Saved::read(&self.places.config, session, &self.cwd, &self.tasks)
    }

    /// The end of the CLI's standard error, without the key.
    pub(super) fn stderr(&self, bytes: usize) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = fs::File::open(&self.places.stderr)?;
            let most = u64::try_from(bytes).unwrap_or(u64::MAX);
            let begin = file.metadata()?.len().saturating_sub(most);
            file.seek(io::SeekFrom::Start(begin))?;
            let mut end = Vec::new();
            file.take(most).read_to_end(&mut end)?;
            Ok(end)
        };
        let end = read().unwrap_or_default();
        self.key.redact(String::from_utf8_lossy(&end).into_owned())
    }
}

/// What the host must have.
struct Tools {
    cli: String,
    key: Key,
    airx: PathBuf,
}

impl Tools {
    fn find() -> Result<Self, Trouble> {
        let var = |name: &str| std::env::var(name).ok();
        Ok(Self {
            cli: cli(var).map_err(|text| passing(Failure::Cli, text))?,
            key: Key::from_env(var).map_err(|text| passing(Failure::Login, text))?,
            airx: airx(var).map_err(|text| passing(Failure::Mcp, text))?,
        })
    }
}

fn make(folders: [&Path; 3]) -> io::Result<()> {
    let mut folders = folders.into_iter();
    folders.try_for_each(|folder| DirBuilder::new().mode(0o700).create(folder))
}

/// Refuses a mode that the job's spec does not allow.
fn check_mode(claude: &Claude, defaults: &ClaudeDefaults) -> Result<(), Trouble> {
    let bypasses = claude.permission_mode == Some(PermissionMode::BypassPermissions);
    if bypasses && !defaults.bypass_permissions {
        let text = "`permission_mode: bypassPermissions` lets the agent do everything, and the job's spec does not \
                    allow it; name what it needs in `allowed_tools`, or say `claude: {bypass_permissions: true}` in \
                    the spec";
        return Err(for_good(Failure::Permission, text));
    }
    Ok(())
}

/// The folder in which the agent works, as the CLI will see it: links resolved.
fn working_folder(task: &Task, workdir: &Workdir) -> io::Result<PathBuf> {
    match &task.cwd {
        // One that is not there is told of by the start of the program.
        Some(cwd) => Ok(fs::canonicalize(cwd).unwrap_or_else(|_| PathBuf::from(cwd))),
        None => {
            let folder = workdir.path().join("work");
            DirBuilder::new().mode(0o700).create(&folder)?;
            fs::canonicalize(folder)
        }
    }
}

/// The session, and what it is told: it goes on where an earlier attempt has saved one.
fn begin(
    attempt: &Attempt<'_>,
    task: &Task,
    claude: &Claude,
    saved: Option<Saved>,
    places: &Places,
    (cwd, tasks): (&Path, &Path),
) -> Result<(Begin, String), Trouble> {
    if let Some((_, last)) = &attempt.found.last
        && let Some(saved) = saved
    {
        match saved.restore(&places.config, cwd, tasks) {
            Ok(()) => {
                let prompt = prompt::next(last, &saved.cwd, cwd);
                return Ok((Begin::Resume(saved.session), prompt));
            }
            Err(error) => tracing::warn!(%error, "the session begins anew"),
        }
    }
    let prompt = prompt::first(claude, cwd, task.input.as_ref(), !task.needs.is_empty());
    let prompt = prompt.map_err(|text| for_good(Failure::Request, &text))?;
    Ok((Begin::New(Uuid::new_v4().to_string()), prompt))
}

/// The `airx` whose tools the agent gets: the one beside the runner, else the one on its `PATH`.
fn airx(var: impl Fn(&str) -> Option<String>) -> Result<PathBuf, String> {
    let own = std::env::current_exe().ok();
    let beside = own
        .as_deref()
        .and_then(Path::parent)
        .map(|folder| folder.join("airx"));
    let search = var("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&search).map(|folder| folder.join("airx"));
    beside.into_iter().chain(on_path).find(|path| path.is_file()).ok_or_else(|| {
        "the tools by which agents queue tasks are not on this host: there is no `airx` beside `air-runner`, nor on the \
         manager's PATH; install it there"
            .to_owned()
    })
}

/// The CLI's path. It is looked up on the runner's own `PATH`: a task must not choose to whom the key is given.
fn cli(var: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let named = var("AIR_CLAUDE").filter(|name| !name.is_empty());
    let name = named.as_deref().unwrap_or(PROGRAM);
    let path = if name.contains('/') {
        Some(PathBuf::from(name))
    } else {
        let search = var("PATH").unwrap_or_default();
        let mut paths = std::env::split_paths(&search).map(|folder| folder.join(name));
        paths.find(|path| path.is_file())
    };
    let found = path.filter(|path| path.is_file());
    found.map(|path| path.to_string_lossy().into_owned()).ok_or_else(|| {
        format!(
            "the Claude Code CLI is not on this host: there is no `{name}`; install it (`npm install --global \
             @anthropic-ai/claude-code`), or name it in AIR_CLAUDE in the manager's environment"
        )
    })
}

fn for_good(failure: Failure, text: &str) -> Trouble {
    Trouble {
        failure,
        outcome: Outcome::FailedForGood,
        text: text.to_owned(),
    }
}

/// For what another host, or this one a little later, may have.
fn passing(failure: Failure, text: String) -> Trouble {
    Trouble {
        failure,
        outcome: Outcome::Failed,
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cli_is_named_or_on_the_path_of_the_runner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("claude");
        let on_path = |name: &str| (name == "PATH").then(|| folder.path().display().to_string());
        let error = cli(on_path).unwrap_err();
        assert!(
            error.contains("AIR_CLAUDE") && error.lines().count() == 1,
            "{error}"
        );
        fs::write(&path, "").unwrap();
        assert_eq!(cli(on_path), Ok(path.display().to_string()));
        let named = |name: &str| (name == "AIR_CLAUDE").then(|| "/none/there".to_owned());
        assert!(cli(named).unwrap_err().contains("`/none/there`"));
    }
}
