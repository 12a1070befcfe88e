//! What members heard: which messages, how often, in which order and how late.

use std::time::{Duration, Instant};

use crate::bench::bars::percentile_ms;
use crate::crowd::{Pace, Sent};

const NOT_YET: u32 = u32::MAX;

/// What one member heard.
pub(crate) struct Diary {
    channel: u32,
    /// From when a message was due until it came, in microseconds, by its number.
    delays_us: Vec<u32>,
    /// The highest number so far, and one.
    next: u32,
    heard: u32,
    twice: u64,
    disordered: u64,
    refused: u64,
    /// Messages of another channel.
    foreign: u64,
    pub(crate) closed: Option<String>,
}

impl Diary {
    pub(crate) fn new(channel: u32) -> Self {
        Self {
            channel,
            delays_us: Vec::new(),
            next: 0,
            heard: 0,
            twice: 0,
            disordered: 0,
            refused: 0,
            foreign: 0,
            closed: None,
        }
    }

    /// Writes a message down. What is neither a number nor a refusal is of the time before.
    pub(crate) fn hear(&mut self, message: &[u8], pace: &Pace) {
        if message.starts_with(b"refused ") {
            self.refused += 1;
            return;
        }
        let Some((channel, number)) = numbers(message) else { return };
        if channel != self.channel {
            self.foreign += 1;
            return;
        }
        let late = Instant::now().saturating_duration_since(pace.due(channel, number));
        let at = number as usize;
        if self.delays_us.len() <= at {
            self.delays_us.resize(at + 1, NOT_YET);
        }
        if self.delays_us[at] != NOT_YET {
            self.twice += 1;
            return;
        }
        self.delays_us[at] = u32::try_from(late.as_micros()).unwrap_or(NOT_YET - 1);
        self.disordered += u64::from(number < self.next);
        self.next = self.next.max(number + 1);
        self.heard += 1;
    }

    /// Whether it has so many messages.
    pub(crate) fn has(&self, turns: u32) -> bool {
        self.heard >= turns
    }

    fn delay(&self, number: u32) -> Option<Duration> {
        let delay_us = self.delays_us.get(number as usize).filter(|delay_us| **delay_us != NOT_YET)?;
        Some(Duration::from_micros(u64::from(*delay_us)))
    }
}

/// Channel and number, in `<channel>:<number> …`, perhaps after one word.
fn numbers(message: &[u8]) -> Option<(u32, u32)> {
    let text = str::from_utf8(message).ok()?;
    let mut words = text.splitn(3, ' ');
    let first = words.next()?;
    let word = if first.contains(':') { first } else { words.next()? };
    let (channel, number) = word.split_once(':')?;
    Some((channel.parse().ok()?, number.parse().ok()?))
}

/// A time that is looked at: the messages that were due in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) from: Instant,
    pub(crate) until: Instant,
}

impl Window {
    /// From a time until now.
    pub(crate) fn since(from: Instant) -> Self {
        Self { from, until: Instant::now() }
    }
}

/// What all members heard.
pub(crate) struct Heard {
    pub(crate) diaries: Vec<Diary>,
    pub(crate) pace: Pace,
    pub(crate) sent: Sent,
    pub(crate) size: u32,
}

/// What must not be.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    pub(crate) closed: u64,
    pub(crate) missing: u64,
    pub(crate) twice: u64,
    pub(crate) disordered: u64,
    pub(crate) refused: u64,
    pub(crate) foreign: u64,
    /// How the first connection that was closed ended.
    pub(crate) how: Option<String>,
}

impl Heard {
    /// Over all members.
    pub(crate) fn losses(&self) -> Losses {
        let mut all = Losses::default();
        for diary in &self.diaries {
            all.closed += u64::from(diary.closed.is_some());
            all.missing += u64::from(self.sent.turns.saturating_sub(diary.heard));
            all.twice += diary.twice;
            all.disordered += diary.disordered;
            all.refused += diary.refused;
            all.foreign += diary.foreign;
            all.how = all.how.or_else(|| diary.closed.clone());
        }
        all
    }

    /// Messages that were sent, and those that came.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let sent = u64::from(self.sent.turns) * u64::from(self.pace.channels);
        (sent, self.diaries.iter().map(|diary| u64::from(diary.heard)).sum())
    }

    /// The numbers of a channel's messages that were due in a window.
    fn due_in(&self, window: Window, channel: u32) -> std::ops::Range<u32> {
        let first = self.pace.due(channel, 0);
        let interval = self.pace.interval().as_nanos();
        let at = |time: Instant| time.saturating_duration_since(first).as_nanos().div_ceil(interval) as u32;
        at(window.from)..at(window.until).min(self.sent.turns)
    }

    fn those_of<'a>(&'a self, of: &'a dyn Fn(u32) -> bool) -> impl Iterator<Item = &'a Diary> {
        self.diaries.iter().filter(move |diary| of(diary.channel))
    }

    /// How late messages of some channels came, sorted.
    pub(crate) fn delays(&self, windows: &[Window], of: &dyn Fn(u32) -> bool) -> Vec<Duration> {
        let mut delays: Vec<Duration> = Vec::new();
        for diary in self.those_of(of) {
            let numbers = windows.iter().flat_map(|window| self.due_in(*window, diary.channel));
            delays.extend(numbers.filter_map(|number| diary.delay(number)));
        }
        delays.sort_unstable();
        delays
    }

    /// A percentile of them, in milliseconds.
    pub(crate) fn delay_ms(&self, windows: &[Window], percent: f64) -> f64 {
        percentile_ms(&self.delays(windows, &|_| true), percent)
    }

    /// The longest time between two messages, beyond the interval at which they were sent, of each member in each window; sorted.
    pub(crate) fn gaps(&self, windows: &[Window]) -> Vec<Duration> {
        let mut gaps = Vec::with_capacity(windows.len() * self.diaries.len());
        for diary in &self.diaries {
            for window in windows {
                let numbers = self.due_in(*window, diary.channel);
                // Both came an interval and the difference of their delays apart.
                let beyond = numbers.filter_map(|number| {
                    Some(diary.delay(number)?.saturating_sub(diary.delay(number.checked_sub(1)?)?))
                });
                gaps.extend(beyond.max());
            }
        }
        gaps.sort_unstable();
        gaps
    }
}
