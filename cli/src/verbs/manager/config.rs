//! The configuration of a manager: a TOML file with its backends, in the order in which they are tried.
//!
//! Errors say line and column. A key that is not known is told with the nearest that is, and no reason to stop: the file may
//! be for a newer version.

mod airflow;
mod kubernetes;
mod prefect;
mod webhook;

use std::path::Path;

use air_manager::{
    BackendOptions, CgroupOptions, DockerOptions, Infrastructure, ProcessOptions, Pull,
};
use air_protocol::quote::quote;

use super::section::{Place, Section};
use crate::Failure;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Config {
    /// Runners at once, in all.
    pub(super) max_runners: Option<usize>,
    /// The backends; processes, where it names none.
    pub(super) backends: Vec<BackendOptions>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_runners: None,
            backends: vec![BackendOptions::process()],
        }
    }
}

/// The kinds of backends.
pub(super) const KINDS: [&str; 6] = [
    "process",
    "docker",
    "kubernetes",
    "airflow",
    "prefect",
    "webhook",
];

/// Reads the file; gives what it says, and what is to be told of it.
///
/// # Errors
/// It cannot be read, or says what cannot be.
pub(super) fn read(file: &Path) -> Result<(Config, Vec<String>), Failure> {
    let text = std::fs::read_to_string(file);
    let text = text.map_err(Failure::io(&format!("read {}", file.display())))?;
    let told = |place: &Place, text: &str| format!("{}:{place}: {text}", file.display());
    let (config, warnings) = parse(&text).map_err(|wrong| {
        let text = told(&wrong.place, &wrong.text);
        Failure::Usage(text)
    })?;
    let warnings = warnings
        .iter()
        .map(|warning| told(&warning.place, &warning.text));
    Ok((config, warnings.collect()))
}

/// Something that is to be told of a place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remark {
    /// Where.
    pub(super) place: Place,
    /// What.
    pub(super) text: String,
}

/// Reads a text.
pub(super) fn parse(text: &str) -> Result<(Config, Vec<Remark>), Remark> {
    let document = toml::de::DeTable::parse(text).map_err(|error| Remark {
        place: Place::of(text, error.span().map_or(0, |span| span.start)),
        text: error.message().to_owned(),
    })?;
    let mut warnings = Vec::new();
    let mut top = Section::new(text, 0, document.get_ref());
    let max_runners = top.count("max_runners")?;
    let mut backends: Vec<BackendOptions> = Vec::new();
    for (place, mut section) in top.sections("backend")? {
        let one = backend(&mut section)?;
        if backends.iter().any(|other| other.name == one.name) {
            let text = format!(
                "there is a backend `{}` above; give this one another `name`",
                one.name
            );
            return Err(Remark { place, text });
        }
        backends.push(one);
        section.finish(&mut warnings);
    }
    top.finish(&mut warnings);
    if backends.is_empty() {
        backends.push(BackendOptions::process());
    }
    let config = Config {
        max_runners,
        backends,
    };
    Ok((config, warnings))
}

fn backend(section: &mut Section<'_>) -> Result<BackendOptions, Remark> {
    let kind = section.one_of("kind", &KINDS)?.ok_or_else(|| {
        section.wrong(format!(
            "the backend has no `kind`; write one of {}",
            KINDS.join(", ")
        ))
    })?;
    let name = section.text("name")?.unwrap_or_else(|| kind.to_owned());
    Ok(BackendOptions {
        name,
        runners_max: section.count("max_runners")?,
        infrastructure: match kind {
            "docker" => Infrastructure::Docker(docker(section)?),
            "kubernetes" => Infrastructure::Kubernetes(Box::new(kubernetes::read(section)?)),
            "airflow" => Infrastructure::Airflow(airflow::read(section)?),
            "prefect" => Infrastructure::Prefect(prefect::read(section)?),
            "webhook" => Infrastructure::Webhook(webhook::read(section)?),
            _ => Infrastructure::Process(process(section)?),
        },
    })
}

/// The nice values that there are.
const NICE: std::ops::RangeInclusive<i32> = -20..=19;

fn process(section: &mut Section<'_>) -> Result<ProcessOptions, Remark> {
    let cgroup = section.text("cgroup")?;
    let cgroup = match cgroup.as_deref() {
        None | Some("auto") => CgroupOptions::Auto,
        Some("none") => CgroupOptions::None,
        Some(path) if is_group(path) => CgroupOptions::Path(path.to_owned()),
        Some(other) => {
            let text = format!(
                "`cgroup` is `{}`; write auto, none, or the path of a cgroup from the root of its hierarchy, such as /air",
                quote(other)
            );
            return Err(section.wrong_value("cgroup", text));
        }
    };
    Ok(ProcessOptions {
        nice: section.integer("nice", NICE)?,
        user: section.text("user")?,
        cgroup,
    })
}

/// Whether a text is the path of a cgroup that is not the root.
fn is_group(path: &str) -> bool {
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    path.strip_prefix('/')
        .is_some_and(|path| path.split('/').all(plain))
}

/// Whether images are fetched.
pub(super) fn pull(section: &mut Section<'_>) -> Result<Pull, Remark> {
    let word = section.one_of("pull", &["missing", "always", "never"])?;
    Ok(match word {
        Some("always") => Pull::Always,
        Some("never") => Pull::Never,
        _ => Pull::Missing,
    })
}

