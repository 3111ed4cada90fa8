//! The node: containerd, its network and its images, and the kubelet; and what all of these leave behind on a machine.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::daemons::Daemons;
use crate::command;
use crate::docker::Docker;
use crate::error::{Error, Result};

/// Where Debian has the programs that make the network of a pod.
pub(super) const CNI: &str = "/usr/lib/cni";
/// Settings of the kernel that the kubelet and the network change.
const SETTINGS: [&str; 5] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/ip_forward",
];

/// Starts containerd.
pub(super) fn start_containerd(daemons: &Daemons, folder: &Path, address: &str) -> Result<()> {
    let config = |path: &str, text: &str| {
        let file = folder.join(path);
        let text = text
            .replace("@FOLDER@", &folder.display().to_string())
            .replace("@CNI@", CNI)
            .replace("@ADDRESS@", address);
        fs::write(&file, text).map_err(Error::file(&file))
    };
    for name in ["cni", "kubelet", "pod-logs", "volume-plugins"] {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
    }
    config("containerd.toml", include_str!("containerd.toml"))?;
    config("kubelet.yaml", include_str!("kubelet.yaml"))?;
    config("cni/10-ptp.conflist", include_str!("network.json"))?;
    let settings: String = SETTINGS
        .iter()
        .filter_map(|name| Some(format!("{name} {}\n", setting(name)?)))
        .collect();
    let file = folder.join("settings");
    fs::write(&file, settings).map_err(Error::file(&file))?;
    let mut containerd = Command::new("containerd");
    daemons.start(
        "containerd",
        containerd
            .arg("--config")
            .arg(folder.join("containerd.toml")),
    )?;
    daemons.wait("containerd", || {
        command::capture(ctr(folder).arg("version")).map(drop)
    })
}

/// Starts the kubelet.
pub(super) fn start_kubelet(daemons: &Daemons, program: &Path, folder: &Path) -> Result<()> {
    let shown = folder.display();
    let args = [
        format!("--config={shown}/kubelet.yaml"),
        format!("--kubeconfig={shown}/pki/node.kubeconfig"),
        "--hostname-override=localhost".to_owned(),
        format!("--root-dir={shown}/kubelet"),
        format!("--cert-dir={shown}/kubelet/pki"),
    ];
    daemons.start("kubelet", Command::new(program).arg("kubelet").args(args))
}

/// Hands an image of the Docker daemon over.
pub(super) fn load(docker: &Docker, folder: &Path, image: &str) -> Result<()> {
    let archive = folder.join("image.tar");
    let mut save = docker.command(&["save", "--output"]);
    command::capture(save.arg(&archive).arg(image))?;
    command::capture(ctr(folder).args(["images", "import"]).arg(&archive))?;
    fs::remove_file(&archive).map_err(Error::file(&archive))
}

fn ctr(folder: &Path) -> Command {
    let mut ctr = Command::new("ctr");
    ctr.arg("--address")
        .arg(folder.join("containerd.sock"))
        .args(["--namespace", "k8s.io", "--timeout", "10s"]);
    ctr
}

/// Ends all containers; what cannot be ended is left.
pub(super) fn end_containers(folder: &Path) {
    let list = |args: &[&str]| command::capture(ctr(folder).args(args)).unwrap_or_default();
    let each = |names: &str, args: &[&str]| {
        for name in names.lines() {
            let _ = command::capture(ctr(folder).args(args).arg(name));
        }
    };
    if !folder.join("containerd.sock").exists() {
        return;
    }
    each(
        &list(&["task", "ls", "-q"]),
        &["task", "kill", "--all", "--signal", "SIGKILL"],
    );
    each(&list(&["task", "ls", "-q"]), &["task", "rm", "--force"]);
    each(&list(&["container", "ls", "-q"]), &["container", "rm"]);
}

/// Takes back mounts, cgroups and settings of the kernel.
pub(super) fn clean_up(folder: &Path) {
    let below = format!("{}/", folder.display());
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let mut points: Vec<_> = points.filter(|point| point.starts_with(&below)).collect();
    points.sort_unstable();
    for point in points.into_iter().rev() {
        let _ = command::capture(Command::new("umount").args(["--lazy", point]));
    }
    let controllers = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    let groups = controllers.map(|one| one.path().join("kubepods"));
    for group in groups.chain(["/sys/fs/cgroup/kubepods".into()]) {
        remove_groups(&group);
    }
    let settings = fs::read_to_string(folder.join("settings")).unwrap_or_default();
    for (name, value) in settings.lines().filter_map(|line| line.split_once(' ')) {
        let _ = fs::write(Path::new("/proc/sys").join(name), value);
    }
}

/// A cgroup goes when it has no process and no other below it.
fn remove_groups(group: &Path) {
    for one in fs::read_dir(group).into_iter().flatten().flatten() {
        if one.path().is_dir() {
            remove_groups(&one.path());
        }
    }
    let _ = fs::remove_dir(group);
}

fn setting(name: &str) -> Option<String> {
    let value = fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
    Some(value.trim().to_owned())
}
