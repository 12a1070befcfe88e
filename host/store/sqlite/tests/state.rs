//! Key-value state: exact size, and scans.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Fixture, Random, after, commit, put};
use crate::protocol::overlay::Page;
use crate::store::{Acquired, Order, Store, Writes};

/// Keys around every edge of a range of bytes: empty, NUL, one key beginning another, the last of one, two, three and four bytes.
const KEYS: [&str; 16] = [
    "",
    "\0",
    "a",
    "a\0",
    "a:",
    "a:1",
    "a:2",
    "a;",
    "b",
    "\u{7f}",
    "\u{7f}x",
    "é",
    "éa",
    "ÿ",
    "\u{ffff}",
    "\u{10ffff}\u{10ffff}",
];

/// Goal: `state_bytes` is exact after every commit, whatever was in its group.
/// Method: random puts, overwrites and deletes over several channels, sent two commits at a time, against a map.
#[tokio::test]
async fn state_bytes_are_exact() {
    for seed in 0..8 {
        let fixture = Fixture::new().await;
        let mut random = Random(seed);
        let mut channels = Vec::new();
        for index in 0..3 {
            channels.push((fixture.acquire(&format!("room:{index}")).await, 0, BTreeMap::<String, Bytes>::new()));
        }
        for round in 0..30 {
            let mut commits = Vec::new();
            let mut expected = Vec::new();
            for (acquired, seq, model) in &mut channels {
                for _ in 0..2 {
                    let mut state = BTreeMap::new();
                    for _ in 0..random.below(6) {
                        let key = KEYS[random.below(KEYS.len())].to_owned();
                        let value = (random.below(3) > 0).then(|| Bytes::from(vec![7; random.below(40)]));
                        state.insert(key, value);
                    }
                    for (key, value) in state.clone() {
                        match value {
                            Some(value) => drop(model.insert(key, value)),
                            None => drop(model.remove(&key)),
                        }
                    }
                    let writes = Writes { state: state.into_iter().collect(), ..Writes::default() };
                    commits.push(fixture.store.commit(commit(after(acquired, *seq), writes)));
                    expected.push(bytes(model));
                    *seq += 1;
                }
            }
            let answers = futures_util::future::join_all(commits).await;
            let found: Vec<u64> = answers.into_iter().map(|answer| answer.unwrap().state_bytes).collect();
            assert_eq!(found, expected, "seed {seed}, round {round}");
        }
        for (index, (acquired, _, model)) in channels.into_iter().enumerate() {
            let all = fixture.store.scan(acquired.fence.channel, "", None, Order::Ascending, 1_000).await.unwrap();
            assert_eq!(all.entries, model.clone().into_iter().collect::<Vec<_>>(), "seed {seed}");
            assert_eq!(fixture.acquire(&format!("room:{index}")).await.state_bytes, bytes(&model), "seed {seed}");
        }
    }
}

fn bytes(model: &BTreeMap<String, Bytes>) -> u64 {
    model.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
}

async fn with_keys(fixture: &Fixture) -> Acquired {
    let acquired = fixture.acquire("room:1").await;
    let other = fixture.acquire("room:2").await;
    let state: Vec<_> = KEYS.iter().map(|key| ((*key).to_owned(), Some(Bytes::from(key.as_bytes())))).collect();
    fixture.commit(acquired.fence, Writes { state, ..Writes::default() }).await.unwrap();
    let state = vec![("a:3 of another channel".to_owned(), Some(Bytes::new()))];
    fixture.commit(other.fence, Writes { state, ..Writes::default() }).await.unwrap();
    acquired
}

