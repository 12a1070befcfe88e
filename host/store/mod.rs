//! What survives: channels with their state, log and timers, answers kept for retries, API keys, and the registry ([`catalog`]).
//!
//! [`Store`] is the one door to it. SQLite ([`sqlite`]) is embedded and the default. Writes of a channel go through
//! [`Store::commit`], which groups the batches of many channels into one transaction; nothing a batch did is shown to
//! anybody before its commit has come back. Every commit carries the channel's fence, its epoch and
//! sequence number, and is refused if another home has taken the channel since.

pub mod catalog;
mod committer;
mod lock;
pub mod sqlite;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::protocol::name::ChannelName;
use crate::protocol::overlay::Page;

pub use crate::store::catalog::Catalog;
pub use crate::store::lock::{DataLock, DataLockError};

/// A future that a [`Store`] returns; boxed because stores are chosen at run time.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A store. All methods are safe to cancel, except that a commit once submitted may still take hold.
pub trait Store: Send + Sync + 'static {
    /// Takes a channel over: creates its row if there is none, raises its epoch, and takes away the saved memory of the
    /// instance before. Concurrent calls for different channels are grouped into one transaction.
    fn acquire<'a>(&'a self, channel: &'a ChannelName, owner: &'a str) -> StoreFuture<'a, Acquired>;

    /// Writes a batch. Resolves when it is as durable as it asked to be. `StoreError::Fenced` means that another home
    /// has taken the channel and nothing was written.
    ///
    /// If the database failed in the midst of a commit (`Io`, `Corrupt`), its outcome may be unknown. Repeating it is safe:
    /// the implementation finds out by the sequence number whether it took hold. So after an error that is
    /// [`retryable`](StoreError::retryable) a caller either repeats the very same commit or gives the channel up and
    /// acquires it anew; it never sends other writes under the same fence, which could be taken for done.
    ///
    /// A commit may be sent before the one before it was answered; their order is that in which the futures are first
    /// polled. If the first one fails, this one fails with it or is
    /// [`OutOfOrder`](StoreError::OutOfOrder); repeat them in order.
    fn commit(&self, commit: Arc<Commit>) -> StoreFuture<'_, Committed>;

    /// One value of a channel's state, as last committed.
    fn get<'a>(&'a self, channel: ChannelKey, key: &'a str) -> StoreFuture<'a, Option<Bytes>>;

    /// The entries whose keys begin with `prefix` and come after `after` in the order, at most `limit` and about
    /// [`READ_BYTES_MAX`](crate::limits::READ_BYTES_MAX) bytes, but at least one if there is one; and whether that is all.
    fn scan<'a>(
        &'a self,
        channel: ChannelKey,
        prefix: &'a str,
        after: Option<&'a str>,
        order: Order,
        limit: u32,
    ) -> StoreFuture<'a, Page>;

    /// Log entries with `from <= offset < before`, oldest first, at most `limit` and about
    /// [`READ_BYTES_MAX`](crate::limits::READ_BYTES_MAX) bytes, but at least one if there is one. Offsets have no gaps,
    /// so an answer that ends before the offset it was asked for ended early.
    fn read_log(&self, channel: ChannelKey, from: u64, before: u64, limit: u32) -> StoreFuture<'_, Vec<LogEntry>>;

    /// A page of the channels that have timers with `due_ms <= until_ms`, at most `limit`: who must be woken. Ordered by due
    /// time, each once with its earliest; a later page may have it again. `after` is where the page before ended.
    fn due_timers(&self, until_ms: u64, after: Option<DueMark>, limit: u32) -> StoreFuture<'_, DuePage>;

    /// The answer given before to this sender's idempotency key on this channel, if it is younger than
    /// [`IDEMPOTENCY_WINDOW_MS`](crate::limits::IDEMPOTENCY_WINDOW_MS) at `now_ms`.
    fn answer<'a>(
        &'a self,
        channel: &'a ChannelName,
        sender: &'a str,
        key: &'a str,
        now_ms: u64,
    ) -> StoreFuture<'a, Option<Bytes>>;

    /// The API key with this hash, unless it was revoked. Keys come and go by [`Catalog::change`].
    fn find_key<'a>(&'a self, hash: &'a [u8; 32]) -> StoreFuture<'a, Option<ApiKey>>;

    /// Tenants, keys, plugins and all that the registry keeps.
    fn catalog(&self) -> &dyn Catalog;

    /// Whether writes work right now: tries one. For `/readyz`.
    fn check(&self) -> StoreFuture<'_, ()>;

    /// Waits for commits under way, then closes. Later calls answer `StoreError::Closed`.
    fn close(&self) -> StoreFuture<'_, ()>;
}

