//! What a task sees: its temporary folder with the files of the contract, and its clean
//! environment (the design's section 6).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use uuid::Uuid;

/// The name under which a task calls the runner's own executable.
pub const LINK_NAME: &str = "airx";
/// `PATH` where neither the task nor the runner has one.
pub const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const HOME_DEFAULT: &str = "/";
const LANG_DEFAULT: &str = "C.UTF-8";
/// How the folder of a runner is called, before the runner's id.
const PREFIX: &str = "air-";

/// The folder of a runner, below that for temporary files.
fn folder_of(parent: &Path, runner: &str) -> PathBuf {
    parent.join(format!("{PREFIX}{runner}"))
}

/// The runners whose folder is there, unchanged for some time, although they live no longer: one that lives holds the
/// lock of its folder. Processes of its task may live.
///
/// # Errors
/// The folder for temporary files cannot be read.
pub fn abandoned(unchanged: Duration) -> io::Result<Vec<String>> {
    abandoned_in(&std::env::temp_dir(), unchanged)
}

fn abandoned_in(parent: &Path, unchanged: Duration) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(parent)? {
        let name = entry?.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        // Others call their folders so too, but not by an id like ours.
        let Some(id) = id.filter(|id| Uuid::try_parse(id).is_ok()) else {
            continue;
        };
        // One that cannot be opened is another user's, or is gone.
        let Ok(folder) = File::open(parent.join(&name)) else {
            continue;
        };
        let changed = folder.metadata()?.modified()?;
        let age = SystemTime::now().duration_since(changed);
        if age.is_ok_and(|age| age >= unchanged) && folder.try_lock().is_ok() {
            found.push(id.to_owned());
        }
    }
    Ok(found)
}

/// Removes the folder that a dead runner left, if it is there; tells whether it was. No process of its task may be left.
///
/// # Errors
/// Something in it cannot be removed.
pub fn remove_left(runner: &str) -> io::Result<bool> {
    let folder = folder_of(&std::env::temp_dir(), runner);
    if !folder.try_exists()? {
        return Ok(false);
    }
    remove_all(&folder).map(|()| true)
}

/// A task's own temporary folder. Removed when dropped; [`Workdir::remove`] also tells of
/// problems.
#[derive(Debug)]
pub struct Workdir {
    path: PathBuf,
    /// Holds the lock of the folder, until this process ends in whatever way.
    _lock: File,
}

impl Workdir {
    /// Makes the folder `air-<runner id>` under `$TMPDIR` (else `/tmp`), closed to other users,
    /// with `input.json` and `needs.json` (JSON texts, written as they come), an empty
    /// `tasks.jsonl`, `replies.json` without a reply, and `bin/airx`, a link to this process's executable.
    ///
    /// Fails if `runner` cannot be part of a file name, or the folder is there already; after
    /// any failure nothing of it is left.
    pub fn create(runner: &str, input: &[u8], needs: &[u8]) -> io::Result<Self> {
        Self::create_in(&std::env::temp_dir(), runner, input, needs)
    }

    fn create_in(parent: &Path, runner: &str, input: &[u8], needs: &[u8]) -> io::Result<Self> {
        if runner.is_empty() || runner.contains(['/', '\0']) {
            let text = format!("runner id {runner:?} cannot be part of a file name");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let path = folder_of(&std::path::absolute(parent)?, runner);
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = File::open(&path).inspect_err(|_| drop(fs::remove_dir(&path)))?;
        // On a file system without locks nobody else gets it either, and the folder counts as held.
        let _ = lock.try_lock();
        // From here on, dropping it removes what there is.
        let workdir = Self { path, _lock: lock };
        fs::write(workdir.input(), input)?;
        fs::write(workdir.needs(), needs)?;
        fs::write(workdir.tasks(), b"")?;
        fs::write(workdir.replies(), b"[]")?;
        fs::create_dir(workdir.bin())?;
        symlink(std::env::current_exe()?, workdir.bin().join(LINK_NAME))?;
        Ok(workdir)
    }

    /// The folder itself: `AIR_WORKDIR`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `AIR_INPUT`: the task's input, JSON.
    pub fn input(&self) -> PathBuf {
        self.path.join("input.json")
    }

    /// `AIR_NEEDS`: the outputs of the task's needs, JSON.
    pub fn needs(&self) -> PathBuf {
        self.path.join("needs.json")
    }

    /// `AIR_TASKS`: the task appends sub-tasks here, one JSON text a line.
    pub fn tasks(&self) -> PathBuf {
        self.path.join("tasks.jsonl")
    }

    /// `AIR_OUTPUT`: the task may write its result here, JSON. Absent at first.
    pub fn output(&self) -> PathBuf {
        self.path.join("output.json")
    }

    /// `AIR_RETRY_AT`: a task that leaves with 75 may write here when. Absent at first.
    pub fn retry_at(&self) -> PathBuf {
        self.path.join("retry_at")
    }

    /// `AIR_QUESTION`: a task that asks a person writes here what, and ends. Absent at first.
    pub fn question(&self) -> PathBuf {
        self.path.join("question")
    }

    /// `AIR_REPLIES`: what people said to the task so far, JSON.
    pub fn replies(&self) -> PathBuf {
        self.path.join("replies.json")
    }

    /// Folder with the link to the runner, first on the task's `PATH`.
    pub fn bin(&self) -> PathBuf {
        self.path.join("bin")
    }

    /// Removes the folder with all that is in it, folders without write permission included.
    ///
    /// No process of the task may be left. Fails if something cannot be removed, such as
    /// another user's files.
    pub fn remove(mut self) -> io::Result<()> {
        remove_all(&std::mem::take(&mut self.path))
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty()
            && let Err(error) = remove_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "temporary folder not removed");
        }
    }
}

