//! Which server, as whom: flags, contexts of the `nats` command line, and `NATS_*` of the environment.
//!
//! From strong to weak: flags, a context named by `--context`, the environment, a context named by
//! `NATS_CONTEXT`, and, where neither a flag nor the environment names a server, the context that
//! `nats context select` chose.

use std::path::{Path, PathBuf};

use air_nats::Options;
use serde::Deserialize;

use crate::Failure;

/// What the command line says about the connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--server`.
    pub server: Option<String>,
    /// `--creds`.
    pub creds: Option<PathBuf>,
    /// `--context`.
    pub context: Option<String>,
    /// `--prefix`.
    pub prefix: Option<String>,
}

/// A context file; what it says beyond this is of no use here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Context {
    url: String,
    creds: String,
    user: String,
    password: String,
    token: String,
    nkey: String,
    cert: String,
    key: String,
    ca: String,
}

/// The options of the connection; `var` looks a variable of the environment up.
///
/// # Errors
/// A context that does not exist or cannot be read, or a prefix that is none.
pub fn options(flags: &Flags, var: impl Fn(&str) -> Option<String>) -> Result<Options, Failure> {
    let env = Options::from_env(&var)?;
    let mut options = match &flags.context {
        Some(name) => over(named(name, &var)?, env),
        None => match weak_context(flags, &env, &var)? {
            Some(context) => over(env, context),
            None => env,
        },
    };
    if let Some(server) = &flags.server {
        options.url = Some(server.clone());
    }
    if let Some(creds) = &flags.creds {
        options.creds = Some(creds.clone());
    }
    if let Some(prefix) = &flags.prefix {
        options.names = prefix.parse().map_err(air_nats::ConnectError::Prefix)?;
    }
    Ok(options)
}

/// The context of `NATS_CONTEXT`, or the selected one where nothing else names a server.
fn weak_context(
    flags: &Flags,
    env: &Options,
    var: impl Fn(&str) -> Option<String>,
) -> Result<Option<Options>, Failure> {
    if let Some(name) = var("NATS_CONTEXT").filter(|name| !name.is_empty()) {
        return named(&name, var).map(Some);
    }
    if flags.server.is_some() || env.url.is_some() {
        return Ok(None);
    }
    let selected =
        folder(&var).and_then(|folder| std::fs::read_to_string(folder.join("context.txt")).ok());
    match selected
        .as_deref()
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        Some(name) => named(name, var).map(Some),
        None => Ok(None),
    }
}

fn named(name: &str, var: impl Fn(&str) -> Option<String>) -> Result<Options, Failure> {
    let missing = |path: &Path| {
        Failure::NotFound(format!(
            "there is no context `{name}` ({}); `nats context ls` lists them",
            path.display()
        ))
    };
    if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
        return Err(Failure::Usage(format!("`{name}` is no name of a context")));
    }
    let Some(folder) = folder(&var) else {
        return Err(missing(Path::new(
            "neither XDG_CONFIG_HOME nor HOME is set",
        )));
    };
    let path = folder.join("context").join(format!("{name}.json"));
    let bytes = std::fs::read(&path).map_err(|_| missing(&path))?;
    let context: Context = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    let text = |text: String| (!text.is_empty()).then_some(text);
    let file = |path: String| text(path).map(|path| home(&path, &var));
    Ok(Options {
        url: text(context.url),
        creds: file(context.creds),
        user: text(context.user),
        password: text(context.password),
        token: text(context.token),
        nkey: file(context.nkey),
        cert: file(context.cert),
        key: file(context.key),
        ca: file(context.ca),
        ..Options::default()
    })
}

/// Where the `nats` command line keeps its configuration.
fn folder(var: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let xdg = var("XDG_CONFIG_HOME")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    let config = xdg.or_else(|| Some(PathBuf::from(var("HOME")?).join(".config")))?;
    Some(config.join("nats"))
}

