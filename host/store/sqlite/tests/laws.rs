//! Fence, order, and the log.

use bytes::Bytes;
use futures_util::future::join_all;

use sqlx::{AssertSqlSafe, Row};

use super::super::write::Statements;
use super::{Fixture, Random, after, appends, commit, entry, name, offsets, put};
use crate::store::{Committed, LogEntry, Store, StoreError, Writes};

#[tokio::test]
async fn a_new_channel_begins_at_epoch_one_with_an_empty_log() {
    let fixture = Fixture::new().await;

    let acquired = fixture.acquire("room:1").await;

    assert_eq!((acquired.fence.epoch, acquired.fence.seq), (1, 0));
    assert_eq!(acquired.log, (1, 1));
    assert_eq!((acquired.state_bytes, acquired.saved, acquired.timers), (0, None, vec![]));
}

/// Goal: whoever lost the channel writes nothing, and those in the same transaction do not notice.
#[tokio::test]
async fn a_stale_epoch_is_fenced_and_others_in_its_group_are_not() {
    let fixture = Fixture::new().await;
    let stale = fixture.acquire("room:1").await;
    let other = fixture.acquire("room:2").await;
    let home = fixture.acquire("room:1").await;

    let mut writes = appends(1..=1);
    writes.state = put("key", "stale").state;
    writes.timers = vec![("timer".to_owned(), Some(1))];
    writes.saved = Some(Bytes::from("stale"));
    let (refused, others, owners) = tokio::join!(
        fixture.commit(stale.fence, writes),
        fixture.commit(other.fence, appends(1..=2)),
        fixture.commit(home.fence, put("key", "home")),
    );

    assert!(matches!(refused, Err(StoreError::Fenced)), "{refused:?}");
    assert_eq!(others.unwrap(), Committed { state_bytes: 0, log_bytes: 14 });
    assert_eq!(owners.unwrap(), Committed { state_bytes: 7, log_bytes: 0 });
    assert_eq!(fixture.log(&home).await, []);
    assert_eq!(offsets(&fixture.log(&other).await), [1, 2]);
    assert_eq!(fixture.store.get(home.fence.channel, "key").await.unwrap(), Some(Bytes::from("home")));
    let next = fixture.acquire("room:1").await;
    assert_eq!((next.fence.epoch, next.saved, next.timers), (3, None, vec![]));
}

#[tokio::test]
async fn a_channel_that_does_not_exist_is_fenced() {
    let fixture = Fixture::new().await;
    let mut fence = fixture.acquire("room:1").await.fence;
    fence.channel.0 += 1;

    let result = fixture.commit(fence, put("key", "value")).await;

    assert!(matches!(result, Err(StoreError::Fenced)), "{result:?}");
    assert_eq!(fixture.count("SELECT count(*) FROM state").await, 0);
}

#[tokio::test]
async fn commits_of_one_channel_sent_at_once_take_hold_in_order() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;

    let mut first = appends(1..=2);
    first.state = put("key", "first").state;
    let mut second = appends(3..=3);
    second.state = put("key", "second!").state;
    second.replaces = vec![(2, Bytes::from("changed"))];
    let (first, second) =
        tokio::join!(fixture.commit(acquired.fence, first), fixture.commit(after(&acquired, 1), second));

    assert_eq!(first.unwrap().state_bytes, 3 + 5);
    assert_eq!(second.unwrap().state_bytes, 3 + 7);
    let log = fixture.log(&acquired).await;
    assert_eq!(log, [(1, entry(1).data), (2, Bytes::from("changed")), (3, entry(3).data)]);
    assert_eq!(fixture.store.get(acquired.fence.channel, "key").await.unwrap(), Some(Bytes::from("second!")));
}

#[tokio::test]
async fn a_commit_ahead_of_its_predecessor_waits_for_it() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;

    let early = fixture.commit(after(&acquired, 1), appends(2..=2)).await;
    let first = fixture.commit(acquired.fence, appends(1..=1)).await;
    let second = fixture.commit(after(&acquired, 1), appends(2..=2)).await;

    assert!(matches!(early, Err(StoreError::OutOfOrder { expected: 0, found: 1 })), "{early:?}");
    assert!(early.is_err_and(|error| error.retryable()));
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(offsets(&fixture.log(&acquired).await), [1, 2]);
}