pub(crate) fn remove_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unlock(path)?;
            fs::remove_dir_all(path)
        }
        result => result,
    }
}

/// Gives the owner all rights to a folder and those below it; follows no links.
fn unlock(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            unlock(&entry.path())?;
        }
    }
    Ok(())
}

/// What the environment tells a task about its run.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// `AIR_JOB`: name of the job.
    pub job: &'a str,
    /// `AIR_TASK`: id of the task.
    pub task: &'a str,
    /// `AIR_ATTEMPT`: number of the attempt.
    pub attempt: u64,
    /// `AIR_RUNNER`: id of the runner.
    pub runner: &'a str,
    /// `AIR_FENCE`: grows with every claim of the job.
    pub fence: u64,
    /// `TRACEPARENT`, if there is a trace.
    pub traceparent: Option<&'a str>,
    /// The variables that the task asks for. They win over `PATH`, `HOME` and `LANG` (the
    /// folder with `airx` stays first on the `PATH`), and lose against those of the contract.
    pub env: &'a BTreeMap<String, String>,
}

/// Composes the complete environment of a task. Pure.
///
/// `own` looks up a variable of the runner, as [`std::env::var_os`] does; it is asked for
/// `PATH`, `HOME`, `LANG` and `AIR_SYSTEM` only, so that no credentials of the runner can pass.
pub fn environment(
    facts: &Facts<'_>,
    workdir: &Workdir,
    own: impl Fn(&str) -> Option<OsString>,
) -> BTreeMap<OsString, OsString> {
    let mut env = BTreeMap::new();
    let mut set = |name: &str, value: &OsStr| {
        env.insert(OsString::from(name), value.to_owned());
    };
    for (name, default) in [("HOME", HOME_DEFAULT), ("LANG", LANG_DEFAULT)] {
        set(name, &own(name).unwrap_or_else(|| default.into()));
    }
    if let Some(traceparent) = facts.traceparent {
        set("TRACEPARENT", traceparent.as_ref());
    }
    for (name, value) in facts.env {
        set(name, value.as_ref());
    }

    let asked = facts.env.get("PATH").map(OsString::from);
    let mut path = workdir.bin().into_os_string();
    path.push(":");
    path.push(
        asked
            .or_else(|| own("PATH"))
            .unwrap_or_else(|| PATH_DEFAULT.into()),
    );
    set("PATH", &path);
    set("AIR_JOB", facts.job.as_ref());
    set("AIR_TASK", facts.task.as_ref());
    set("AIR_ATTEMPT", facts.attempt.to_string().as_ref());
    set("AIR_RUNNER", facts.runner.as_ref());
    if let Some(system) = own("AIR_SYSTEM") {
        set("AIR_SYSTEM", &system);
    }
    set("AIR_FENCE", facts.fence.to_string().as_ref());
    set("AIR_INPUT", workdir.input().as_ref());
    set("AIR_NEEDS", workdir.needs().as_ref());
    set("AIR_TASKS", workdir.tasks().as_ref());
    set("AIR_OUTPUT", workdir.output().as_ref());
    set("AIR_WORKDIR", workdir.path().as_ref());
    set("AIR_RETRY_AT", workdir.retry_at().as_ref());
    set("AIR_QUESTION", workdir.question().as_ref());
    set("AIR_REPLIES", workdir.replies().as_ref());
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workdir(parent: &Path) -> Workdir {
        Workdir::create_in(parent, "r-1", b"{\"a\":1}", b"{}").unwrap()
    }

    fn facts(env: &BTreeMap<String, String>) -> Facts<'_> {
        let (job, task, runner) = ("job", "task", "r-1");
        Facts {
            job,
            task,
            attempt: 2,
            runner,
            fence: 7,
            traceparent: None,
            env,
        }
    }

    #[test]
    fn the_folder_holds_the_contract_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let workdir = workdir(parent.path());
        assert_eq!(workdir.path(), parent.path().join("air-r-1"));
        assert_eq!(
            fs::metadata(workdir.path()).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert_eq!(fs::read(workdir.input()).unwrap(), b"{\"a\":1}");
        assert_eq!(fs::read(workdir.needs()).unwrap(), b"{}");
        assert_eq!(fs::read(workdir.tasks()).unwrap(), b"");
        assert!(!workdir.output().exists() && !workdir.retry_at().exists());
        assert_eq!(fs::read(workdir.replies()).unwrap(), b"[]");
        assert!(!workdir.question().exists());
        let link = fs::read_link(workdir.bin().join("airx")).unwrap();
        assert_eq!(link, std::env::current_exe().unwrap());
        assert_eq!(fs::read_dir(workdir.path()).unwrap().count(), 5);
        workdir.remove().unwrap();
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn dropping_removes_and_a_link_out_of_the_folder_is_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let outside = parent.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), b"stays").unwrap();
        let workdir = workdir(parent.path());
        symlink(&outside, workdir.path().join("link")).unwrap();
        let path = workdir.path().to_owned();
        drop(workdir);
        assert!(!path.exists());
        assert!(outside.join("file").exists());
    }

    #[test]
    fn only_what_a_dead_runner_left_is_abandoned() {
        let parent = tempfile::tempdir().unwrap();
        let (dead, lives) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
        let mut held = Workdir::create_in(parent.path(), &lives, b"", b"").unwrap();
        for name in [&format!("air-{dead}"), "air-traffic", &dead] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        let abandoned = |unchanged| abandoned_in(parent.path(), unchanged).unwrap();
        assert_eq!(abandoned(Duration::ZERO), [dead]);
        assert_eq!(abandoned(Duration::from_secs(600)), [""; 0]);
        // As the death of its process gives it back.
        held._lock = File::open(parent.path()).unwrap();
        assert_eq!(abandoned(Duration::ZERO).len(), 2, "its holder is gone");
    }

    #[test]
    fn an_id_that_leads_out_of_the_folder_or_is_taken_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        for id in ["", "../x", "a/b", "a\0b"] {
            let error = Workdir::create_in(parent.path(), id, b"", b"").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        let first = workdir(parent.path());
        let error = Workdir::create_in(parent.path(), "r-1", b"", b"").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(first.input().exists());
    }

    #[test]
    fn nothing_of_the_runner_passes_but_path_home_lang_and_system() {
        let parent = tempfile::tempdir().unwrap();
        let workdir = workdir(parent.path());
        let own = |name: &str| Some(OsString::from(format!("own-{name}")));
        let env = environment(&facts(&BTreeMap::new()), &workdir, own);
        let names: Vec<_> = env.keys().map(|name| name.to_str().unwrap()).collect();
        let contract = "AIR_ATTEMPT AIR_FENCE AIR_INPUT AIR_JOB AIR_NEEDS AIR_OUTPUT AIR_QUESTION \
                        AIR_REPLIES AIR_RETRY_AT AIR_RUNNER AIR_SYSTEM AIR_TASK AIR_TASKS AIR_WORKDIR HOME LANG PATH";
        assert_eq!(names.join(" "), contract);
        let path = format!("{}:own-PATH", workdir.bin().display());
        assert_eq!(env[OsStr::new("PATH")], OsString::from(path));
        assert_eq!(env[OsStr::new("HOME")], OsString::from("own-HOME"));
        assert_eq!(env[OsStr::new("AIR_FENCE")], OsString::from("7"));
    }

    #[test]
    fn the_task_may_set_what_it_likes_but_the_contract() {
        let parent = tempfile::tempdir().unwrap();
        let workdir = workdir(parent.path());
        let pairs = [
            ("PATH", "/p"),
            ("LANG", "de"),
            ("X", "y"),
            ("AIR_JOB", "other"),
        ];
        let asked = BTreeMap::from(pairs.map(|(name, value)| (name.into(), value.into())));
        let traceparent = Some("00-1-2-01");
        let env = environment(
            &Facts {
                traceparent,
                ..facts(&asked)
            },
            &workdir,
            |_| None,
        );
        let get = |name: &str| env[OsStr::new(name)].to_str().unwrap().to_owned();
        assert_eq!(get("PATH"), format!("{}:/p", workdir.bin().display()));
        assert_eq!(get("LANG"), "de");
        assert_eq!(get("HOME"), "/");
        assert_eq!(get("X"), "y");
        assert_eq!(get("AIR_JOB"), "job");
        assert_eq!(get("TRACEPARENT"), "00-1-2-01");
    }
}
