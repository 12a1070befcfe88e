//! A locked, full, damaged, foreign or missing file: a clear error, nothing acknowledged, and recovery when the cause is gone.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use sqlx::{Connection, Executor};

use super::{Fixture, after, appends, commit, name, offsets, put};
use crate::store::sqlite::SqliteStore;
use crate::store::{Commit, Durability, Store, StoreError, Writes};

#[tokio::test]
async fn a_lock_of_another_program_is_busy_until_it_lets_go() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;
    let mut stranger = fixture.stranger().await;
    stranger.execute("BEGIN IMMEDIATE").await.unwrap();

    let both = tokio::join!(fixture.commit(acquired.fence, appends(1..=1)), fixture.store.check());
    assert!(matches!(both, (Err(StoreError::Busy { .. }), Err(StoreError::Busy { .. }))), "{both:?}");
    assert_eq!(fixture.log(&acquired).await, [], "reading goes on, and finds nothing of it");

    stranger.execute("ROLLBACK").await.unwrap();
    fixture.store.check().await.unwrap();
    fixture.commit(acquired.fence, appends(1..=1)).await.unwrap();
    assert_eq!(offsets(&fixture.log(&acquired).await), [1]);
}

/// Goal: callers that queue behind a locked group are not kept waiting for the lock one group after the other.
#[tokio::test]
async fn a_lock_refuses_all_who_wait() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;
    let mut stranger = fixture.stranger().await;
    stranger.execute("BEGIN IMMEDIATE").await.unwrap();

    let commits = (0..3_000).map(|seq| fixture.commit(after(&acquired, seq), put("key", "value")));
    let results = futures_util::future::join_all(commits).await;

    assert!(results.iter().all(|result| matches!(result, Err(StoreError::Busy { .. }))));
}

#[tokio::test]
async fn a_full_disk_acknowledges_nothing_and_recovers() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;
    let large = Bytes::from(vec![b'x'; 1 << 20]);
    let writes = Writes { state: vec![("large".to_owned(), Some(large.clone()))], ..appends(1..=1) };
    fixture.store.pages_max().store(50, Ordering::Relaxed);

    let full = fixture.commit(acquired.fence, writes.clone()).await;
    assert!(matches!(full, Err(StoreError::Full { .. })), "{full:?}");
    assert_eq!(fixture.log(&acquired).await, []);
    let small = fixture.commit(acquired.fence, writes.clone()).await;
    assert!(matches!(small, Err(StoreError::Full { .. })), "{small:?}");

    fixture.store.pages_max().store(100_000, Ordering::Relaxed);
    fixture.commit(acquired.fence, writes).await.unwrap();
    assert_eq!(offsets(&fixture.log(&acquired).await), [1]);
    assert_eq!(fixture.store.get(acquired.fence.channel, "large").await.unwrap(), Some(large));
}

#[tokio::test]
async fn a_file_damaged_at_run_time_is_corrupt_until_it_is_restored() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;
    fixture.commit(acquired.fence, appends(1..=3)).await.unwrap();
    // Everything is merged into the file, and the writer's page cache is out of date.
    let mut stranger = fixture.stranger().await;
    stranger.execute("CREATE TABLE strange (x); PRAGMA wal_checkpoint(TRUNCATE)").await.unwrap();
    stranger.close().await.unwrap();
    let good = std::fs::read(fixture.path()).unwrap();
    std::fs::write(fixture.path(), vec![0xa5; good.len()]).unwrap();

    for _ in 0..2 {
        let written = fixture.commit(after(&acquired, 1), appends(4..=4)).await;
        assert!(matches!(written, Err(StoreError::Corrupt { .. })), "{written:?}");
        let read = fixture.store.get(acquired.fence.channel, "key").await;
        assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
    }

    std::fs::write(fixture.path(), good).unwrap();
    fixture.commit(after(&acquired, 1), appends(4..=4)).await.unwrap();
    assert_eq!(offsets(&fixture.log(&acquired).await), [1, 2, 3, 4]);
}

#[tokio::test]
async fn what_is_not_a_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    let text = "This is not a database. ".repeat(1_000);
    std::fs::write(&path, &text).unwrap();

    let opened = SqliteStore::open(&path).await;

    assert!(matches!(opened, Err(StoreError::Corrupt { .. })), "{opened:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_damaged_file_is_refused_at_open() {
    let fixture = Fixture::new().await;
    fixture.store.close().await.unwrap();
    let mut bytes = std::fs::read(fixture.path()).unwrap();
    bytes[100..4_096].fill(0xa5);
    std::fs::write(fixture.path(), bytes).unwrap();

    let opened = SqliteStore::open(&fixture.path()).await;

    assert!(matches!(opened, Err(StoreError::Corrupt { .. })), "{opened:?}");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let fixture = Fixture::new().await;
    fixture.store.close().await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9999, 'from the future', TRUE, x'00', 0)";
    fixture.stranger().await.execute(newer).await.unwrap();

    let opened = SqliteStore::open(&fixture.path()).await;

    let message = opened.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(message.contains("newer version, with migration 9999"), "{message}");
}

