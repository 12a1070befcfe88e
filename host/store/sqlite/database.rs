//! The database file: how it is created, opened for writing and for reading, and opened anew after a failure.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqlitePool};

use super::error::{from_io, from_migration, from_sqlx};
use super::write::Writer;
use crate::store::StoreError;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/sqlite");

/// How long SQLite itself waits for another process's lock. Short: who calls the store decides about retries.
const BUSY_TIMEOUT: Duration = Duration::from_millis(250);
/// Connections for reading; each is a thread with a page cache.
const READERS_MAX: u32 = 4;
/// How long a read waits for one of them.
const READER_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long an unused one is kept.
const READER_IDLE_MAX: Duration = Duration::from_mins(1);
/// Page cache of the writer and of each reader, in KiB.
const CACHE_KIB: (u32, u32) = (8 << 10, 2 << 10);
/// Pages of the write-ahead log (4 KiB each) after which a commit merges it into the file. Much larger than the default:
/// busy channels write the same few pages again and again, and each is merged once.
const CHECKPOINT_PAGES: u32 = 4_000;
/// What is left of the file of the write-ahead log after it grew for some reason, in bytes.
const JOURNAL_BYTES_MAX: u32 = 64 << 20;
/// Rows that SQLite's thread of the writer and of each reader prepares ahead. A reader's rows may hold 1 MiB each.
const ROWS_AHEAD: (usize, usize) = (256, 8);

/// `PRAGMA synchronous` of the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Synchronous {
    /// Each transaction is on disk when it is committed.
    Full,
    /// Each transaction is with the operating system.
    Normal,
}

impl Synchronous {
    pub(super) fn pragma(self) -> &'static str {
        match self {
            Self::Full => "PRAGMA synchronous = FULL",
            Self::Normal => "PRAGMA synchronous = NORMAL",
        }
    }
}

/// A database file and the connections for reading it. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Database {
    path: Arc<Path>,
    readers: Arc<Mutex<SqlitePool>>,
    /// Makes the disk full, for tests.
    #[cfg(test)]
    pub(super) pages_max: Arc<std::sync::atomic::AtomicU32>,
}

impl Database {
    /// Creates the file and its folder if they are missing, readable by this user only, and brings the schema up to date.
    pub(super) async fn open(path: &Path) -> Result<(Self, Writer), StoreError> {
        let owned = path.to_owned();
        // The file system may be slow, and these calls block.
        tokio::task::spawn_blocking(move || create(&owned))
            .await
            .map_err(|error| StoreError::Io { detail: format!("{}: {error}", path.display()) })??;
        let writer = connect(path).await?;
        let database = Self {
            path: path.into(),
            readers: Arc::new(Mutex::new(readers(path))),
            #[cfg(test)]
            pages_max: Arc::default(),
        };
        Ok((database, writer))
    }

    /// Opens anew after a failure. Does not create the file: without it, an operator has work to do.
    pub(super) async fn reopen(&self) -> Result<Writer, StoreError> {
        // The old readers may have the file open that was replaced. Reads under way finish on the old pool.
        *self.readers.lock().unwrap_or_else(PoisonError::into_inner) = readers(&self.path);
        let mut writer = connect(&self.path).await?;
        // A commit whose fsync failed may be in the write-ahead log, whole, though nobody was told so. If it is, it takes
        // hold now, and its repetition will be told so: so it must be on disk first.
        sqlx::query("PRAGMA wal_checkpoint(FULL)")
            .execute(&mut writer.connection)
            .await
            .map_err(|error| self.error(&error))?;
        tracing::info!(path = %self.path.display(), "the database is open again");
        Ok(writer)
    }

    pub(super) fn readers(&self) -> SqlitePool {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Applies [`Self::pages_max`].
    #[cfg(test)]
    pub(super) async fn limit_pages(&self, connection: &mut sqlx::SqliteConnection) {
        let pages = self.pages_max.load(std::sync::atomic::Ordering::Relaxed);
        if pages > 0 {
            let pragma = format!("PRAGMA max_page_count = {pages}");
            sqlx::query(sqlx::AssertSqlSafe(pragma)).execute(connection).await.unwrap();
        }
    }

    pub(super) async fn close_readers(&self) {
        self.readers().close().await;
    }

    pub(super) fn error(&self, error: &sqlx::Error) -> StoreError {
        from_sqlx(error, &self.path)
    }
}

fn create(path: &Path) -> Result<(), StoreError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(|error| from_io(&error, "cannot create the folder", &folder))?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        // The file's name must be on disk before anything in the file counts.
        Ok(_) => File::open(&folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| from_io(&error, "cannot sync the folder", &folder)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(from_io(&error, "cannot create the file", path)),
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("temp_store", "MEMORY")
        .pragma("cell_size_check", "ON")
        .pragma("trusted_schema", "OFF")
        .disable_statement_logging()
}

async fn connect(path: &Path) -> Result<Writer, StoreError> {
    let options = options(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("cache_size", format!("-{}", CACHE_KIB.0))
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES.to_string())
        .pragma("journal_size_limit", JOURNAL_BYTES_MAX.to_string())
        .statement_cache_capacity(200)
        .row_buffer_size(ROWS_AHEAD.0)
        .thread_name(|_| "store-writer".to_owned());
    let mut connection = options.connect().await.map_err(|error| from_sqlx(&error, path))?;
    MIGRATIONS.run_direct(None, &mut connection, false).await.map_err(|error| from_migration(&error, path))?;
    Ok(Writer { connection, synchronous: Synchronous::Full })
}

fn readers(path: &Path) -> SqlitePool {
    let options = options(path)
        .read_only(true)
        .pragma("cache_size", format!("-{}", CACHE_KIB.1))
        .row_buffer_size(ROWS_AHEAD.1)
        .thread_name(|id| format!("store-reader-{id}"));
    SqlitePoolOptions::new()
        .max_connections(READERS_MAX)
        .acquire_timeout(READER_WAIT_MAX)
        .idle_timeout(READER_IDLE_MAX)
        .test_before_acquire(false)
        .connect_lazy_with(options)
}
