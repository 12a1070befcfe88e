//! What is shown while a plugin is worked on: news, what plugins log, and the wire, the latter at a rate that somebody can read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::cli::output;
use crate::cli::remote::show::{Look, paint, plain};
use crate::telemetry::PluginLine;

/// Lines of the wire that are shown in a second.
const LINES_PER_SECOND_MAX: u32 = 100;

/// How much of the wire is shown.
pub(super) struct Terminal(Mutex<Second>);

/// The second that goes on.
struct Second {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Default for Terminal {
    fn default() -> Self {
        Self(Mutex::new(Second { since: Instant::now(), lines: 0, left_out: 0 }))
    }
}

impl Second {
    /// Counts a line. Whether it is shown, and how many before it were not that nobody was told of.
    fn count(&mut self, now: Instant) -> (bool, u64) {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            (self.since, self.lines) = (now, 0);
        }
        if self.lines >= LINES_PER_SECOND_MAX {
            self.left_out += 1;
            return (false, 0);
        }
        self.lines += 1;
        (true, std::mem::take(&mut self.left_out))
    }
}

impl Terminal {
    /// Shows a line of the wire, if there were not too many.
    pub(super) fn wire(&self, line: impl FnOnce() -> String) {
        let (is_shown, left_out) = self.0.lock().unwrap_or_else(PoisonError::into_inner).count(Instant::now());
        if left_out > 0 {
            say(Look::Faint, &format!("{left_out} lines of the wire were too many and are left out"));
        }
        if is_shown {
            say(Look::Plain, &line());
        }
    }
}

/// Shows what plugins log, until nobody can log any more.
pub(super) async fn follow(mut lines: Receiver<Arc<PluginLine>>) {
    loop {
        match lines.recv().await {
            Ok(line) => {
                let look = if matches!(line.level, "error" | "warn") { Look::Red } else { Look::Plain };
                let channel = line.channel.split_once('/').map_or(&*line.channel, |(_, name)| name);
                say(look, &format!("log  {:<5} {channel}: {}", line.level, line.message));
            }
            Err(RecvError::Lagged(missed)) => {
                say(Look::Red, &format!("{missed} log lines came too fast and are missing"));
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// Shows a line, or several.
pub(super) fn say(look: Look, line: &str) {
    output::line(paint(look, &plain(line)));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a flood is cut, and what was cut is told with the next line.
    #[test]
    fn lines_over_the_rate_are_counted_and_told_later() {
        let begun = Instant::now();
        let mut second = Second { since: begun, lines: 0, left_out: 0 };

        let shown = (0..LINES_PER_SECOND_MAX + 5).filter(|_| second.count(begun).0).count();

        assert_eq!(shown, LINES_PER_SECOND_MAX as usize);
        assert_eq!(second.count(begun + Duration::from_secs(1)), (true, 5));
        assert_eq!(second.count(begun + Duration::from_secs(1)), (true, 0));
    }
}