#[tokio::test]
async fn a_path_that_cannot_be_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();

    for path in ["file/below/hotbay.sqlite", "."] {
        let opened = SqliteStore::open(&folder.path().join(path)).await;

        let Err(StoreError::Io { detail }) = opened else { unreachable!("{path}: {opened:?}") };
        assert!(detail.contains(folder.path().to_str().unwrap()), "{detail}");
    }
}

#[tokio::test]
async fn a_missing_file_is_not_made_anew_at_run_time() {
    let fixture = Fixture::new().await;
    fixture.store.close().await.unwrap();
    let (database, writer) = super::super::database::Database::open(&fixture.path()).await.unwrap();
    writer.connection.close().await.unwrap();
    std::fs::remove_file(fixture.path()).unwrap();

    let reopened = database.reopen().await;

    assert!(matches!(reopened, Err(StoreError::Io { .. })));
    assert!(!fixture.path().exists());
}

#[tokio::test]
async fn files_are_created_with_their_folder_for_this_user_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/data/hotbay.sqlite");

    let store = SqliteStore::open(&path).await.unwrap();
    store.acquire(&name("room:1"), "test").await.unwrap();

    for file in ["hotbay.sqlite", "hotbay.sqlite-wal", "hotbay.sqlite-shm"] {
        let mode = path.with_file_name(file).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert_eq!(path.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

/// Goal: what was acknowledged is in the files at that moment, whatever the durability.
/// Method: copy them while the store is open, as if the process had died, and open the copy.
#[tokio::test]
async fn a_copy_of_the_files_has_all_that_was_acknowledged() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;
    for (seq, durability) in
        [Durability::Fsync, Durability::Os, Durability::None, Durability::Fsync].into_iter().enumerate()
    {
        let seq = seq as u64;
        let writes = appends(seq * 5 + 1..=seq * 5 + 5);
        fixture.store.commit(Commit { fence: after(&acquired, seq), durability, writes }.into()).await.unwrap();

        let copy = fixture.folder.path().join(format!("copy-{seq}"));
        std::fs::create_dir(&copy).unwrap();
        for file in ["test.sqlite", "test.sqlite-wal"] {
            std::fs::copy(fixture.path().with_file_name(file), copy.join(file)).unwrap();
        }
        let store = SqliteStore::open(&copy.join("test.sqlite")).await.unwrap();
        let found = store.acquire(&name("room:1"), "test").await.unwrap();
        assert_eq!((found.fence.epoch, found.log), (2, (1, seq * 5 + 6)));
        assert_eq!(store.read_log(found.fence.channel, 1, 100, 100).await.unwrap().len() as u64, seq * 5 + 5);
    }
}

/// The last connection to a file merges its write-ahead log. A store that is dropped lets go of its connections by and by, so
/// only one that nobody else opened says anything here.
#[tokio::test]
async fn a_closed_store_leaves_one_file_and_can_be_opened_again() {
    let Fixture { folder, store } = Fixture::new().await;
    let path = folder.path().join("test.sqlite");
    let acquired = store.acquire(&name("room:1"), "test").await.unwrap();
    store.commit(commit(acquired.fence, appends(1..=2))).await.unwrap();
    assert!(path.with_file_name("test.sqlite-wal").exists());

    store.close().await.unwrap();

    assert!(!path.with_file_name("test.sqlite-wal").exists(), "merged into the file");
    let store = SqliteStore::open(&path).await.unwrap();
    let again = store.acquire(&name("room:1"), "test").await.unwrap();
    assert_eq!((again.fence.epoch, again.log), (2, (1, 3)));
}

#[tokio::test]
async fn a_dropped_store_can_be_opened_again() {
    let Fixture { folder, store } = Fixture::new().await;
    let path = folder.path().join("test.sqlite");
    let acquired = store.acquire(&name("room:1"), "test").await.unwrap();
    store.commit(commit(acquired.fence, appends(1..=2))).await.unwrap();

    drop(store);

    let store = SqliteStore::open(&path).await.unwrap();
    let again = store.acquire(&name("room:1"), "test").await.unwrap();
    assert_eq!((again.fence.epoch, again.log), (2, (1, 3)));
}

#[tokio::test]
async fn closing_writes_what_waits_and_then_refuses() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;

    let (commit, closed, again) =
        tokio::join!(fixture.commit(acquired.fence, appends(1..=1)), fixture.store.close(), fixture.store.close());
    let late = fixture.commit(after(&acquired, 1), appends(2..=2)).await;
    let read = fixture.store.get(acquired.fence.channel, "key").await;

    assert!(commit.is_ok() && closed.is_ok() && again.is_ok());
    assert!(matches!(late, Err(StoreError::Closed)), "{late:?}");
    assert!(matches!(read, Err(StoreError::Closed)), "{read:?}");
    assert_eq!(fixture.count("SELECT count(*) FROM log").await, 1);
}

/// Goal: a caller that goes away takes nothing with it.
#[tokio::test]
async fn a_commit_whose_caller_went_away_takes_hold() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;

    let mut cancelled = Box::pin(fixture.commit(acquired.fence, appends(1..=1)));
    assert!(futures_util::FutureExt::now_or_never(cancelled.as_mut()).is_none());
    drop(cancelled);

    fixture.commit(after(&acquired, 1), appends(2..=2)).await.unwrap();
    assert_eq!(offsets(&fixture.log(&acquired).await), [1, 2]);
}
