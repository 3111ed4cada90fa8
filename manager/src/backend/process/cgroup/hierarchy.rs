//! Where the kernel's cgroups are, and which of them is the base of our own.
//!
//! Version 2 where it has the controllers for memory and processors, else version 1. Reads `/proc`; changes nothing but what
//! version 2 needs: a group that has groups with limits below it may hold no processes itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::put;

/// The group of version 2 into which a manager goes, so that its own can be the base. A service whose cgroup
/// is made by somebody else gives it this name.
const LEAF: &str = "air-manager";
/// What a base must be able to limit.
const CONTROLLERS: [&str; 2] = ["memory", "cpu"];

/// Which interface the kernel's files have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// The groups below which others are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) version: Version,
    /// The folder in which memory is limited.
    pub(super) memory: PathBuf,
    /// The folder in which processor time is limited: the same with version 2.
    pub(super) cpu: PathBuf,
}

impl Base {
    /// The group of this process.
    pub(super) fn own() -> Result<Self, String> {
        let own = read("/proc/self/cgroup")?;
        let tree = Tree::find()?;
        let below = |mount: &Mount, controller: &str| {
            let path = group_of(&own, controller).unwrap_or("/");
            mount.folder_of(path)
        };
        match &tree {
            Tree::Two(mount) => {
                let mut folder = below(mount, "");
                if folder.ends_with(LEAF) {
                    folder.pop();
                }
                enable(&folder)?;
                Ok(Self::two(folder))
            }
            Tree::One { memory, cpu } => Ok(Self {
                version: Version::One,
                memory: below(memory, "memory"),
                cpu: below(cpu, "cpu"),
            }),
        }
    }

    /// The group of this path, as `/proc/PID/cgroup` shows paths; made where it is missing.
    pub(super) fn at(path: &str) -> Result<Self, String> {
        let base = match Tree::find()? {
            Tree::Two(mount) => Self::two(mount.folder_of(path)),
            Tree::One { memory, cpu } => Self {
                version: Version::One,
                memory: memory.folder_of(path),
                cpu: cpu.folder_of(path),
            },
        };
        for folder in base.folders() {
            let made = fs::create_dir_all(folder);
            made.map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        if base.version == Version::Two {
            enable(&base.memory)?;
        }
        Ok(base)
    }

    fn two(folder: PathBuf) -> Self {
        Self {
            version: Version::Two,
            memory: folder.clone(),
            cpu: folder,
        }
    }

    /// The folders, each once.
    pub(super) fn folders(&self) -> impl Iterator<Item = &Path> {
        let folders = BTreeSet::from([self.memory.as_path(), self.cpu.as_path()]);
        folders.into_iter()
    }
}

/// Lets the groups below one of version 2 have limits.
fn enable(folder: &Path) -> Result<(), String> {
    let words = |name: &str| {
        let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
        let words = text.split_ascii_whitespace().map(str::to_owned);
        words.collect::<Vec<_>>()
    };
    let has = |name: &str| {
        let there = words(name);
        CONTROLLERS
            .iter()
            .all(|one| there.iter().any(|word| word == one))
    };
    if has("cgroup.subtree_control") {
        return Ok(());
    }
    let shown = folder.display();
    if !has("cgroup.controllers") {
        return Err(format!(
            "{shown} was not given the controllers `memory` and `cpu`"
        ));
    }
    let control = folder.join("cgroup.subtree_control");
    let on = || put(&control, "+memory +cpu");
    let Err(first) = on() else {
        return Ok(());
    };
    // Refused while there are processes in it: this one can go.
    let own = std::process::id().to_string();
    let members = words("cgroup.procs");
    if members.is_empty() {
        return Err(format!("{}: {first}", control.display()));
    }
    let others = members.iter().filter(|pid| **pid != own).count();
    if others > 0 {
        return Err(format!(
            "{shown} holds {others} other processes, so that none of its groups can have limits; give the manager a group of its own"
        ));
    }
    let leaf = folder.join(LEAF);
    let gone = fs::create_dir_all(&leaf).and_then(|()| put(&leaf.join("cgroup.procs"), &own));
    gone.and_then(|()| on()).map_err(|error| {
        format!(
            "{}: {first}; {}: {error}",
            control.display(),
            leaf.display()
        )
    })
}

/// What is mounted.
#[derive(Debug, PartialEq, Eq)]
enum Tree {
    Two(Mount),
    One { memory: Mount, cpu: Mount },
}

impl Tree {
    fn find() -> Result<Self, String> {
        let mounts = Mount::all(&read("/proc/self/mountinfo")?);
        let controllers = |mount: &Mount| {
            fs::read_to_string(mount.point.join("cgroup.controllers")).unwrap_or_default()
        };
        Self::of(mounts, controllers).ok_or_else(|| {
            "no cgroup hierarchy with the controllers `memory` and `cpu` is mounted".to_owned()
        })
    }

