//! Saved memory, timers, answers, and versions.

use bytes::Bytes;

use super::{Fixture, after, put};
use crate::limits::IDEMPOTENCY_WINDOW_MS;
use crate::store::{Answer, DuePage, DueTimer, Store, StoreError, Writes};

fn saved(data: &'static str) -> Writes {
    Writes { saved: Some(Bytes::from(data)), ..Writes::default() }
}

#[tokio::test]
async fn saved_memory_is_taken_once() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;
    fixture.commit(acquired.fence, saved("memory")).await.unwrap();

    let woken = fixture.acquire("room:1").await;
    let after_crash = fixture.acquire("room:1").await;

    assert_eq!(woken.saved, Some(Bytes::from("memory")));
    assert_eq!(after_crash.saved, None);
}

#[tokio::test]
async fn saved_memory_is_void_once_something_was_committed_after_it() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;
    let other = fixture.acquire("room:2").await;
    fixture.commit(acquired.fence, saved("old")).await.unwrap();
    fixture.commit(after(&acquired, 1), put("key", "value")).await.unwrap();
    let (first, second) =
        tokio::join!(fixture.commit(other.fence, saved("old")), fixture.commit(after(&other, 1), put("key", "value")),);
    assert!(first.is_ok() && second.is_ok());

    assert_eq!(fixture.acquire("room:1").await.saved, None);
    assert_eq!(fixture.acquire("room:2").await.saved, None);
}

#[tokio::test]
async fn damaged_saved_memory_is_not_used() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;
    fixture.commit(acquired.fence, saved("memory")).await.unwrap();
    let damage = "UPDATE saved SET data = CAST('memorY' AS BLOB)";
    sqlx::query(damage).execute(&mut fixture.stranger().await).await.unwrap();

    let woken = fixture.acquire("room:1").await;

    assert_eq!(woken.saved, None);
    assert_eq!(fixture.count("SELECT count(*) FROM saved").await, 0);
}

/// Goal: a channel is pinned to the version whose writes were committed last, by the very commit that has them.
#[tokio::test]
async fn a_channel_is_pinned_by_the_commit_that_names_a_version() {
    let fixture = Fixture::new().await;
    let pin = |version: u8, value| Writes { version: Some([version; 32]), ..put("key", value) };
    let new = fixture.acquire("room:1").await;
    let other = fixture.acquire("room:2").await;
    assert_eq!(new.version, None);

    // One group: three commits of one channel, the last of which names none, and one of another.
    let (first, second, third, others) = tokio::join!(
        fixture.commit(new.fence, pin(1, "first")),
        fixture.commit(after(&new, 1), pin(2, "second")),
        fixture.commit(after(&new, 2), put("key", "third")),
        fixture.commit(other.fence, put("key", "other")),
    );
    assert!(first.is_ok() && second.is_ok() && third.is_ok() && others.is_ok());
    assert_eq!(fixture.acquire("room:2").await.version, None);
    let home = fixture.acquire("room:1").await;
    assert_eq!(home.version, Some([2; 32]));

    let stale = fixture.commit(after(&new, 3), pin(3, "stale")).await;
    assert!(matches!(stale, Err(StoreError::Fenced)), "{stale:?}");
    fixture.commit(home.fence, put("key", "home")).await.unwrap();
    assert_eq!(fixture.acquire("room:1").await.version, Some([2; 32]));
}

/// Goal: a commit sent again after the next one took hold does not pin the channel back.
#[tokio::test]
async fn a_repeated_commit_does_not_pin_again() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;
    let pin = |version| Writes { version: Some([version; 32]), ..Writes::default() };
    fixture.commit(acquired.fence, pin(1)).await.unwrap();
    fixture.commit(after(&acquired, 1), pin(2)).await.unwrap();

    fixture.commit(acquired.fence, pin(1)).await.unwrap();

    assert!(!pin(1).is_empty());
    assert_eq!(fixture.acquire("room:1").await.version, Some([2; 32]));
}

#[tokio::test]
async fn timers_are_due_in_order_and_once_per_channel() {
    let fixture = Fixture::new().await;
    let set = |name: &str, due_ms| (name.to_owned(), Some(due_ms));
    let one = fixture.acquire("room:1").await;
    let two = fixture.acquire("room:2").await;
    let three = fixture.acquire("room:3").await;
    let timers = vec![set("late", 300), set("early", 100), set("gone", 50)];
    fixture.commit(one.fence, Writes { timers, ..Writes::default() }).await.unwrap();
    let timers = vec![set("timer", 99)];
    fixture.commit(two.fence, Writes { timers, ..Writes::default() }).await.unwrap();
    let timers = vec![set("timer", 400)];
    fixture.commit(three.fence, Writes { timers, ..Writes::default() }).await.unwrap();
    let timers = vec![("gone".to_owned(), None), ("unknown".to_owned(), None), set("late", 200)];
    fixture.commit(after(&one, 1), Writes { timers, ..Writes::default() }).await.unwrap();

    let due = async |until_ms, limit| fixture.store.due_timers(until_ms, None, limit).await.unwrap().timers;

    let timer = |channel: &str, due_ms| DueTimer { channel: super::name(channel), due_ms };
    assert_eq!(due(98, 10).await, []);
    assert_eq!(due(99, 10).await, [timer("room:2", 99)]);
    assert_eq!(due(u64::MAX, 10).await, [timer("room:2", 99), timer("room:1", 100), timer("room:3", 400)]);
    assert_eq!(due(1_000, 2).await, [timer("room:2", 99), timer("room:1", 100)]);
    assert_eq!(fixture.acquire("room:1").await.timers, [("early".to_owned(), 100), ("late".to_owned(), 200)]);
}