/// Goal: after an unknown outcome the same commit may be sent again, also if the next one took hold meanwhile.
#[tokio::test]
async fn a_repeated_commit_takes_hold_once() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;
    let mut writes = appends(1..=3);
    writes.state = put("key", "value").state;
    let first = commit(acquired.fence, writes);

    let original = fixture.store.commit(first.clone()).await.unwrap();
    let repeated = fixture.store.commit(first.clone()).await.unwrap();
    fixture.commit(after(&acquired, 1), appends(4..=4)).await.unwrap();
    let late = fixture.store.commit(first).await.unwrap();

    assert_eq!(original, repeated);
    // It says how things are by now.
    let three = original.log_bytes;
    assert_eq!(late, Committed { log_bytes: three + entry(4).data.len() as u64, ..original });
    assert_eq!(offsets(&fixture.log(&acquired).await), [1, 2, 3, 4]);
    assert_eq!(fixture.acquire("room:1").await.log, (1, 5));
}

#[tokio::test]
async fn an_append_that_would_leave_a_gap_or_write_twice_is_refused_alone() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;
    let other = fixture.acquire("room:2").await;
    fixture.commit(acquired.fence, appends(1..=2)).await.unwrap();

    for wrong in [appends(4..=4), appends(2..=3), Writes { appends: vec![entry(3), entry(5)], ..Writes::default() }] {
        let seq = fixture.acquire("room:2").await;
        let (refused, fine) =
            tokio::join!(fixture.commit(after(&acquired, 1), wrong), fixture.commit(seq.fence, put("key", "value")),);
        assert!(matches!(refused, Err(StoreError::Constraint { .. })), "{refused:?}");
        assert!(fine.is_ok());
    }
    fixture.commit(after(&acquired, 1), appends(3..=3)).await.unwrap();

    assert_eq!(offsets(&fixture.log(&acquired).await), [1, 2, 3]);
    assert_eq!(fixture.log(&other).await, []);
}

#[tokio::test]
async fn a_number_beyond_63_bits_is_refused_alone() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;
    let timers = vec![("timer".to_owned(), Some(u64::MAX))];

    let result = fixture.commit(acquired.fence, Writes { timers, ..Writes::default() }).await;

    assert!(matches!(result, Err(StoreError::Constraint { .. })), "{result:?}");
    assert!(fixture.commit(acquired.fence, put("key", "value")).await.is_ok());
}

#[tokio::test]
async fn trimming_forgets_the_oldest_and_never_more_than_there_is() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;
    fixture.commit(acquired.fence, appends(1..=10)).await.unwrap();

    let mut writes = appends(11..=12);
    writes.trim_before = Some(9);
    fixture.commit(after(&acquired, 1), writes).await.unwrap();
    assert_eq!(offsets(&fixture.log(&acquired).await), [9, 10, 11, 12]);

    let changed = |offset| (offset, Bytes::from("changed"));
    let replaces = vec![changed(3), changed(9), changed(13)];
    let writes = Writes { replaces, trim_before: Some(5), ..Writes::default() };
    fixture.commit(after(&acquired, 2), writes).await.unwrap();
    let log = fixture.log(&acquired).await;
    assert_eq!(log, [changed(9), (10, entry(10).data), (11, entry(11).data), (12, entry(12).data)]);

    let writes = Writes { trim_before: Some(1_000), ..Writes::default() };
    fixture.commit(after(&acquired, 3), writes).await.unwrap();
    assert_eq!(fixture.log(&acquired).await, []);
    assert_eq!(fixture.acquire("room:1").await.log, (13, 13));
}

/// Goal: a large trim shows at once, and its rows go away in bounded steps.
#[tokio::test]
async fn trimmed_entries_are_deleted_by_and_by() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;
    fixture.commit(acquired.fence, appends(1..=3_000)).await.unwrap();

    let writes = Writes { trim_before: Some(2_991), ..Writes::default() };
    fixture.commit(after(&acquired, 1), writes).await.unwrap();
    assert_eq!(fixture.log(&acquired).await.first().map(|(offset, _)| *offset), Some(2_991));
    assert_eq!(fixture.count("SELECT count(*) FROM log").await, 2_000);
    assert_eq!(fixture.log_bytes().await, fixture.kept().await.1);

    for seq in 2..4 {
        fixture.commit(after(&acquired, seq), put("key", "value")).await.unwrap();
    }
    assert_eq!(fixture.count("SELECT count(*) FROM log").await, 10);
    assert_eq!(fixture.log_bytes().await, fixture.kept().await.1);
}

