//! A disk of one server that can be cut from its power: a file system in an image that is mounted through a loop device.
//!
//! What the server synced, and what the kernel wrote by itself, is in the image's file; what is only in the page cache of
//! the mounted file system is not. A copy of the file is therefore what a disk holds when the power goes, and mounting
//! the copy replays its journal as a machine does that comes up again. [`Disk::prove`] shows that this is so.
//! A disk that acknowledges a flush and forgets it is not imitated.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Size of an image; the file is sparse.
const SIZE: &str = "512M";
/// Copies until none of them is torn; the kernel's own write-back leaves gaps of seconds.
const COPIES_MAX: u32 = 200;

/// An image, mounted.
pub(crate) struct Disk {
    image: PathBuf,
    cut: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// Makes and mounts an empty one in a folder of its own.
    ///
    /// # Errors
    /// One line: what this machine does not allow.
    pub(crate) fn new(folder: &Path) -> Result<Self, String> {
        let mount = folder.join("disk");
        std::fs::create_dir_all(&mount).map_err(|error| error.to_string())?;
        let disk = Self {
            image: folder.join("image"),
            cut: folder.join("cut"),
            mount,
        };
        run("truncate", &["-s", SIZE, path(&disk.image)])?;
        run("mkfs.ext4", &["-q", "-F", path(&disk.image)])?;
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub(crate) fn folder(&self) -> &Path {
        &self.mount
    }

    /// Writes everything, as time does: an installation that is minutes old has its streams on the disk.
    pub(crate) fn age(&self) {
        run("sync", &["--file-system", path(&self.mount)]).expect("a disk can be synced");
    }

    /// Takes what is on the disk at one moment: a copy counts only if nothing was written while it was made.
    pub(crate) fn cut(&self) {
        for _ in 0..COPIES_MAX {
            let (image, cut) = (path(&self.image), path(&self.cut));
            run("cp", &["--sparse=always", image, cut]).expect("there is room for a copy");
            if run("cmp", &["-s", image, cut]).is_ok() {
                return;
            }
        }
        panic!("the disk is written all the time; freeze its server first");
    }

    /// Puts what was cut in the place of the disk. Nothing may use it any more.
    pub(crate) fn come_back(&self) {
        self.unmount();
        std::fs::rename(&self.cut, &self.image).expect("a copy was made");
        self.mount().expect("an image can be mounted again");
    }

    fn mount(&self) -> Result<(), String> {
        run(
            "mount",
            &["-o", "loop", path(&self.image), path(&self.mount)],
        )
    }

    fn unmount(&self) {
        run("umount", &[path(&self.mount)]).expect("nothing uses the disk");
    }

    /// Shows that a synced file survives a cut, and that one that was only written does not.
    pub(crate) fn prove() -> Result<(), String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let disk = Self::new(folder.path())?;
        let synced = std::fs::File::create(disk.mount.join("synced"));
        let synced = synced.and_then(|mut file| {
            std::io::Write::write_all(&mut file, b"synced")?;
            file.sync_all()
        });
        synced.map_err(|error| error.to_string())?;
        let written = std::fs::write(disk.mount.join("written"), b"written");
        written.map_err(|error| error.to_string())?;
        disk.cut();
        disk.come_back();
        let read = |name| std::fs::read(disk.mount.join(name)).unwrap_or_default();
        if read("synced") == b"synced" && read("written") != b"written" {
            return Ok(());
        }
        Err("a copy of an image is not what its disk holds: here a cut proves nothing".to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, so that a server that could not be ended does not keep the mount for ever.
        let _ = run("umount", &["--lazy", path(&self.mount)]);
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program} cannot be started: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().next_back().unwrap_or("it says nothing");
    Err(format!("{program}: {last}"))
}
