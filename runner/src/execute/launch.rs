//! Starts the program: checks what can be checked first, so that a problem has a good text.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use nix::errno::Errno;
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::workdir::PATH_DEFAULT;
use super::{Program, SpawnProblem};

/// A started program.
pub(super) struct Launched {
    /// The main process, leader of its own process group.
    pub(super) child: Child,
    /// The only read end of its standard output and standard error.
    pub(super) pipe: pipe::Receiver,
    /// One event or more for every child that changes; armed before the start.
    pub(super) child_signals: Signal,
}

/// Starts `program` in its own process group, its output in one pipe unless it wants files.
pub(super) fn launch(program: &Program) -> Result<Launched, SpawnProblem> {
    let name = program.argv.first().filter(|name| !name.is_empty());
    let name = name.ok_or(SpawnProblem::NoProgram)?;
    let host = |doing: &'static str| {
        let program = name.to_string_lossy().into_owned();
        move |source: io::Error| SpawnProblem::Host {
            program,
            doing,
            source,
        }
    };
    check_strings(program)?;
    let cwd = std::path::absolute(&program.cwd).map_err(host("resolving its working folder"))?;
    check_folder(&cwd)?;
    let path = find(
        name,
        program
            .env
            .get(OsStr::new("PATH"))
            .map(|path| path.as_os_str()),
        &cwd,
    )?;

    nix::sys::prctl::set_child_subreaper(true)
        .map_err(|errno| host("becoming subreaper")(errno.into()))?;
    let child_signals = signal(SignalKind::child()).map_err(host("listening for SIGCHLD"))?;
    let (reader, writer) = io::pipe().map_err(host("opening a pipe"))?;
    let pipe = pipe::Receiver::from_owned_fd(OwnedFd::from(reader));
    let pipe = pipe.map_err(host("registering a pipe"))?;
    let stderr = match &program.stderr {
        Some(path) => std::fs::File::create(path).map(Stdio::from),
        None => writer.try_clone().map(Stdio::from),
    };
    let stderr = stderr.map_err(host("opening its standard error"))?;
    let stdin = match &program.stdin {
        Some(path) => std::fs::File::open(path).map(Stdio::from),
        None => Ok(Stdio::null()),
    };
    let stdin = stdin.map_err(host("opening its standard input"))?;

    let mut command = program.memory.command(&path, name);
    command
        .args(&program.argv[1..])
        .env_clear()
        .envs(&program.env)
        .current_dir(&cwd)
        .process_group(0)
        .stdin(stdin)
        .stdout(writer)
        .stderr(stderr);
    let spawned = program.memory.preferring(|| command.spawn());
    // The write ends live in `command`: as long as it does, the pipe has no end.
    drop(command);
    let child = spawned.map_err(|error| spawn_problem(error, program, name, path))?;
    Ok(Launched {
        child,
        pipe,
        child_signals,
    })
}

/// Refuses what no program can be given: NUL bytes, impossible names of variables.
fn check_strings(program: &Program) -> Result<(), SpawnProblem> {
    let refuse = |place: String, fault| Err(SpawnProblem::Unpassable { place, fault });
    const NUL: &str = "holds a NUL byte";
    for (index, argument) in program.argv.iter().enumerate() {
        if argument.as_bytes().contains(&0) {
            return refuse(format!("argument {index}"), NUL);
        }
    }
    for (name, value) in &program.env {
        let place = || format!("environment variable {name:?}");
        if name.is_empty() || name.as_bytes().contains(&b'=') {
            return refuse(place(), "has a name that is empty or holds `=`");
        }
        if name.as_bytes().contains(&0) || value.as_bytes().contains(&0) {
            return refuse(place(), NUL);
        }
    }
    Ok(())
}

