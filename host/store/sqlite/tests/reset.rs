//! Resetting a channel: nothing of what it kept is read again, nobody who had it writes again, and no offset comes twice.

use bytes::Bytes;

use super::{Fixture, after, appends, name, offsets, put};
use crate::limits::LOG_SWEPT_MAX;
use crate::store::catalog::{Catalog as _, Change};
use crate::store::{Order, Store, StoreError, Writes};

async fn change(fixture: &Fixture, change: Change) -> bool {
    fixture.store.change(vec![change], None).await.unwrap().is_some()
}

#[tokio::test]
async fn a_channel_begins_anew_and_its_offsets_go_on() {
    let fixture = Fixture::new().await;
    let (gone, stays) = (fixture.acquire("room:1").await, fixture.acquire("room:2").await);
    let timers = Writes { timers: vec![("tick".to_owned(), Some(5))], ..Writes::default() };
    let saved = Writes { saved: Some(Bytes::from("memory")), version: Some([7; 32]), ..Writes::default() };
    for (acquired, writes) in [(&gone, appends(1..=3)), (&stays, appends(1..=3))] {
        fixture.commit(after(acquired, 0), writes).await.unwrap();
        fixture.commit(after(acquired, 1), put("key", "value")).await.unwrap();
        fixture.commit(after(acquired, 2), timers.clone()).await.unwrap();
        fixture.commit(after(acquired, 3), saved.clone()).await.unwrap();
    }

    assert!(change(&fixture, Change::ResetChannel { channel: name("room:1") }).await);

    let late = fixture.commit(after(&gone, 4), put("key", "late")).await;
    assert!(matches!(late, Err(StoreError::Fenced)), "{late:?}");
    let again = fixture.acquire("room:1").await;
    assert_eq!((again.log, again.state_bytes, &again.saved, again.version), ((4, 4), 0, &None, None));
    assert_eq!((again.timers.len(), again.fence.epoch), (0, 3));
    assert_eq!(fixture.store.get(again.fence.channel, "key").await.unwrap(), None);
    assert_eq!(offsets(&fixture.log(&again).await), Vec::<u64>::new());
    fixture.commit(again.fence, appends(4..=4)).await.unwrap();
    assert_eq!(offsets(&fixture.log(&again).await), [4]);
    // The one beside it is as it was.
    fixture.commit(after(&stays, 4), put("other", "value")).await.unwrap();
    let page = fixture.store.scan(stays.fence.channel, "", None, Order::Ascending, 10).await.unwrap();
    assert_eq!((page.entries.len(), offsets(&fixture.log(&stays).await)), (2, vec![1, 2, 3]));
    assert!(!change(&fixture, Change::ResetChannel { channel: name("room:3") }).await, "there is none");
}

/// Goal: what may not be read any more is deleted piece by piece, to the last entry, and nothing else is.
#[tokio::test]
async fn a_long_log_is_swept_in_pieces() {
    let fixture = Fixture::new().await;
    let acquired = fixture.acquire("room:1").await;
    let entries = 2 * u64::from(LOG_SWEPT_MAX) + 1;
    fixture.commit(acquired.fence, appends(1..=entries)).await.unwrap();
    assert!(!change(&fixture, Change::SweepLog { channel: name("room:1") }).await, "all of it may be read");

    assert!(change(&fixture, Change::ResetChannel { channel: name("room:1") }).await);
    let mut pieces = 0;
    while change(&fixture, Change::SweepLog { channel: name("room:1") }).await {
        pieces += 1;
    }

    assert_eq!((pieces, fixture.count("SELECT count(*) FROM log").await), (3, 0));
    let again = fixture.acquire("room:1").await;
    assert_eq!(again.log_bytes, 0);
    fixture.commit(again.fence, appends(entries + 1..=entries + 2)).await.unwrap();
    assert!(!change(&fixture, Change::SweepLog { channel: name("room:1") }).await);
    assert_eq!(offsets(&fixture.log(&again).await), [entries + 1, entries + 2]);
}