/// Method: every prefix × every cursor × both orders × limits, against a filter over the list of keys.
#[tokio::test]
async fn a_scan_answers_the_keys_with_the_prefix_after_the_cursor_in_order() {
    let fixture = Fixture::new().await;
    let acquired = with_keys(&fixture).await;
    let cursors: Vec<Option<&str>> = KEYS.iter().map(|key| Some(*key)).chain([None, Some("a:0"), Some("zz")]).collect();

    for prefix in KEYS.iter().chain(&["a:0", "c", "\u{10ffff}"]) {
        for &cursor in &cursors {
            for (order, limit) in
                [(Order::Ascending, 100), (Order::Descending, 100), (Order::Ascending, 2), (Order::Descending, 1)]
            {
                let mut expected: Vec<&str> = KEYS.into_iter().filter(|key| key.starts_with(prefix)).collect();
                expected.sort_unstable();
                if order == Order::Descending {
                    expected.reverse();
                }
                expected.retain(|key| match (cursor, order) {
                    (None, _) => true,
                    (Some(cursor), Order::Ascending) => *key > cursor,
                    (Some(cursor), Order::Descending) => *key < cursor,
                });
                // At the limit there may be more.
                let complete = expected.len() < limit as usize;
                expected.truncate(limit as usize);

                let found = fixture.store.scan(acquired.fence.channel, prefix, cursor, order, limit).await.unwrap();

                assert_eq!(found.complete, complete, "{prefix:?} after {cursor:?}, {order:?}, {limit}");
                let found: Vec<&str> = found.entries.iter().map(|(key, _)| key.as_str()).collect();
                assert_eq!(found, expected, "{prefix:?} after {cursor:?}, {order:?}, {limit}");
            }
        }
    }
}

#[tokio::test]
async fn every_key_is_found_by_its_own_bytes() {
    let fixture = Fixture::new().await;
    let acquired = with_keys(&fixture).await;

    for key in KEYS {
        let value = fixture.store.get(acquired.fence.channel, key).await.unwrap();
        assert_eq!(value, Some(Bytes::from(key.as_bytes())), "{key:?}");
    }
    assert_eq!(fixture.store.get(acquired.fence.channel, "a:3 of another channel").await.unwrap(), None);
}

#[tokio::test]
async fn a_scan_is_bounded_by_bytes_but_answers_at_least_one() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;
    let large = Bytes::from(vec![b'x'; 600 << 10]);
    let state = ["a", "b", "c"].map(|key| (key.to_owned(), Some(large.clone()))).to_vec();
    fixture.commit(acquired.fence, Writes { state, ..Writes::default() }).await.unwrap();

    let scan = async |after, limit| {
        fixture.store.scan(acquired.fence.channel, "", after, Order::Ascending, limit).await.unwrap()
    };
    let page = |key: &str, complete| Page { entries: vec![(key.to_owned(), large.clone())], complete };
    assert_eq!(scan(None, 10).await, page("a", false));
    assert_eq!(scan(Some("a"), 10).await, page("b", false));
    assert_eq!(scan(Some("b"), 10).await, page("c", true));
    assert_eq!(scan(Some("b"), 1).await, page("c", false), "at the limit nobody looked further");
    assert_eq!(scan(Some("c"), 10).await, Page { entries: Vec::new(), complete: true });
}

/// Goal: rows beyond the largest prepared statement are neither lost nor doubled.
#[tokio::test]
async fn a_commit_of_many_rows_and_bytes_is_whole() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;
    let value = Bytes::from(vec![b'x'; 10 << 10]);
    let state = (0..1_025).map(|index| (format!("key:{index:04}"), Some(value.clone()))).collect();
    let mut writes = super::appends(1..=777);
    writes.state = state;

    let committed = fixture.commit(acquired.fence, writes).await.unwrap();
    let deletes = (0..1_000).map(|index| (format!("key:{index:04}"), None)).collect();
    let rest = fixture.commit(after(&acquired, 1), Writes { state: deletes, ..Writes::default() }).await.unwrap();

    assert_eq!(committed.state_bytes, 1_025 * (8 + (10 << 10)));
    assert_eq!(rest.state_bytes, 25 * (8 + (10 << 10)));
    assert_eq!(fixture.count("SELECT count(*) FROM state").await, 25);
    assert_eq!(super::offsets(&fixture.log(&acquired).await), (1..=777).collect::<Vec<_>>());
}

/// Law: a channel whose long call went to another runtime, and is not let run there, keeps no connection from the others.
#[tokio::test]
async fn reads_of_another_runtime_hold_no_connection_of_it() {
    const READERS: usize = 8;
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("a").await;
    fixture.commit(acquired.fence, put("key", "value")).await.unwrap();
    let elsewhere = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let read = || fixture.store.get(acquired.fence.channel, "key");
    let mut begun: Vec<_> = std::iter::repeat_with(read).take(READERS).collect();
    {
        let _elsewhere = elsewhere.enter();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(begun.iter_mut().all(|read| read.as_mut().poll(&mut context).is_pending()));
    }

    let found = read().await;

    assert_eq!(found.unwrap(), Some(Bytes::from_static(b"value")));
    drop(begun);
    elsewhere.shutdown_background();
}
