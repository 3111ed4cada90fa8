//! What the documentation shows is what happens: each `console` block is run, and its output compared.
//!
//! A page is one walk on one fresh machine: its first block starts `airx dev`, the others talk to it. A
//! command that only looks is repeated until it says what the page says, since a reader types slower than
//! this test. What differs each time (times, durations, ids, ports, sizes) is compared by its form alone:
//! see [`normal`]. A line `…` stands for any lines. Never writes a page; on a fault it shows both texts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use air_tests::{Program, binary, wait_for_within};
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// Time that a command gets to say what it should.
const MOST: Duration = Duration::from_secs(300);
/// Commands that only look; any other is run once.
const LOOKING: [&str; 8] = [
    "nats kv get",
    "nats stream",
    "airx logs",
    "airx status",
    "airx tasks",
    "airx show",
    "airx events",
    "airx doctor",
];
/// Keys whose numbers differ each time.
const LOOSE: [&str; 4] = ["cpu_ms", "max_rss_kb", "runners_max", "revision"];

/// One command of a block, and what the page says that it prints.
struct Shown {
    line: usize,
    command: String,
    output: String,
}

#[tokio::test]
async fn the_readme_is_true() {
    walk("README.md").await;
}

#[tokio::test]
async fn getting_started_is_true() {
    walk("docs/getting-started.md").await;
}

/// Runs all blocks of a page in their order.
async fn walk(page: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join(page)).unwrap();
    let shown = commands(&text);
    assert!(shown.len() > 5, "{page} shows too few commands");
    let mut desk = Desk::new();
    for one in &shown {
        desk.check(page, one).await;
    }
}

/// The commands of all `console` blocks.
fn commands(page: &str) -> Vec<Shown> {
    let (mut found, mut inside): (Vec<Shown>, _) = (Vec::new(), false);
    for (number, line) in (1..).zip(page.lines()) {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside && line.starts_with("$ ") {
            found.push(Shown {
                line: number,
                command: line[2..].to_owned(),
                output: String::new(),
            });
        } else if inside {
            let last = found.last_mut().expect("a block begins with a command");
            last.output.push_str(line);
            last.output.push('\n');
        }
    }
    found
}

/// A folder with an installation that the page has started.
struct Desk {
    folder: TempDir,
    path: String,
    url: String,
    programs: Vec<Program>,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for name in ["airx", "air-runner"] {
            std::os::unix::fs::symlink(binary(name), bin.join(name)).unwrap();
        }
        if let Some(nats) = std::env::var_os("AIR_NATS_CLI") {
            std::os::unix::fs::symlink(PathBuf::from(nats), bin.join("nats")).unwrap();
        }
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        Self {
            folder,
            path,
            url: String::new(),
            programs: Vec::new(),
        }
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", &format!("exec 2>&1; {command}")])
            .current_dir(self.folder.path())
            .env("PATH", &self.path)
            .env("HOME", self.folder.path())
            .env("XDG_CONFIG_HOME", self.folder.path())
            .env("NATS_URL", &self.url)
            .env_remove("AIR_LOG")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null());
        shell
    }

    async fn check(&mut self, page: &str, shown: &Shown) {
        let command = shown.command.as_str();
        let what = format!(
            "output of `{command}` as {page}:{} has it:\n{}",
            shown.line, shown.output
        );
        let wanted = normal(&shown.output);
        if command == "airx dev" {
            let file = self.start("exec airx dev --port 0");
            wait_for_within(MOST, &what, async || said(&wanted, &read(&file))).await;
            let text = read(&file);
            let url = text.split("NATS_URL=").nth(1).unwrap();
            self.url = url.lines().next().unwrap().to_owned();
            // A reader is not so fast that the manager's first heartbeat is still to come.
            wait_for_within(MOST, "manager", async || {
                let text = self.output("airx doctor");
                if text.contains("1 manager") {
                    Ok(())
                } else {
                    Err(text)
                }
            })
            .await;
        } else if command.starts_with("nats sub ") {
            self.check_listener(&what, command, &wanted).await;
        } else if LOOKING.iter().any(|verb| command.starts_with(verb)) {
            wait_for_within(MOST, &what, async || said(&wanted, &self.output(command))).await;
        } else {
            let text = self.output(command);
            assert_eq!(said(&wanted, &text), Ok(()), "no {what}");
        }
    }

    /// What a command prints that ends by itself.
    fn output(&self, command: &str) -> String {
        let output = self.shell(command).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A listener hears of the page's first task, published once more; it goes on, as for a reader.
    async fn check_listener(&mut self, what: &str, command: &str, wanted: &str) {
        // In place of the shell, so that it ends with the test.
        let file = self.start(&format!("exec {command}"));
        let (greeting, heard) = wanted.split_once('\n').unwrap();
        wait_for_within(MOST, what, async || {
            let text = normal(&read(&file));
            if text.starts_with(greeting) && text.contains(heard) {
                return Ok(());
            }
            self.output(r#"nats pub air.tasks.hello '{"run":"echo hi"}'; airx wait hello"#);
            Err(text.lines().take(20).collect::<Vec<_>>().join("\n"))
        })
        .await;
    }

    /// Starts what goes on for ever, or until it has heard enough; its output goes to a file.
    fn start(&mut self, command: &str) -> PathBuf {
        let file = self
            .folder
            .path()
            .join(format!("output-{}", self.programs.len()));
        let mut shell = self.shell(command);
        shell.stdout(File::create(&file).unwrap());
        self.programs.push(Program::start(&mut shell));
        file
    }
}

impl Drop for Desk {
    /// Asks `airx dev` to end, so that its server ends with it; also when a test has failed.
    fn drop(&mut self) {
        let Some(dev) = self.programs.first_mut() else {
            return;
        };
        if dev.has_ended() {
            return;
        }
        dev.signal(Signal::SIGTERM);
        let start = Instant::now();
        while !dev.has_ended() && start.elapsed() < MOST {
            std::thread::yield_now();
        }
    }
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap()
}

/// Whether a text is what is wanted, where `…` stands for any lines.
fn said(wanted: &str, text: &str) -> Result<(), String> {
    let found = normal(text);
    let mut rest = found.as_str();
    for (number, part) in wanted.split("…\n").enumerate() {
        let at = if number == 0 {
            rest.starts_with(part).then_some(0)
        } else {
            rest.find(part)
        };
        match at {
            Some(at) => rest = &rest[at + part.len()..],
            None => return Err(text.to_owned()),
        }
    }
    if rest.is_empty() || wanted.ends_with("…\n") {
        Ok(())
    } else {
        Err(text.to_owned())
    }
}

/// A text without what differs each time: what a word is stands for the word, a space for many.
fn normal(text: &str) -> String {
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let mut all = String::new();
    for line in text.lines() {
        let (mut out, mut before) = (String::new(), String::new());
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let end = rest.find(|c: char| !is_of_word(c)).unwrap_or(rest.len());
            if end == 0 {
                let again = " ─".contains(first) && out.ends_with(first);
                if !again {
                    out.push(first);
                }
                rest = &rest[first.len_utf8()..];
                continue;
            }
            let word = &rest[..end];
            rest = &rest[end..];
            let core = word.trim_matches([':', '.', '-']);
            let loose =
                LOOSE.contains(&before.as_str()) || rest.starts_with(" MiB") || out.ends_with('#');
            out.push_str(&word.replacen(
                core,
                &form(core, &host, loose),
                usize::from(!core.is_empty()),
            ));
            before = core.to_owned();
        }
        all.push_str(out.trim_end());
        all.push('\n');
    }
    let all = all.trim_end();
    if all.is_empty() {
        String::new()
    } else {
        format!("{all}\n")
    }
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_:.-".contains(c)
}