fn home(path: &str, var: impl Fn(&str) -> Option<String>) -> PathBuf {
    match (path.strip_prefix("~/"), var("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(path),
    }
}

/// What `strong` says, and where it says nothing, what `weak` says; names come from the environment.
fn over(strong: Options, weak: Options) -> Options {
    let names = if strong.names == Options::default().names {
        weak.names
    } else {
        strong.names
    };
    Options {
        url: strong.url.or(weak.url),
        creds: strong.creds.or(weak.creds),
        user: strong.user.or(weak.user),
        password: strong.password.or(weak.password),
        token: strong.token.or(weak.token),
        nkey: strong.nkey.or(weak.nkey),
        cert: strong.cert.or(weak.cert),
        key: strong.key.or(weak.key),
        ca: strong.ca.or(weak.ca),
        names,
        wait: strong.wait || weak.wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// A configuration folder with the context `prod`, and a look-up of variables.
    fn world(
        selected: Option<&str>,
        vars: &[(&str, &str)],
    ) -> (tempfile::TempDir, HashMap<String, String>) {
        let folder = tempfile::tempdir().unwrap();
        let nats = folder.path().join("nats");
        std::fs::create_dir_all(nats.join("context")).unwrap();
        let context = r#"{"url": "nats://prod:4222", "creds": "~/prod.creds", "user": "", "description": "x", "ca": "/ca"}"#;
        std::fs::write(nats.join("context").join("prod.json"), context).unwrap();
        if let Some(name) = selected {
            std::fs::write(nats.join("context.txt"), format!("{name}\n")).unwrap();
        }
        let mut env: HashMap<_, _> = vars
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        env.insert(
            "XDG_CONFIG_HOME".into(),
            folder.path().display().to_string(),
        );
        env.insert("HOME".into(), "/home/me".into());
        (folder, env)
    }

    fn get(
        flags: &Flags,
        world: &(tempfile::TempDir, HashMap<String, String>),
    ) -> Result<Options, Failure> {
        options(flags, |name| world.1.get(name).cloned())
    }

    fn context(name: &str) -> Flags {
        Flags {
            context: Some(name.into()),
            ..Flags::default()
        }
    }

    #[test]
    fn a_named_context_beats_the_environment_and_flags_beat_both() {
        let world = world(
            None,
            &[
                ("NATS_URL", "nats://env:1"),
                ("NATS_USER", "me"),
                ("AIR_PREFIX", "x"),
            ],
        );
        let options = get(&context("prod"), &world).unwrap();
        assert_eq!(options.url(), "nats://prod:4222");
        assert_eq!(options.creds, Some("/home/me/prod.creds".into()));
        assert_eq!(
            (options.user.as_deref(), options.names.prefix()),
            (Some("me"), "x")
        );
        let flags = Flags {
            server: Some("nats://flag:1".into()),
            prefix: Some("y".into()),
            ..context("prod")
        };
        let options = get(&flags, &world).unwrap();
        assert_eq!(
            (options.url(), options.names.prefix()),
            ("nats://flag:1", "y")
        );
    }

    #[test]
    fn the_selected_context_counts_where_nothing_else_names_a_server() {
        let quiet = world(Some("prod"), &[]);
        assert_eq!(
            get(&Flags::default(), &quiet).unwrap().url(),
            "nats://prod:4222"
        );
        let told = world(Some("prod"), &[("NATS_URL", "nats://env:1")]);
        let options = get(&Flags::default(), &told).unwrap();
        assert_eq!(
            (options.url(), options.creds.clone()),
            ("nats://env:1", None)
        );
        let both = world(
            None,
            &[("NATS_URL", "nats://env:1"), ("NATS_CONTEXT", "prod")],
        );
        let options = get(&Flags::default(), &both).unwrap();
        assert_eq!(
            (options.url(), options.ca.clone()),
            ("nats://env:1", Some("/ca".into()))
        );
    }

    #[test]
    fn a_context_that_is_none_is_told() {
        let world = world(None, &[]);
        assert_eq!(get(&context("none"), &world).unwrap_err().exit().code(), 3);
        assert_eq!(get(&context("../x"), &world).unwrap_err().exit().code(), 2);
        let bad = Flags {
            prefix: Some("A b".into()),
            ..Flags::default()
        };
        assert_eq!(get(&bad, &world).unwrap_err().exit().code(), 2);
    }
}