/// Goal: `log_bytes` is what is in the table, after every commit, whatever was in its group; and it survives.
/// Method: random appends, replacements and trims over several channels, two commits at a time, against a sum over the table.
#[tokio::test]
async fn log_bytes_are_exact() {
    for seed in 0..8 {
        let fixture = Fixture::new().await;
        let mut random = Random(seed);
        let mut channels = Vec::new();
        for index in 0..3 {
            channels.push((fixture.acquire(&format!("room:{index}")).await, 0, (1, 1)));
        }
        for round in 0..40 {
            let mut commits = Vec::new();
            for (acquired, seq, (first, next)) in &mut channels {
                for _ in 0..2 {
                    let mut writes = Writes::default();
                    let data = |random: &mut Random| Bytes::from(vec![7; random.below(40)]);
                    for offset in *next..*next + random.below(60) as u64 {
                        writes.appends.push(LogEntry { offset, at_ms: 1, data: data(&mut random) });
                    }
                    *next += writes.appends.len() as u64;
                    let replaced: std::collections::BTreeSet<u64> =
                        (0..random.below(8)).map(|_| random.below(*next as usize + 2) as u64).collect();
                    writes.replaces = replaced.into_iter().map(|offset| (offset, data(&mut random))).collect();
                    if random.below(3) == 0 {
                        *first += random.below((*next - *first) as usize + 1) as u64;
                        writes.trim_before = Some(*first);
                    }
                    commits.push(fixture.store.commit(commit(after(acquired, *seq), writes)));
                    *seq += 1;
                }
            }
            let committed: Vec<Committed> = join_all(commits).await.into_iter().map(Result::unwrap).collect();
            let told: u64 = committed.iter().skip(1).step_by(2).map(|committed| committed.log_bytes).sum();
            assert_eq!((told, fixture.kept().await.1), (fixture.log_bytes().await, told), "seed {seed}, round {round}");
        }
        let (acquired, seq, (_, next)) = &channels[0];
        let trim = Writes { trim_before: Some(*next), ..Writes::default() };
        let freed = fixture.commit(after(acquired, *seq), trim).await.unwrap();
        let swept = fixture.acquire("room:0").await;
        assert_eq!(swept.log_bytes, freed.log_bytes);
        assert_eq!(freed.log_bytes, 0, "whoever trims and appends nothing sees it at once");
    }
}

/// Goal: what tenants keep is summed for each of them, in pages.
#[tokio::test]
async fn what_tenants_keep_is_summed() {
    let fixture = Fixture::new().await;
    for (tenant, channel, value) in [("acme", "a", "1"), ("acme", "b", "22"), ("globex", "a", "333"), ("zork", "a", "")]
    {
        let name = crate::protocol::name::ChannelName::new(tenant, channel).unwrap();
        let acquired = fixture.store.acquire(&name, "test").await.unwrap();
        fixture.commit(acquired.fence, Writes { state: put("k", value).state, ..appends(1..=1) }).await.unwrap();
    }
    let kept = async |after, limit| {
        let kept = fixture.store.catalog().kept(after, limit).await.unwrap();
        kept.into_iter().map(|kept| (kept.tenant, kept.state_bytes, kept.log_bytes)).collect::<Vec<_>>()
    };
    let entry = entry(1).data.len() as u64;

    let first = kept("", 2).await;
    assert_eq!(first, [("acme".to_owned(), 5, 2 * entry), ("globex".to_owned(), 4, entry)]);
    assert_eq!(kept("globex", 2).await, [("zork".to_owned(), 1, entry)]);
}

/// Goal: a database of before has its logs counted when it is opened.
#[tokio::test]
async fn logs_of_before_are_counted_by_the_migration() {
    let migration = include_str!("../../../../migrations/sqlite/0003_log_bytes.sql");
    let fixture = Fixture::new().await;
    for channel in ["room:1", "room:2"] {
        let acquired = fixture.acquire(channel).await;
        fixture.commit(acquired.fence, appends(1..=5)).await.unwrap();
    }
    fixture.acquire("room:3").await;
    let mut connection = fixture.stranger().await;
    sqlx::raw_sql("ALTER TABLE channel DROP COLUMN log_bytes").execute(&mut connection).await.unwrap();

    sqlx::raw_sql(migration).execute(&mut connection).await.unwrap();

    assert_eq!((fixture.log_bytes().await, fixture.kept().await.1), (70, 70));
}

