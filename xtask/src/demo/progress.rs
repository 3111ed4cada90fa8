//! Shows how the audit goes: one block that is drawn again on a terminal, a plain line now and then elsewhere.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use super::sample::{Job, Sample};

/// Time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(2);
/// Time over which the rate is taken.
const RATE_OVER: Duration = Duration::from_secs(3);
/// Columns of the bar.
const BAR: u64 = 30;
/// Columns, unless `COLUMNS` says otherwise.
const COLUMNS: usize = 80;

/// What is shown, and when it was.
pub(super) struct Progress {
    live: bool,
    columns: usize,
    begun: Instant,
    /// Lines that stand on the terminal and are to be drawn over.
    drawn: usize,
    said: Option<Instant>,
    /// Tasks that were over, by time.
    past: VecDeque<(Instant, u64)>,
}

impl Progress {
    pub(super) fn new(tree: &Path, begun: Instant) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let columns = std::env::var("COLUMNS").ok();
        eprintln!("auditing {}", tree.display());
        Self {
            live: std::io::stderr().is_terminal() && !dumb,
            columns: columns
                .and_then(|text| text.parse().ok())
                .unwrap_or(COLUMNS),
            begun,
            drawn: 0,
            said: None,
            past: VecDeque::new(),
        }
    }

    /// Shows a sample, if it is time to.
    pub(super) fn show(&mut self, sample: &Sample) {
        let now = Instant::now();
        self.past.push_back((now, sample.finished()));
        while self.past.len() > 2 && self.past[0].0 + RATE_OVER < now {
            self.past.pop_front();
        }
        if self.live {
            self.draw(&self.block(sample));
        } else if self.said.is_none_or(|said| said + LINE_EVERY <= now) {
            self.said = Some(now);
            eprintln!("{}", self.sums(sample));
        }
    }

    /// Shows the last sample, which stays.
    pub(super) fn end(&mut self, sample: &Sample) {
        self.draw(&[]);
        self.past.clear();
        self.past.push_back((self.begun, 0));
        self.past.push_back((Instant::now(), sample.finished()));
        eprintln!("{}", self.sums(sample));
    }

    fn sums(&self, sample: &Sample) -> String {
        format!(
            "{:>5.1} s  {} of {} known tasks  jobs {} ({} open)  queued {}  runners {}  retries {} ({} waiting)  {:.0} tasks/s",
            self.begun.elapsed().as_secs_f64(),
            sample.finished(),
            sample.known(),
            sample.jobs.len(),
            sample.jobs.iter().filter(|job| job.is_open()).count(),
            sample.queued(),
            sample.runners(),
            sample.retries(),
            sample.retrying(),
            self.rate(),
        )
    }

    fn block(&self, sample: &Sample) -> Vec<String> {
        let full = (BAR * sample.finished() / sample.known()).min(BAR);
        let part = |count: u64, sign: &str| sign.repeat(usize::try_from(count).unwrap_or(0));
        let mut lines = vec![
            format!(
                "[{}{}] {} of {} known tasks, {:.0} s",
                part(full, "#"),
                part(BAR - full, "-"),
                sample.finished(),
                sample.known(),
                self.begun.elapsed().as_secs_f64()
            ),
            format!(
                "{} jobs, {} queued, {} runners, {} retries ({} waiting), {:.0} tasks/s",
                sample.jobs.len(),
                sample.queued(),
                sample.runners(),
                sample.retries(),
                sample.retrying(),
                self.rate()
            ),
        ];
        lines.extend(sample.jobs.iter().map(Job::line));
        lines
    }

    fn rate(&self) -> f64 {
        let (Some(first), Some(last)) = (self.past.front(), self.past.back()) else {
            return 0.0;
        };
        let seconds = (last.0 - first.0).as_secs_f64();
        let tasks = u32::try_from(last.1 - first.1).unwrap_or(u32::MAX);
        if seconds > 0.0 {
            f64::from(tasks) / seconds
        } else {
            0.0
        }
    }

    /// Draws over what was drawn before.
    fn draw(&mut self, lines: &[String]) {
        let mut text = String::new();
        if self.drawn > 0 {
            let _ = write!(text, "\x1b[{}A\x1b[J", self.drawn);
        }
        for line in lines {
            text.extend(line.chars().take(self.columns - 1));
            text.push('\n');
        }
        self.drawn = lines.len();
        // Nobody can be told that nobody looks.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}
