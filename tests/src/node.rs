//! A machine, as far as namespaces make one: a network card, processes and a host name of its own.
//!
//! The card is one end of a pair whose other end hangs on the bridge `air0` of the namespace in which the test runs.
//! Faults of the network are rules in the node's own namespace. All of it goes with the node.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::{Program, ok};
use crate::wait::HANGS;

/// The bridge between the nodes.
const BRIDGE: &str = "air0";
/// Network of the nodes; a node's number is the last part of its address.
const NETWORK: &str = "10.77.0";
/// What the first process of a node does: it takes a name, tells that it is there, and waits for ever.
const INIT: &str = r#"echo "$1" > /proc/sys/kernel/hostname && ip link set lo up && mkfifo "$2.never" &&
    mkdir "$2.disk" && mount -t tmpfs -o "size=$3" none "$2.disk" && touch "$2.up" && read never < "$2.never""#;
/// Room on the disk of a machine, unless it is full.
const DISK: &str = "2g";
/// Leaves as much room as is used, and no more: what is stored stays. What is written in between makes that too little, so it is
/// tried again.
const FILL: &str = r#"for try in $(seq 1000); do
    used=$(df --output=used -B1 "$0" | tail -n 1) && mount -o "remount,size=$used" "$0" && exit
done; exit 1"#;

/// A machine.
#[derive(Debug)]
pub struct Node {
    /// From 1.
    pub number: usize,
    /// Its disk: in memory, seen by nobody but what runs on it, and gone with it.
    pub disk: PathBuf,
    holder: Program,
    init: u32,
}

impl Node {
    /// Makes the bridge, with an address for the test itself.
    pub fn bridge() {
        run(&["ip", "link", "set", "lo", "up"]);
        run(&["ip", "link", "add", BRIDGE, "type", "bridge"]);
        run(&["ip", "link", "set", BRIDGE, "up"]);
        let address = format!("{NETWORK}.254/24");
        run(&["ip", "address", "add", &address, "dev", BRIDGE]);
    }

    /// Makes a machine with this number on the bridge.
    pub fn start(number: usize, folder: &Path) -> Self {
        let name = format!("node{number}");
        let files = folder.join(&name);
        let mut command = Command::new("unshare");
        command.args(["--net", "--pid", "--uts", "--mount", "--mount-proc"]);
        command.args(["--fork", "--kill-child", "sh", "-c", INIT, "sh", &name]);
        let mut holder = Program::start(command.arg(&files).arg(DISK));
        let up = files.with_extension("up");
        until("node", || {
            assert!(!holder.has_ended(), "no namespaces can be had");
            up.exists().then_some(())
        });
        let init = until("process", || child_of(holder.pid()));
        let node = Self {
            number,
            disk: files.with_extension("disk"),
            holder,
            init,
        };
        let (ours, netns) = (format!("air{number}"), init.to_string());
        run(&[
            "ip", "link", "add", &ours, "type", "veth", "peer", "name", "eth0", "netns", &netns,
        ]);
        run(&["ip", "link", "set", &ours, "master", BRIDGE, "up"]);
        let address = format!("{}/24", node.address());
        node.run(&["ip", "address", "add", &address, "dev", "eth0"]);
        node.run(&["ip", "link", "set", "eth0", "up"]);
        node
    }

    /// The address of the machine with this number, whether it is there or not.
    pub fn address_of(number: usize) -> String {
        format!("{NETWORK}.{number}")
    }

    /// Where the server of the machine with this number listens.
    pub fn url_of(number: usize) -> String {
        format!("nats://{}:4222", Self::address_of(number))
    }

    /// Its address.
    pub fn address(&self) -> String {
        Self::address_of(self.number)
    }

    /// A command that runs on it.
    pub fn command(&self, program: &OsStr) -> Command {
        let mut command = Command::new("nsenter");
        let target = self.init.to_string();
        command.args(["--target", &target, "--net", "--pid", "--uts", "--mount"]);
        command.arg("--").arg(program);
        command
    }

    /// Runs a command on it, to its good end.
    pub fn run(&self, line: &[&str]) {
        let mut command = self.command(line[0].as_ref());
        ok(command.args(&line[1..]));
    }

    /// A rule of its packet filter, such as `-A INPUT -i eth0 -j DROP`.
    pub fn filter(&self, rule: &str) {
        let words: Vec<_> = ["iptables", "-w"]
            .into_iter()
            .chain(rule.split(' '))
            .collect();
        self.run(&words);
    }

    /// A card that sends only so much, and lets the rest wait: `256kbit`, and bytes wait up to `latency`.
    pub fn slow(&self, rate: &str, latency: &str) {
        let line = format!(
            "tc qdisc replace dev eth0 root tbf rate {rate} burst 16kbit latency {latency}"
        );
        self.run(&line.split(' ').collect::<Vec<_>>());
    }

    /// Leaves no room on its disk.
    pub fn fill_disk(&self) {
        self.run(&["sh", "-c", FILL, &self.disk.display().to_string()]);
    }

    /// There is room on its disk again.
    pub fn clear_disk(&self) {
        let disk = self.disk.display().to_string();
        self.run(&["mount", "-o", &format!("remount,size={DISK}"), &disk]);
    }

    /// Takes all faults of the network away.
    pub fn heal(&self) {
        self.filter("-F");
        let mut command = self.command("tc".as_ref());
        command.args(["qdisc", "del", "dev", "eth0", "root"]);
        // There may be none.
        let _ = command.stderr(Stdio::null()).status();
    }

    /// Whether the node is there still.
    pub fn lives(&mut self) -> bool {
        !self.holder.has_ended()
    }
}

/// A program on a node. The process that the test started is `nsenter`, which waits for the program.
#[derive(Debug)]
pub struct Inside {
    around: Program,
    pid: u32,
}

impl Inside {
    /// Starts what [`Node::command`] made.
    pub fn start(command: &mut Command) -> Self {
        let mut around = Program::start(command);
        let pid = until("program", || {
            assert!(!around.has_ended(), "{command:?} does not start");
            child_of(around.pid())
        });
        Self { around, pid }
    }

    /// Sends it a signal, unless it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.around.has_ended() {
            return;
        }
        let _ = kill(Pid::from_raw(i32::try_from(self.pid).unwrap()), signal);
        if signal == Signal::SIGCONT {
            // It stops when its child does.
            self.around.signal(signal);
        }
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.around.kill();
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.around.has_ended()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The only child of a process.
fn child_of(pid: u32) -> Option<u32> {
    let file = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(file).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < HANGS, "no {what} within {HANGS:?}");
        std::thread::yield_now();
    }
}

fn run(line: &[&str]) {
    ok(Command::new(line[0]).args(&line[1..]));
}