#[tokio::test]
async fn a_read_of_the_log_is_bounded_by_range_count_and_bytes() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;
    let large = |offset| crate::store::LogEntry { data: Bytes::from(vec![b'x'; 700 << 10]), ..entry(offset) };
    fixture.commit(acquired.fence, appends(1..=5)).await.unwrap();
    let writes = Writes { appends: (6..=9).map(large).collect(), ..Writes::default() };
    fixture.commit(after(&acquired, 1), writes).await.unwrap();

    let read = async |from, before, limit| {
        let log = fixture.store.read_log(acquired.fence.channel, from, before, limit).await.unwrap();
        log.iter().map(|entry| entry.offset).collect::<Vec<_>>()
    };

    assert_eq!(read(2, 4, 10).await, [2, 3]);
    assert_eq!(read(0, 6, 2).await, [1, 2]);
    assert!(read(5, u64::MAX, 0).await.is_empty());
    assert!(read(10, u64::MAX, 10).await.is_empty());
    assert_eq!(read(4, 10, 10).await, [4, 5, 6], "two large ones are more than READ_BYTES_MAX");
    assert_eq!(read(7, 10, 10).await, [7], "one large one is always answered");
    let first = fixture.store.read_log(acquired.fence.channel, 1, 2, 1).await.unwrap();
    assert_eq!(first, [entry(1)]);
}

#[tokio::test]
async fn channels_acquired_at_once_each_get_their_own() {
    let fixture = Fixture::new().await;
    let names: Vec<_> = (0..150).map(|index| name(&format!("room:{index}"))).collect();
    for (index, channel) in names.iter().enumerate().step_by(2) {
        let acquired = fixture.store.acquire(channel, "before").await.unwrap();
        let saved = Some(Bytes::from(index.to_string()));
        fixture.commit(acquired.fence, Writes { saved, ..Writes::default() }).await.unwrap();
    }

    let acquired = join_all(names.iter().map(|channel| fixture.store.acquire(channel, "now"))).await;

    let mut keys = std::collections::HashSet::new();
    for (index, acquired) in acquired.into_iter().enumerate() {
        let acquired = acquired.unwrap();
        let existed = index % 2 == 0;
        assert_eq!(acquired.fence.epoch, if existed { 2 } else { 1 });
        assert_eq!(acquired.saved, existed.then(|| Bytes::from(index.to_string())));
        assert!(keys.insert(acquired.fence.channel));
    }
}

#[tokio::test]
async fn of_two_homes_that_acquire_at_once_one_is_fenced() {
    let fixture = Fixture::new().await;

    let (one, two) = tokio::join!(fixture.acquire("room:1"), fixture.acquire("room:1"));
    let results =
        [fixture.commit(one.fence, put("key", "one")).await, fixture.commit(two.fence, put("key", "two")).await];

    assert_eq!((one.fence.epoch, two.fence.epoch), (1, 2));
    assert!(matches!(results, [Err(StoreError::Fenced), Ok(_)]), "{results:?}");
}

#[tokio::test]
async fn channels_of_two_tenants_with_one_name_are_two() {
    let fixture = Fixture::new().await;
    let other = crate::protocol::name::ChannelName::new("acme", "room:1").unwrap();
    let mine = fixture.acquire("room:1").await;

    let theirs = fixture.store.acquire(&other, "test").await.unwrap();

    assert_ne!(mine.fence.channel, theirs.fence.channel);
    assert_eq!(theirs.fence.epoch, 1);
}

/// Goal: no write becomes slower with the number of rows that others have.
#[tokio::test]
async fn no_statement_of_a_group_walks_through_a_table() {
    let fixture = Fixture::new().await;
    let mut connection = fixture.stranger().await;
    let tables = ["channel", "state", "log", "timer", "saved", "answer"];

    for statement in Statements::new().all() {
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", statement.sql()));
        for step in sqlx::query(explain).fetch_all(&mut connection).await.unwrap() {
            let step: String = step.get("detail");
            let scanned = step.strip_prefix("SCAN ").and_then(|rest| rest.split(' ').next());
            assert!(scanned.is_none_or(|scanned| !tables.contains(&scanned)), "{step}: {}", statement.sql());
        }
    }
}