/// Refuses a working folder that cannot be entered.
fn check_folder(cwd: &Path) -> Result<(), SpawnProblem> {
    let refuse = |fault| {
        Err(SpawnProblem::WorkingFolder {
            path: cwd.to_owned(),
            fault,
        })
    };
    // To look up `.` in it needs the very right that entering it needs. `Path` would drop the
    // dot, so it is put there by hand.
    let mut inside = cwd.as_os_str().to_owned();
    inside.push("/.");
    match std::fs::metadata(&inside) {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => refuse("does not exist"),
            io::ErrorKind::NotADirectory => refuse("is not a folder"),
            io::ErrorKind::PermissionDenied => refuse("may not be entered"),
            _ => refuse("cannot be entered"),
        },
    }
}

/// Finds the file to execute, as `execvp` would after the change of folder.
fn find(name: &OsStr, search: Option<&OsStr>, cwd: &Path) -> Result<PathBuf, SpawnProblem> {
    let not_found = |place: String| SpawnProblem::NotFound {
        program: name.to_string_lossy().into_owned(),
        place,
    };
    if name.as_bytes().contains(&b'/') {
        let path = cwd.join(name);
        return match look(&path) {
            Look::Executable => Ok(path),
            Look::Not(fault) => Err(SpawnProblem::NotExecutable { path, fault }),
            Look::Absent if Path::new(name).is_absolute() => Err(not_found("there".to_owned())),
            Look::Absent => Err(not_found(format!("in `{}`", cwd.display()))),
        };
    }
    let search = search.unwrap_or(OsStr::new(PATH_DEFAULT));
    let mut not_executable = None;
    for folder in std::env::split_paths(search) {
        let path = cwd.join(folder).join(name);
        match look(&path) {
            Look::Executable => return Ok(path),
            Look::Not(fault) => {
                not_executable.get_or_insert(SpawnProblem::NotExecutable { path, fault });
            }
            Look::Absent => {}
        }
    }
    Err(not_executable
        .unwrap_or_else(|| not_found(format!("on PATH `{}`", search.to_string_lossy()))))
}

/// What a file looks like from outside; the kernel has the last word.
enum Look {
    Executable,
    Not(&'static str),
    Absent,
}

const MODE_FAULT: &str = "is not executable; `chmod +x` it, or run it through its interpreter";

fn look(path: &Path) -> Look {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Look::Not("is a folder, not a program; name a file"),
        Ok(found) if !found.is_file() => Look::Not("is not a regular file; name a program"),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => Look::Not(MODE_FAULT),
        Ok(_) => Look::Executable,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Look::Not("may not be looked at; grant access to the folders above it")
        }
        Err(_) => Look::Absent,
    }
}

/// Puts what the kernel answered into words.
fn spawn_problem(error: io::Error, program: &Program, name: &OsStr, path: PathBuf) -> SpawnProblem {
    let fault = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::E2BIG) => return too_long(program),
        Some(Errno::EACCES | Errno::EPERM) => MODE_FAULT,
        Some(Errno::ENOEXEC) => {
            "is neither a script with a `#!` line nor a program for this machine; \
             add the line, or build it for this machine"
        }
        Some(Errno::ENOENT) => {
            "is there, but the interpreter in its `#!` line, or its dynamic loader, is not; \
             install that, or correct the line (it may end in a carriage return)"
        }
        Some(Errno::ETXTBSY) => "is open for writing; let its writer finish first",
        _ => {
            let program = name.to_string_lossy().into_owned();
            return SpawnProblem::Host {
                program,
                doing: "starting a process",
                source: error,
            };
        }
    };
    SpawnProblem::NotExecutable { path, fault }
}

fn too_long(program: &Program) -> SpawnProblem {
    let arguments = program.argv.iter().map(|argument| argument.len() + 1);
    let variables = program
        .env
        .iter()
        .map(|(name, value)| name.len() + value.len() + 2);
    let lengths = || arguments.clone().chain(variables.clone());
    SpawnProblem::TooLong {
        bytes: lengths().sum(),
        longest: lengths().max().unwrap_or(0),
    }
}
