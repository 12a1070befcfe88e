//! What an instance's store carries: the effects of the batch under way, the channel as the plugin may read it, the
//! bounds, and the inert WASI.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::limits::{MountLimits, SQL_WAIT_MS_MAX};
use crate::plugin::effects::Effects;
use crate::plugin::engine::TICK;
use crate::plugin::fault::Fault;
use crate::plugin::imports::wasi::{self, SharedClock};
use crate::plugin::meter::{Memory, Meter};
use crate::protocol::event::{Batch, MemberId};
use crate::protocol::identity::Identity;
use crate::protocol::sql::{Rows, SqlError, Value};
use crate::telemetry;

/// A future that a [`Channel`] returns.
pub type ReadFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;
type SqlFuture<'a> = ReadFuture<'a, Result<Rows, SqlError>>;

/// The channel an instance serves, as it may read it: everything committed, and everything its own earlier batches
/// wrote that is still on its way to the disk. What the batch under way wrote is added by the instance.
pub trait Channel: Send + Sync {
    /// One value of the state.
    fn get<'a>(&'a self, key: &'a str) -> ReadFuture<'a, Option<Bytes>>;
    /// State entries after `after` in the order, whose keys begin with `prefix`; at most `limit`.
    fn scan<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        descending: bool,
        limit: u32,
    ) -> ReadFuture<'a, Vec<(String, Bytes)>>;
    /// Log entries with `from <= offset < before`, oldest first: offset, time in milliseconds, data.
    fn read_log(&self, from: u64, before: u64, limit: u32) -> ReadFuture<'_, Vec<(u64, u64, Bytes)>>;
    /// Offset of the oldest log entry, and of the next append.
    fn log_bounds(&self) -> (u64, u64);
    /// Bytes of keys and values in the state, as last committed.
    fn state_bytes(&self) -> u64;
    /// The members, as they are after the joins and leaves of the batch under way.
    fn members(&self) -> Vec<(MemberId, Identity)>;
    /// One of them.
    fn member(&self, id: MemberId) -> Option<Identity>;
    /// Runs a statement of the mount.
    fn query<'a>(&'a self, statement: &'a str, parameters: Vec<Value>) -> ReadFuture<'a, Result<Rows, SqlError>>;
    /// Numbers about the mount.
    fn stats(&self) -> Stats;
}

/// Numbers about a mount, for one tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Milliseconds since the broker started.
    pub uptime_ms: u64,
    /// Open connections.
    pub connections: u64,
    /// Different users among them.
    pub users: u64,
    /// Awake channels.
    pub channels: u64,
}

/// What the call under way may do.
pub(super) enum Call {
    /// `route` or `refused`, or no call at all: imports trap.
    Pure,
    /// `open`, or `handle` with this batch.
    Channel { channel: Arc<dyn Channel>, now_ms: u64, batch: Option<Arc<Batch>> },
}

/// The channel of the call under way, its time, and its batch unless the call is `open` or `save`.
type Current<'a> = (&'a Arc<dyn Channel>, u64, Option<&'a Batch>);

/// The data of an instance's store.
pub(super) struct State {
    pub(super) call: Call,
    pub(super) effects: Effects,
    pub(super) limits: Arc<MountLimits>,
    pub(super) log: PluginLog,
    pub(super) clock: SharedClock,
    pub(super) stopwatch: Arc<Stopwatch>,
    pub(super) meter: Meter,
    pub(super) memory: Memory,
    /// How long a call may run before it steps back.
    pub(super) patience: Duration,
    /// How long the call under way waited for statements.
    sql_waited: Duration,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl State {
    pub(super) fn new(limits: Arc<MountLimits>, seed: u64, label: &str, meter: Meter, memory: Memory) -> Self {
        let clock = SharedClock::default();
        let log = PluginLog::new(label, &limits);
        Self {
            call: Call::Pure,
            effects: Effects::default(),
            wasi: wasi::inert(&clock, seed, &log),
            clock,
            log,
            limits,
            stopwatch: Arc::default(),
            meter,
            memory,
            patience: Stopwatch::PATIENCE,
            sql_waited: Duration::ZERO,
            table: ResourceTable::new(),
        }
    }

    /// The channel, its time and the batch under way.
    pub(super) fn channel(&self) -> Result<Current<'_>, Fault> {
        match &self.call {
            Call::Channel { channel, now_ms, batch } => Ok((channel, *now_ms, batch.as_deref())),
            Call::Pure => Err(Fault::refused("an import was called from `route`, `refused` or a start function")),
        }
    }

    /// Answers a read. It counts as an effect, so that their number has a bound; waiting for it is not the plugin's time.
    pub(super) async fn waiting<T>(&mut self, mut read: ReadFuture<'_, T>) -> Result<T, Fault> {
        self.charge(0)?;
        if let Poll::Ready(result) = std::future::poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await {
            return result;
        }
        self.stopwatch.pause();
        let result = read.await;
        self.stopwatch.run();
        result
    }