    /// Chooses among the mounts; `controllers` tells what one of version 2 has.
    fn of(mounts: Vec<Mount>, controllers: impl Fn(&Mount) -> String) -> Option<Self> {
        let with = |mount: &&Mount, controller: &str| mount.has.iter().any(|one| one == controller);
        let two = mounts.iter().find(|mount| {
            let there = controllers(mount);
            let has = |one: &&str| there.split_ascii_whitespace().any(|word| word == *one);
            mount.version == Version::Two && CONTROLLERS.iter().all(has)
        });
        if let Some(two) = two {
            return Some(Self::Two(two.clone()));
        }
        let one = |controller| {
            let mut found = mounts.iter().filter(|mount| mount.version == Version::One);
            found.find(|mount| with(mount, controller)).cloned()
        };
        Some(Self::One {
            memory: one("memory")?,
            cpu: one("cpu")?,
        })
    }
}

/// A hierarchy of cgroups, and where it is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    version: Version,
    /// The group that is seen at the mount point.
    root: String,
    point: PathBuf,
    /// Controllers, of version 1 only.
    has: Vec<String>,
}

impl Mount {
    /// Those in the text of `/proc/self/mountinfo`.
    fn all(text: &str) -> Vec<Self> {
        text.lines().filter_map(Self::of).collect()
    }

    /// `ID PARENT DEV ROOT POINT OPTIONS … - TYPE SOURCE SUPER-OPTIONS`
    fn of(line: &str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let mut kind = kind.split(' ');
        let version = match kind.next()? {
            "cgroup" => Version::One,
            "cgroup2" => Version::Two,
            _ => return None,
        };
        let options = kind.nth(1)?;
        Some(Self {
            version,
            root: root.to_owned(),
            point: PathBuf::from(point),
            has: options.split(',').map(str::to_owned).collect(),
        })
    }

    /// The folder of a group.
    fn folder_of(&self, path: &str) -> PathBuf {
        let below = Path::new(path).strip_prefix(&self.root);
        let below = below.unwrap_or(Path::new(path));
        self.point.join(below.strip_prefix("/").unwrap_or(below))
    }
}

/// The path of the group in the hierarchy of a controller, `""` for version 2, in the text of `/proc/PID/cgroup`.
fn group_of<'a>(text: &'a str, controller: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers
            .split(',')
            .any(|one| one == controller)
            .then_some(path)
    })
}

fn read(file: &str) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
25 30 0:22 / /sys rw,nosuid - sysfs sysfs rw
26 25 0:23 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
27 26 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
28 26 0:25 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
29 26 0:26 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
";

    fn folders(tree: &Tree, path: &str) -> Vec<String> {
        let mounts = match tree {
            Tree::Two(mount) => vec![mount],
            Tree::One { memory, cpu } => vec![memory, cpu],
        };
        let folders = mounts.into_iter().map(|mount| mount.folder_of(path));
        folders.map(|folder| folder.display().to_string()).collect()
    }

    #[test]
    fn version_two_is_taken_where_it_has_the_controllers() {
        let tree =
            |controllers: &str| Tree::of(Mount::all(HYBRID), |_| controllers.to_owned()).unwrap();
        let two = tree("cpuset cpu io memory pids\n");
        assert_eq!(folders(&two, "/a/b"), ["/sys/fs/cgroup/unified/a/b"]);
        let one = tree("hugetlb\n");
        assert_eq!(
            folders(&one, "/a"),
            ["/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/cpu,cpuacct/a"]
        );
        assert_eq!(folders(&one, "/docker/x/y")[0], "/sys/fs/cgroup/memory/y");
        let no_cpu: Vec<&str> = HYBRID
            .lines()
            .filter(|line| !line.contains("cpuacct"))
            .collect();
        assert_eq!(
            Tree::of(Mount::all(&no_cpu.join("\n")), |_| String::new()),
            None
        );
    }

    #[test]
    fn the_own_group_is_told_for_each_controller() {
        let text = "4:memory:/m\n2:cpu,cpuacct:/c:d\n1:name=systemd:/s\n0::/two\n";
        let of = |controller| group_of(text, controller);
        assert_eq!(
            (of("memory"), of("cpu"), of("")),
            (Some("/m"), Some("/c:d"), Some("/two"))
        );
        assert_eq!(of("pids"), None);
    }
}
