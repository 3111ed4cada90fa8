//! Runs one program through `execute`, in a process of its own.
//!
//! A subreaper that waits for all children must be alone in its process. So each test starts
//! its own binary once more, with the name of a hidden test and a [`Spec`] in a file; that
//! hidden test calls [`run_spec`], which leaves an [`Outcome`] beside it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use air_runner::execute::{End, Memory, Program, Stop, execute};
use air_runner::sweep;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

/// Names the file with the spec.
const SPEC: &str = "AIR_TEST_SPEC";
/// Far more than any program here may take to come to an end: a grace that nobody waits for.
pub(crate) const LONG: u64 = 60_000;

/// What to run. Once the output holds `ready`, that which is asked for "when ready" happens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) cwd: PathBuf,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) grace_ms: u64,
    pub(crate) output_bytes_max: u64,
    pub(crate) address_space_max: Option<u64>,
    /// Ask for the stop when ready: cancel, or lease lost.
    pub(crate) cancel: bool,
    pub(crate) lose_lease: bool,
    /// Ask for the stop before the start.
    pub(crate) cancel_at_once: bool,
    /// When ready, open the pipe of the process whose id follows `ready `, and keep it.
    pub(crate) hold_pipe: bool,
    /// Nobody receives the output.
    pub(crate) deaf: bool,
}

/// What became of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) end: String,
    pub(crate) cpu_ms: u64,
    pub(crate) max_rss_kb: u64,
    pub(crate) tail: Vec<u8>,
    pub(crate) output_bytes: u64,
    pub(crate) output_dropped: u64,
    pub(crate) elapsed_ms: u64,
    pub(crate) chunk_bytes: Vec<usize>,
    /// Processes with the program's mark, right after `execute` has returned.
    pub(crate) survivors: usize,
    #[serde(skip)]
    pub(crate) output: Vec<u8>,
}

impl Spec {
    pub(crate) fn new<const N: usize>(argv: [&str; N]) -> Self {
        let path = ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned());
        Self {
            argv: argv.map(str::to_owned).into(),
            env: BTreeMap::from([path]),
            cwd: "/".into(),
            timeout_ms: None,
            grace_ms: LONG,
            output_bytes_max: 1024 * 1024,
            address_space_max: None,
            cancel: false,
            lose_lease: false,
            cancel_at_once: false,
            hold_pipe: false,
            deaf: false,
        }
    }

    pub(crate) fn shell(line: &str) -> Self {
        Self::new(["/bin/sh", "-c", line])
    }

    /// Runs it in a new process of this binary. Checks what holds for every program: nothing
    /// survives, every byte is accounted for, the tail is the end of the output.
    pub(crate) fn run(mut self) -> Outcome {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder
            .path()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        self.env.insert("AIR_RUNNER".to_owned(), mark);
        let spec = folder.path().join("spec");
        fs::write(&spec, serde_json::to_vec(&self).unwrap()).unwrap();
        let helper = again("one_program").env(SPEC, &spec).output().unwrap();
        assert!(
            helper.status.success(),
            "{}",
            String::from_utf8_lossy(&helper.stdout)
        );
        let outcome = fs::read(folder.path().join("outcome")).unwrap();
        let output = fs::read(folder.path().join("output")).unwrap();
        let outcome = Outcome {
            output,
            ..serde_json::from_slice(&outcome).unwrap()
        };

        assert_eq!(outcome.survivors, 0, "{self:?}");
        let received = outcome.output.len() as u64;
        assert_eq!(
            received + outcome.output_dropped,
            outcome.output_bytes,
            "{self:?}"
        );
        assert!(
            outcome
                .chunk_bytes
                .iter()
                .all(|bytes| (1..=64 * 1024).contains(bytes))
        );
        if outcome.output_dropped == 0 {
            assert!(outcome.output.ends_with(&outcome.tail));
            assert_eq!(outcome.tail.len(), outcome.output.len().min(4096));
        }
        outcome
    }
}

impl Outcome {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    /// Asserts that no grace of [`LONG`] was waited for.
    pub(crate) fn assert_prompt(&self) {
        assert!(self.elapsed_ms < LONG / 2, "{self:?}");
    }
}

/// This binary, to run one of its hidden tests.
pub(crate) fn again(hidden_test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", hidden_test, "--ignored", "--nocapture"]);
    command
}

/// Body of the hidden test.
pub(crate) fn run_spec() {
    let Some(path) = std::env::var_os(SPEC) else {
        return;
    };
    let folder = Path::new(&path).parent().unwrap();
    let spec: Spec = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let outcome = runtime.block_on(run_here(&spec));
    fs::write(folder.join("output"), &outcome.output).unwrap();
    fs::write(
        folder.join("outcome"),
        serde_json::to_vec(&outcome).unwrap(),
    )
    .unwrap();
}

async fn run_here(spec: &Spec) -> Outcome {
    let program = Program {
        argv: spec.argv.iter().map(Into::into).collect(),
        env: spec
            .env
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        stdin: None,
        stderr: None,
        cwd: spec.cwd.clone(),
        timeout: spec.timeout_ms.map(Duration::from_millis),
        grace: Duration::from_millis(spec.grace_ms),
        output_bytes_max: spec.output_bytes_max,
        memory: spec
            .address_space_max
            .map_or(Memory::Free, Memory::AddressSpace),
    };
    let (chunks, received) = mpsc::channel(4);
    let (stop, stop_seen) = watch::channel(spec.cancel_at_once.then_some(Stop::Cancel));
    let started = Instant::now();
    let (ended, (output, chunk_bytes)) = tokio::join!(
        execute(program, chunks, stop_seen),
        receive(spec, received, stop)
    );
    let elapsed_ms = started.elapsed().as_millis() as u64;
    let mark = &spec.env["AIR_RUNNER"];
    Outcome {
        end: match &ended.end {
            End::NotStarted(problem) => format!("not started: {problem}"),
            end => format!("{end:?}"),
        },
        cpu_ms: ended.cpu_ms,
        max_rss_kb: ended.max_rss_kb,
        tail: ended.tail,
        output_bytes: ended.output_bytes,
        output_dropped: ended.output_dropped,
        elapsed_ms,
        chunk_bytes,
        survivors: sweep::find(|id| id == mark).unwrap().len(),
        output,
    }
}

/// Collects the output, and acts when it says `ready`.
async fn receive(
    spec: &Spec,
    mut chunks: mpsc::Receiver<Vec<u8>>,
    stop: watch::Sender<Option<Stop>>,
) -> (Vec<u8>, Vec<usize>) {
    let (mut output, mut chunk_bytes) = (Vec::new(), Vec::new());
    let mut held = None;
    if spec.deaf {
        chunks.close();
        return (output, chunk_bytes);
    }
    while let Some(chunk) = chunks.recv().await {
        chunk_bytes.push(chunk.len());
        output.extend(chunk);
        let text = String::from_utf8_lossy(&output);
        let Some((_, after)) = text.split_once("ready") else {
            continue;
        };
        if spec.hold_pipe && held.is_none() {
            let path = format!("/proc/{}/fd/1", after.trim());
            held = Some(File::options().write(true).open(path).unwrap());
        }
        if spec.cancel || spec.lose_lease {
            let reason = if spec.cancel {
                Stop::Cancel
            } else {
                Stop::LeaseLost
            };
            stop.send_replace(Some(reason));
        }
    }
    (output, chunk_bytes)
}