    /// Answers a statement. However many a call runs, it [waits so long](SQL_WAIT_MS_MAX) and no longer.
    pub(super) async fn waiting_for_sql(&mut self, read: SqlFuture<'_>) -> Result<Result<Rows, SqlError>, Fault> {
        let left = Duration::from_millis(SQL_WAIT_MS_MAX).saturating_sub(self.sql_waited);
        if left.is_zero() {
            self.charge(0)?;
            return Ok(Err(SqlError::Timeout));
        }
        let began = tokio::time::Instant::now();
        let in_time = async move { tokio::time::timeout(left, read).await.unwrap_or(Ok(Err(SqlError::Timeout))) };
        let answer = self.waiting(Box::pin(in_time)).await;
        self.sql_waited += began.elapsed();
        answer
    }

    /// Linear memory, over all memories.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Counts one effect of this many bytes.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), Fault> {
        self.effects.charge(bytes, &self.limits)
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl ResourceLimiter for State {
    fn memory_growing(&mut self, current: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory.bytes().saturating_sub(current).saturating_add(desired);
        // Otherwise the plugin sees -1, as on a machine without memory.
        Ok(total <= self.limits.memory_bytes_max && self.memory.grow_to(total))
    }

    fn table_growing(&mut self, _current: usize, desired: usize, max: Option<usize>) -> wasmtime::Result<bool> {
        Ok(max.is_none_or(|max| desired <= max) && desired <= 100_000)
    }
}

/// How long the call under way has run: without its waits, and without the pauses it has to make. Shared with the futures of
/// those pauses, which set it going again.
#[derive(Default)]
pub(super) struct Stopwatch(std::sync::Mutex<Lap>);

#[derive(Default)]
struct Lap {
    /// Absent while it stands.
    since: Option<Since>,
    ran: Duration,
    patience: Duration,
    in_lane: bool,
}

/// When a lap began. A lap is run by one thread, without a pause.
#[derive(Clone, Copy)]
enum Since {
    /// Of a call that is short so far, by the wall: asking for the thread's time is a system call.
    Wall(Instant),
    /// Of a call that is interrupted for its time: by what the thread itself ran. While others have the processor, or the
    /// system, a plugin does not run.
    Thread(Duration),
}

impl Stopwatch {
    /// A running plugin comes by every tick. What is longer was not the plugin's doing.
    const WALL_MAX: Duration = TICK.saturating_mul(2);
    /// How long a call may run where it began. Then `handle` goes on in the [`lane`](super::lane), and every other call leaves
    /// every other tick to others.
    pub(super) const PATIENCE: Duration = TICK.saturating_mul(2);
    /// The same of a call that others wait for until it has ended, in the line to swap: to step back would only make all of them wait.
    /// Few such calls run at a time. After every tick it lets others run before it goes on, like any call.
    pub(super) const PATIENCE_IN_TURN: Duration = TICK.saturating_mul(10);

    /// Begins a call that may run for so long before it steps back.
    pub(super) fn start(&self, patience: Duration) {
        *self.lock() = Lap { since: Some(Since::Wall(Instant::now())), patience, ..Lap::default() };
    }

    /// Sets it going again.
    pub(super) fn run(&self) {
        let mut lap = self.lock();
        lap.since = Some(if lap.ran < TICK { Since::Wall(Instant::now()) } else { Since::Thread(thread_time()) });
    }

    /// Stops it, and returns what the call ran so far.
    pub(super) fn pause(&self) -> Duration {
        let mut lap = self.lock();
        let since = lap.since.take();
        lap.ran += match since {
            Some(Since::Wall(since)) => since.elapsed().min(Self::WALL_MAX),
            Some(Since::Thread(since)) => thread_time().saturating_sub(since),
            None => Duration::ZERO,
        };
        lap.ran
    }

    /// Whether the call ran longer than it may where it began.
    pub(super) fn is_long(&self) -> bool {
        let lap = self.lock();
        lap.ran > lap.patience
    }

    /// The call goes on in the [`lane`](super::lane), where it need not step back by itself.
    pub(super) fn enter_lane(&self) {
        self.lock().in_lane = true;
    }