/// The form of a word that differs each time; any other word as it is.
fn form(word: &str, host: &str, loose: bool) -> String {
    let shape: String = word
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    let hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let number = !word.is_empty() && digits(word);
    let pieces: Vec<_> = word.split('-').collect();
    let name = |name: &str| word == name || word.starts_with(&format!("{name}-"));
    let form = if shape.starts_with("0000-00-00T") || shape.starts_with("00:00:00") {
        "TIME"
    } else if shape == "0000-00-00" {
        "DATE"
    } else if pieces.len() == 5 && word.len() == 36 && pieces.iter().all(|piece| hex(piece)) {
        "UUID"
    } else if word.len() == 32 && hex(word) {
        "ID"
    } else if shape.starts_with("000.0.0.0:") {
        "ADDRESS"
    } else if word
        .strip_prefix('_')
        .is_some_and(|rest| !rest.is_empty() && digits(rest))
    {
        "_N"
    } else if (number && (loose || word.len() > 2)) || is_span(word) {
        if number { "N" } else { "SPAN" }
    } else if name(host) || name("my-machine") {
        "HOST"
    } else {
        return word.to_owned();
    };
    form.to_owned()
}

/// Whether a word is a length of time, such as `1m2.5s`.
fn is_span(word: &str) -> bool {
    let mut rest = word;
    while !rest.is_empty() {
        let units = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let end = units
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(units.len());
        let known = ["ns", "us", "ms", "s", "m", "h", "d"].contains(&&units[..end]);
        if units.len() == rest.len() || !known {
            return false;
        }
        rest = &units[end..];
    }
    !word.is_empty()
}

#[test]
fn only_what_differs_each_time_is_loose() {
    let same = |one: &str, other: &str| normal(one) == normal(other);
    assert!(same("took 590ms at 11:13:45", "took 1m2s at 09:00:00"));
    assert!(same("nats://127.0.0.1:4222", "nats://127.0.0.1:34355"));
    assert!(same(
        r#""cpu_ms":0,"task":"_1""#,
        r#""cpu_ms":12,"task":"_7""#
    ));
    assert!(same("AGE     RUNNING", "AGE RUNNING"));
    assert!(!same("failed 1", "failed 2"));
    assert!(!same("completed", "failed"));
    assert!(said("a\n…\nc\n", "a\nb\nb\nc").is_ok());
    assert!(said("a\n…\nc\n", "a\nb").is_err());
    assert!(said("a\n", "a\nb").is_err());
}
