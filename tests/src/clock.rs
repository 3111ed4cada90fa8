//! Managers and runners whose clocks jump: a library that is loaded before libc adds to them what a file says.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use crate::installation::Installation;
use crate::process::Program;

impl Installation {
    /// Sets the clocks of managers with a fake clock, and of their runners: seconds for the wall clock, and for the
    /// one that counts suspension.
    pub fn shift_clocks(&self, wall: i64, boot: i64) {
        // Written in place, since it is mapped; each number goes in one piece.
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.server.folder().join("clock"))
            .unwrap();
        for (place, seconds) in [(0, wall), (8, boot)] {
            file.write_all_at(&seconds.to_ne_bytes(), place).unwrap();
        }
    }

    /// Starts a manager whose clock goes by [`Installation::shift_clocks`], with further options of `airx manager`; with
    /// a file as `died`, it dies there once, before it starts a runner.
    pub fn add_manager_of_a_fake_clock(&mut self, options: &[&str], died: Option<&Path>) {
        let folder = self.server.folder();
        let (library, source) = (folder.join("fake_clock.so"), folder.join("fake_clock.c"));
        if !library.exists() {
            std::fs::write(&source, include_str!("fake_clock.c")).unwrap();
            let mut compile = Command::new("cc");
            compile.args(["-shared", "-fPIC", "-o"]);
            compile.arg(&library).arg(source);
            assert!(compile.status().expect("a C compiler").success());
        }
        let clock = folder.join("clock");
        let mut command = self.manager_command(options);
        command.env("LD_PRELOAD", library).env("FAKE_CLOCK", clock);
        if let Some(died) = died {
            command.env("AIR_CRASH_AT", format!("starting@{}", died.display()));
        }
        self.managers.push(Program::start(&mut command));
        self.clocks_jump = true;
    }
}