/// Names a channel's rows within the store; stable for the life of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChannelKey(pub i64);

/// The right to write to a channel: valid as long as `epoch` and `seq` match the channel's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// Whose rows.
    pub channel: ChannelKey,
    /// Raised by every [`Store::acquire`].
    pub epoch: u64,
    /// Raised by one by every commit of this epoch; 0 after `acquire`.
    pub seq: u64,
}

/// What [`Store::acquire`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquired {
    /// The right to write.
    pub fence: Fence,
    /// Offset of the oldest log entry kept, and of the next append. `(1, 1)` for a new channel.
    pub log: (u64, u64),
    /// Bytes of keys and values in the state.
    pub state_bytes: u64,
    /// Bytes of the log's entries, also of trimmed ones that are not deleted yet.
    pub log_bytes: u64,
    /// What the instance before saved when it went to sleep. Absent after a crash, if anything was committed after it, or
    /// if it is damaged. Taken: the next `acquire` does not find it again.
    pub saved: Option<Bytes>,
    /// Timers that are set, by due time: name and due time in milliseconds since the Unix epoch.
    pub timers: Vec<(String, u64)>,
    /// Digest (SHA-256) of the plugin version this channel is pinned to: the one its last [`Writes::version`] named. Absent
    /// if none ever did.
    pub version: Option<[u8; 32]>,
}

/// A batch's writes under a fence.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The fence *before* this commit; the commit raises `seq` by one.
    pub fence: Fence,
    /// How durable it must be before the commit resolves.
    pub durability: Durability,
    /// What to write.
    pub writes: Writes,
}

/// When a commit counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// On disk: survives power loss.
    #[default]
    Fsync,
    /// Handed to the operating system: survives the process.
    Os,
    /// Nothing waits for it. The store writes it like `Os`; it is the caller who does not wait.
    None,
}

/// What a batch writes. Applied in the order of the fields; each list has at most one entry per key, name or offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Writes {
    /// State values to set (`Some`) or delete (`None`).
    pub state: Vec<(String, Option<Bytes>)>,
    /// Log entries to append; offsets follow the log's end without gaps.
    pub appends: Vec<LogEntry>,
    /// Log entries to write over; passed over if trimmed meanwhile.
    pub replaces: Vec<(u64, Bytes)>,
    /// Forget the log entries before this offset.
    pub trim_before: Option<u64>,
    /// Timers to set (due time in milliseconds since the Unix epoch) or cancel (`None`).
    pub timers: Vec<(String, Option<u64>)>,
    /// Answers to keep for retries.
    pub answers: Vec<Answer>,
    /// The memory of an instance that goes to sleep.
    pub saved: Option<Bytes>,
    /// Pins the channel to the plugin version with this digest (SHA-256): what was committed up to here is that version's.
    /// Absent leaves it as it is.
    pub version: Option<[u8; 32]>,
}

impl Writes {
    /// Whether there is nothing to write, so that no commit is needed.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    /// Bytes this holds in memory, roughly; for bounding groups.
    pub fn bytes(&self) -> usize {
        let state = self.state.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len));
        let appends = self.appends.iter().map(|entry| entry.data.len());
        let replaces = self.replaces.iter().map(|(_, data)| data.len());
        let timers = self.timers.iter().map(|(name, _)| name.len());
        let answers = self.answers.iter().map(|one| one.sender.len() + one.key.len() + one.answer.len());
        let lists = state.chain(appends).chain(replaces).chain(timers).chain(answers);
        lists.sum::<usize>() + self.saved.as_ref().map_or(0, Bytes::len)
    }
}

/// What a commit reports back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Bytes of keys and values in the state, after the commit.
    pub state_bytes: u64,
    /// Bytes of the log's entries, after the commit and those that were written together with it; also of trimmed entries that are not
    /// deleted yet.
    pub log_bytes: u64,
}

/// An entry of a channel's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Counted from 1, without gaps.
    pub offset: u64,
    /// Time of the batch that appended it, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The entry.
    pub data: Bytes,
}