/// Goal: whoever is due is found, however many are due before it and however few a page has.
#[tokio::test]
async fn pages_of_due_timers_reach_everybody() {
    let fixture = Fixture::new().await;
    for (channel, due) in [(1, [10, 20]), (2, [10, 30]), (3, [10, 10]), (4, [20, 40]), (5, [90, 91])] {
        let acquired = fixture.acquire(&format!("room:{channel}")).await;
        let timers = vec![("a".to_owned(), Some(due[0])), ("b".to_owned(), Some(due[1]))];
        fixture.commit(acquired.fence, Writes { timers, ..Writes::default() }).await.unwrap();
    }
    for limit in 1..=10 {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = fixture.store.due_timers(50, after, limit).await.unwrap();
            assert!(page.timers.len() <= limit as usize && page.skipped == 0);
            found.extend(page.timers);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert!(found.is_sorted_by_key(|timer| timer.due_ms), "limit {limit}: {found:?}");
        let mut names: Vec<_> = found.iter().map(|timer| timer.channel.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names, ["room:1", "room:2", "room:3", "room:4"], "limit {limit}");
    }
}

/// Goal: a row nobody can read keeps nobody else asleep.
#[tokio::test]
async fn due_timers_of_channels_without_a_valid_name_are_skipped_and_counted() {
    let fixture = Fixture::new().await;
    for channel in ["room:1", "room:2", "room:3", "room:4"] {
        let acquired = fixture.acquire(channel).await;
        let timers = vec![("a".to_owned(), Some(10)), ("b".to_owned(), Some(20))];
        fixture.commit(acquired.fence, Writes { timers, ..Writes::default() }).await.unwrap();
    }
    for damage in [
        "UPDATE channel SET name = 'not a name' WHERE name = 'room:1'",
        "UPDATE channel SET tenant = '' WHERE name = 'room:2'",
        "UPDATE channel SET name = CAST(x'ff' AS TEXT) WHERE name = 'room:3'",
    ] {
        sqlx::query(damage).execute(&mut fixture.stranger().await).await.unwrap();
    }

    let page = fixture.store.due_timers(50, None, 10).await.unwrap();

    let timers = vec![DueTimer { channel: super::name("room:4"), due_ms: 10 }];
    assert_eq!(page, DuePage { timers, skipped: 3, next: None });
}

fn answer(key: &str, text: &'static str, at_ms: u64) -> Answer {
    Answer { sender: "sender".to_owned(), key: key.to_owned(), answer: Bytes::from(text), at_ms }
}

#[tokio::test]
async fn an_answer_is_found_within_its_window_by_its_own_sender_and_channel() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;
    fixture.acquire("room:2").await;
    let at_ms = 5 * IDEMPOTENCY_WINDOW_MS;
    let answers = vec![answer("key", "first", at_ms)];
    fixture.commit(acquired.fence, Writes { answers, ..Writes::default() }).await.unwrap();

    let find = async |channel, sender, key, now_ms| fixture.store.answer(channel, sender, key, now_ms).await.unwrap();

    let (mine, theirs) = (&super::name("room:1"), &super::name("room:2"));
    let last = at_ms + IDEMPOTENCY_WINDOW_MS - 1;
    assert_eq!(find(mine, "sender", "key", at_ms).await, Some(Bytes::from("first")));
    assert_eq!(find(mine, "sender", "key", last).await, Some(Bytes::from("first")));
    assert_eq!(find(mine, "sender", "key", last + 1).await, None);
    assert_eq!(find(mine, "another", "key", at_ms).await, None);
    assert_eq!(find(theirs, "sender", "key", at_ms).await, None);
}

#[tokio::test]
async fn old_answers_are_deleted_and_may_be_given_anew() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;
    let start = 5 * IDEMPOTENCY_WINDOW_MS;
    let answers = vec![answer("a", "first", start), answer("b", "first", start + 10)];
    fixture.commit(acquired.fence, Writes { answers, ..Writes::default() }).await.unwrap();

    let now = start + IDEMPOTENCY_WINDOW_MS + 5;
    let answers = vec![answer("a", "second", now)];
    fixture.commit(after(&acquired, 1), Writes { answers, ..Writes::default() }).await.unwrap();
    let again = fixture.store.answer(&super::name("room:1"), "sender", "a", now).await.unwrap();
    assert_eq!(again, Some(Bytes::from("second")));
    assert_eq!(fixture.count("SELECT count(*) FROM answer").await, 2);

    let now = now + 100;
    let answers = vec![answer("c", "first", now)];
    fixture.commit(after(&acquired, 2), Writes { answers, ..Writes::default() }).await.unwrap();
    assert_eq!(fixture.count("SELECT count(*) FROM answer WHERE key = 'b'").await, 0);
    assert_eq!(fixture.count("SELECT count(*) FROM answer").await, 2);
}
