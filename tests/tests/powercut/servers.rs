//! Servers, one or three, each on a disk of its own, with the configuration of `nats/conf`.

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::disk::Disk;

const SINGLE: &str = include_str!("../../../nats/conf/single.conf");
const CLUSTER: &str = include_str!("../../../nats/conf/cluster.conf");
const SYNC: &str = "sync_interval: always";

/// The servers of an installation. Their programs come first: they must be gone before their disks are.
pub(crate) struct Servers {
    programs: air_tests::Servers,
    disks: Vec<Disk>,
    _folder: TempDir,
}

impl Servers {
    /// Starts this many; with `always` as `nats/conf` has it, else with the server's own interval.
    pub(crate) fn start(count: usize, always: bool) -> Self {
        let text = if count == 1 { SINGLE } else { CLUSTER };
        assert!(text.contains(SYNC), "the configuration has another default");
        let kept = if always { SYNC } else { "" };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let disk = |number: usize| Disk::new(&folder.path().join(number.to_string()));
        let disks: Result<Vec<_>, _> = (0..count).map(disk).collect();
        let disks = disks.expect("it was tried before");
        // Below the mount, beside what the file system keeps there itself.
        let stores = disks.iter().map(|disk| disk.folder().join("store"));
        Self {
            programs: air_tests::Servers::start(&text.replace(SYNC, kept), stores),
            disks,
            _folder: folder,
        }
    }

    /// Their addresses.
    pub(crate) fn urls(&self) -> String {
        self.programs.urls()
    }

    /// Lets all disks have everything that was written up to now.
    pub(crate) fn age(&self) {
        for disk in &self.disks {
            disk.age();
        }
    }

    /// The power of these servers goes at once, and comes back.
    pub(crate) fn cut(&mut self, which: &[usize]) {
        // Frozen first: what their disks hold at this moment is what is left of them.
        for place in which {
            self.programs.program(*place).signal(Signal::SIGSTOP);
        }
        for place in which {
            self.disks[*place].cut();
        }
        for place in which {
            self.programs.kill(*place);
            self.disks[*place].come_back();
        }
        for place in which {
            self.programs.launch(*place);
        }
    }

    /// What the servers complained of.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.programs.complaints()
    }
}
