//! Progress on stderr while a verb waits; nothing where no person looks.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::console::Console;

/// A line that shows how far it is.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A line that says what is waited for.
    pub fn new(console: &Console, what: &str) -> Self {
        let target = if console.live {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(style("{spinner} {prefix} {msg} ({elapsed})"));
        bar.set_prefix(what.to_owned());
        if console.live {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self(bar)
    }

    /// Says how far it is: `done` of `total` (unless 0), and more in words.
    pub fn show(&self, done: u64, total: u64, text: &str) {
        if total > 0 && self.0.length().is_none() {
            self.0.set_style(style(
                "{spinner} {prefix} [{bar:24}] {pos}/{len} {msg} ({elapsed})",
            ));
        }
        if total > 0 {
            self.0.set_length(total);
            self.0.set_position(done);
        }
        self.0.set_message(text.to_owned());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .progress_chars("=> ")
}