    fn steps_back(&self) -> bool {
        let lap = self.lock();
        !lap.in_lane && lap.ran > lap.patience
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Lap> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Processor time of the calling thread.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Gives a store its bounds: memory, handles, bytes per host call, and time.
pub(super) fn bound(store: &mut Store<State>) {
    const HANDLES_MAX: usize = 1_000;
    const HOSTCALL_SLACK_BYTES: usize = 64 << 10;
    let limits = Arc::clone(&store.data().limits);
    store.limiter(|state| state);
    store.set_hostcall_fuel(limits.effect_bytes_max.max(limits.saved_bytes_max) + HOSTCALL_SLACK_BYTES);
    store.set_max_component_handles(HANDLES_MAX);
    store.epoch_deadline_callback(move |mut context| {
        let state = context.data_mut();
        let stopwatch = Arc::clone(&state.stopwatch);
        let ran = stopwatch.pause();
        state.meter.charge(ran);
        if ran >= Duration::from_millis(limits.cpu_ms_max) {
            return Err(Fault::Deadline { cpu_ms_max: limits.cpu_ms_max }.into());
        }
        let turn = state.meter.turn();
        if turn.is_none() && ran < TICK {
            // It happened to be running at a tick, and most such calls end at once: to step back would only make its channel wait.
            stopwatch.run();
            return Ok(UpdateDeadline::Continue(1));
        }
        let pause = async move {
            if let Some(turn) = turn {
                turn.await;
            }
            if stopwatch.steps_back() {
                tokio::time::sleep(TICK).await;
            } else {
                // tokio's own yield lets the runtime look for IO before this task runs again.
                tokio::task::yield_now().await;
            }
            stopwatch.run();
        };
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(pause)))
    });
}

/// Starts the clocks of one call.
pub(super) fn start_clock(store: &mut Store<State>) {
    let state = store.data_mut();
    state.stopwatch.start(state.patience);
    state.sql_waited = Duration::ZERO;
    store.set_epoch_deadline(1);
}

/// Where a plugin's log lines go: the broker's log, so many a second, with the rest counted.
#[derive(Clone)]
pub(super) struct PluginLog(Arc<std::sync::Mutex<LogBucket>>);

struct LogBucket {
    label: Box<str>,
    per_second: u32,
    line_bytes_max: usize,
    left: u32,
    dropped: u64,
    since: Instant,
}

impl PluginLog {
    fn new(label: &str, limits: &MountLimits) -> Self {
        Self(Arc::new(std::sync::Mutex::new(LogBucket {
            label: label.into(),
            per_second: limits.log_lines_per_second_max,
            line_bytes_max: limits.log_line_bytes_max,
            left: limits.log_lines_per_second_max,
            dropped: 0,
            since: Instant::now(),
        })))
    }

    /// Writes a line, or counts it as dropped. A plugin's words stay on their line, and are never interpreted.
    pub(super) fn line(&self, level: tracing::Level, message: &str) {
        // What nobody would see must not take the room of what they would.
        let wanted = match level {
            tracing::Level::ERROR => tracing::enabled!(target: "hotbay::plugin", tracing::Level::ERROR),
            tracing::Level::WARN => tracing::enabled!(target: "hotbay::plugin", tracing::Level::WARN),
            tracing::Level::INFO => tracing::enabled!(target: "hotbay::plugin", tracing::Level::INFO),
            _ => tracing::enabled!(target: "hotbay::plugin", tracing::Level::DEBUG),
        };
        if !wanted && !telemetry::is_followed() {
            return;
        }
        let mut bucket = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if bucket.since.elapsed() >= Duration::from_secs(1) {
            if bucket.dropped > 0 {
                tracing::warn!(target: "hotbay::plugin", channel = %bucket.label, dropped = bucket.dropped, "log lines dropped");
                bucket.dropped = 0;
            }
            bucket.left = bucket.per_second;
            bucket.since = Instant::now();
        }
        if bucket.left == 0 {
            bucket.dropped += 1;
            metrics::counter!("hotbay_plugin_log_lines_dropped_total").increment(1);
            return;
        }
        bucket.left -= 1;
        let mut end = message.len().min(bucket.line_bytes_max);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        let (channel, message) = (&*bucket.label, &message[..end]);
        let word = match level {
            tracing::Level::ERROR => "error",
            tracing::Level::WARN => "warn",
            tracing::Level::INFO => "info",
            _ => "debug",
        };
        telemetry::tell(channel, word, message);
        let message = &*one_line(message);
        match level {
            tracing::Level::ERROR => tracing::error!(target: "hotbay::plugin", channel, message),
            tracing::Level::WARN => tracing::warn!(target: "hotbay::plugin", channel, message),
            tracing::Level::INFO => tracing::info!(target: "hotbay::plugin", channel, message),
            _ => tracing::debug!(target: "hotbay::plugin", channel, message),
        }
    }
}

/// The same words without line breaks and other control characters: in a log of text they would begin a line that says, of whatever channel,
/// what the plugin likes.
fn one_line(message: &str) -> Cow<'_, str> {
    if !message.contains(char::is_control) {
        return Cow::Borrowed(message);
    }
    let mut line = String::with_capacity(message.len() + 16);
    for character in message.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Law: everything has a bound, also how long a call waits for databases, however many statements it runs.
    #[tokio::test(start_paused = true)]
    async fn a_call_waits_so_long_for_statements_and_no_longer() {
        const SLOW: Duration = Duration::from_secs(3);
        let mut state = State::new(Arc::default(), 0, "test", Meter::default(), Memory::default());
        let began = tokio::time::Instant::now();
        let mut answers = Vec::new();

        for _ in 0..1_000 {
            let statement = Box::pin(async {
                tokio::time::sleep(SLOW).await;
                Ok(Ok(Rows::default()))
            });
            answers.push(state.waiting_for_sql(statement).await.unwrap());
        }

        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3);
        assert!(answers[3..].iter().all(|answer| *answer == Err(SqlError::Timeout)));
        assert!(began.elapsed() < Duration::from_millis(SQL_WAIT_MS_MAX) + SLOW, "{:?}", began.elapsed());
    }
}