/// An answer kept for retries with the same idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Who published, for example the name of the API key.
    pub sender: String,
    /// The idempotency key.
    pub key: String,
    /// The answer, as bytes only its writer understands.
    pub answer: Bytes,
    /// When it was given, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// A page of [`Store::due_timers`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DuePage {
    /// By due time.
    pub timers: Vec<DueTimer>,
    /// Channels whose names cannot be ones, so that nobody can be woken.
    pub skipped: u64,
    /// Where the next page begins; absent if this is the last one.
    pub next: Option<DueMark>,
}

/// A place in the order of [`Store::due_timers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueMark {
    /// A timer's due time.
    pub due_ms: u64,
    /// Its channel.
    pub channel: ChannelKey,
}

/// A timer that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueTimer {
    /// Whose timer.
    pub channel: ChannelName,
    /// In milliseconds since the Unix epoch.
    pub due_ms: u64,
}

/// An API key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Whose.
    pub tenant: String,
    /// Unique within the tenant; plugins see it as the source of a publication.
    pub name: String,
    /// SHA-256 of the secret. The secret is 256 random bits, so a slow hash would add nothing.
    pub hash: [u8; 32],
    /// In milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Whether it may administer the broker.
    pub operator: bool,
}

/// The direction of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By the bytes of the key.
    Ascending,
    /// The other way round.
    Descending,
}

/// Why the store could not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Another home has taken the channel; the claim is lost.
    #[error("the channel was taken over by another home (its epoch or sequence number moved on)")]
    Fenced,
    /// The commit before this one of the same epoch has not taken hold (yet): repeat that one first.
    #[error("commit {found} of this epoch cannot take hold before commit {expected}; repeat them in order")]
    OutOfOrder {
        /// The sequence number of the commit to come next.
        expected: u64,
        /// The sequence number of the refused commit.
        found: u64,
    },
    /// No space for writing.
    #[error("the disk with the database is full ({detail}); free space, writing goes on by itself")]
    Full {
        /// The database's own words.
        detail: String,
    },
    /// Another process holds a lock on the database.
    #[error("the database is locked by another process ({detail}); writing goes on by itself when it lets go")]
    Busy {
        /// The database's own words.
        detail: String,
    },
    /// The database is damaged or is not one.
    #[error(
        "the database file is damaged or not a database ({detail}); stop the broker and restore it from a backup, see the README"
    )]
    Corrupt {
        /// The database's own words.
        detail: String,
    },
    /// Reading or writing failed otherwise.
    #[error("the database cannot be read or written ({detail})")]
    Io {
        /// The database's own words.
        detail: String,
    },
    /// A value the database refuses, for example a key that exists already.
    #[error("the database refused the values ({detail})")]
    Constraint {
        /// The database's own words.
        detail: String,
    },
    /// The schema is newer than this program, or a migration failed.
    #[error("the database schema does not fit this version of hotbay ({detail})")]
    Schema {
        /// The database's own words.
        detail: String,
    },
    /// Closed by [`Store::close`].
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether the cause may go away, so that the same call may succeed later.
    pub fn retryable(&self) -> bool {
        matches!(
            self,
            Self::OutOfOrder { .. } | Self::Full { .. } | Self::Busy { .. } | Self::Corrupt { .. } | Self::Io { .. }
        )
    }

    /// A short name of the cause, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Fenced => "fenced",
            Self::OutOfOrder { .. } => "out_of_order",
            Self::Full { .. } => "full",
            Self::Busy { .. } => "busy",
            Self::Corrupt { .. } => "corrupt",
            Self::Io { .. } => "io",
            Self::Constraint { .. } => "constraint",
            Self::Schema { .. } => "schema",
            Self::Closed => "closed",
        }
    }
}

/// Says what the store's metrics mean. Call once, after the recorder is installed.
pub fn describe_metrics() {
    metrics::describe_histogram!(
        "hotbay_commit_seconds",
        metrics::Unit::Seconds,
        "Time from the submission of a channel's commit to its answer, of those that took hold"
    );
    metrics::describe_histogram!("hotbay_commit_group_batches", "Commits written in one transaction");
    metrics::describe_counter!("hotbay_store_errors_total", "Requests to the store that failed, by kind of cause");
}