fn docker(section: &mut Section<'_>) -> Result<DockerOptions, Remark> {
    Ok(DockerOptions {
        host: section.text("host")?,
        image: section.text("image")?,
        pull: pull(section)?,
        runner: section.text("runner")?.ok_or_else(|| {
            let text = "the backend has no `runner`; write the path of the static air-runner on the machine of the daemon";
            section.wrong(text.to_owned())
        })?,
        nats_url: section.text("nats_url")?,
        network: section.text("network")?,
        mounts: section.texts("mounts")?,
        user: section.text("user")?,
        read_only: section.flag("read_only")?,
        cap_drop: section.texts("cap_drop")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with a text, and where.
    fn wrong(text: &str) -> String {
        let remark = parse(text).unwrap_err();
        format!("{}: {}", remark.place, remark.text)
    }

    #[test]
    fn backends_stand_in_their_order() {
        let text = "max_runners = 40\n\n[[backend]]\nkind = 'process'\nmax_runners = 8\n\n[[backend]]\nname = 'boxes'\nkind = 'docker'\nrunner = '/opt/air-runner'\nmounts = ['/a:/a']\nread_only = true\npull = 'never'\n";
        let (config, warnings) = parse(text).unwrap();
        assert_eq!(warnings, []);
        assert_eq!(config.max_runners, Some(40));
        let process = BackendOptions {
            runners_max: Some(8),
            ..BackendOptions::process()
        };
        let docker = DockerOptions {
            runner: "/opt/air-runner".into(),
            mounts: vec!["/a:/a".into()],
            read_only: true,
            pull: Pull::Never,
            ..DockerOptions::default()
        };
        let boxes = BackendOptions {
            name: "boxes".into(),
            runners_max: None,
            infrastructure: Infrastructure::Docker(docker),
        };
        assert_eq!(config.backends, [process, boxes]);
        let (empty, _) = parse("").unwrap();
        assert_eq!(empty.backends, [BackendOptions::process()]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, told) in [
            (
                "max_runners = 0",
                "1:15: `max_runners` is 0, but 1 is the least",
            ),
            ("max_runners = -2", "1:15: `max_runners`"),
            ("max_runners = 'x'", "1:15: `max_runners` is a string"),
            ("a = = 1", "1:5: "),
            ("backend = 1", "1:11: `backend`"),
            (
                "\n[[backend]]\nname = 'x'",
                "2:1: the backend has no `kind`",
            ),
            (
                "[[backend]]\n  kind = 'dokcer'",
                "2:10: `kind` is `dokcer`; did you mean `docker`?",
            ),
            (
                "[[backend]]\nkind = 'docker'",
                "1:1: the backend has no `runner`",
            ),
            (
                "[[backend]]\nkind = 'docker'\nrunner = 'r'\nmounts = [1]",
                "4:11: `mounts`",
            ),
            (
                "[[backend]]\nkind = 'process'\n[[backend]]\nkind = 'process'",
                "3:1: there is a backend `process`",
            ),
            (
                "[[backend]]\nkind = 'process'\nnice = 20",
                "3:8: `nice` is 20; write a number from -20 to 19",
            ),
            (
                "[[backend]]\nkind = 'process'\nnice = 'low'",
                "3:8: `nice` is a string; write a number",
            ),
            (
                "[[backend]]\nkind = 'process'\ncgroup = 'air'",
                "3:10: `cgroup` is `air`; write auto, none, or the path",
            ),
            (
                "[[backend]]\nkind = 'process'\ncgroup = '/a/../b'",
                "3:10: `cgroup` is `/a/../b`",
            ),
            (
                "[[backend]]\nkind = 'process'\ncgroup = '/'",
                "3:10: `cgroup` is `/`",
            ),
        ] {
            let found = wrong(text);
            assert!(found.starts_with(told), "{text}: {found}");
        }
    }

    #[test]
    fn processes_have_a_nice_value_a_user_and_cgroups() {
        let of = |lines: &str| {
            let (config, warnings) =
                parse(&format!("[[backend]]\nkind = 'process'\n{lines}")).unwrap();
            assert_eq!(warnings, []);
            config.backends[0].infrastructure.clone()
        };
        let options = ProcessOptions {
            nice: Some(-5),
            user: Some("nobody:nogroup".into()),
            cgroup: CgroupOptions::Path("/air/tasks".into()),
        };
        let told = of("nice = -5\nuser = 'nobody:nogroup'\ncgroup = '/air/tasks'");
        assert_eq!(told, Infrastructure::Process(options));
        let plain = Infrastructure::Process(ProcessOptions::default());
        assert_eq!(of("cgroup = 'auto'"), plain);
        let none = ProcessOptions {
            cgroup: CgroupOptions::None,
            ..ProcessOptions::default()
        };
        assert_eq!(of("cgroup = 'none'"), Infrastructure::Process(none));
    }

    #[test]
    fn unknown_keys_are_told_and_passed_over() {
        let (config, warnings) =
            parse("max_runner = 3\n[[backend]]\nkind = 'process'\nimages = 'x'").unwrap();
        assert_eq!((config.max_runners, config.backends.len()), (None, 1));
        let told: Vec<_> = warnings
            .iter()
            .map(|one| format!("{}: {}", one.place, one.text))
            .collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(
            told[1],
            "1:1: `max_runner` is no key of this table; did you mean `max_runners`?"
        );
        assert!(told[0].starts_with("4:1: `images` is no key"), "{told:?}");
    }
}
