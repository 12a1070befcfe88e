//! Groups, their bounds, and a writer that fails or hangs.

use std::sync::Mutex;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;

use super::*;
use crate::store::{ChannelKey, Fence, Writes};

/// Remembers the sequence numbers of each group, and refuses groups with number 13.
#[derive(Default, Clone)]
struct Notes(Arc<Mutex<Vec<Vec<u64>>>>);

impl GroupWriter for Notes {
    async fn write(&mut self, group: &Group) -> Result<Written, StoreError> {
        let numbers: Vec<u64> = group.commits.iter().map(|commit| commit.fence.seq).collect();
        let refused = numbers.contains(&13);
        self.0.lock().unwrap().push(numbers);
        if refused {
            return Err(StoreError::Constraint { detail: "13".to_owned() });
        }
        let commits =
            group.commits.iter().map(|commit| Ok(Committed { state_bytes: commit.fence.seq, log_bytes: 0 })).collect();
        let changes = group.changes.iter().map(|_| Some(Changed::default())).collect();
        Ok(Written { commits, acquires: Vec::new(), changes })
    }

    async fn close(self) {}
}

fn commit(seq: u64, bytes: usize) -> Arc<Commit> {
    let fence = Fence { channel: ChannelKey(1), epoch: 1, seq };
    let saved = Some(Bytes::from(vec![0; bytes]));
    Arc::new(Commit { fence, durability: Durability::Os, writes: Writes { saved, ..Writes::default() } })
}

#[tokio::test]
async fn what_waits_is_written_together_in_order() {
    let notes = Notes::default();
    let queue = start(notes.clone());

    let answers = join_all((0..5).map(|seq| queue.commit(commit(seq, 1)))).await;

    let answers: Vec<u64> = answers.into_iter().map(|answer| answer.unwrap().state_bytes).collect();
    assert_eq!(answers, [0, 1, 2, 3, 4]);
    assert_eq!(*notes.0.lock().unwrap(), [[0, 1, 2, 3, 4]]);
}

#[tokio::test]
async fn only_the_request_at_fault_is_refused() {
    let notes = Notes::default();
    let queue = start(notes.clone());

    let (before, at_fault, after, change, check) = tokio::join!(
        queue.commit(commit(12, 1)),
        queue.commit(commit(13, 1)),
        queue.commit(commit(14, 1)),
        queue.change(Changes::default()),
        queue.check(),
    );

    assert!(matches!(at_fault, Err(StoreError::Constraint { .. })), "{at_fault:?}");
    assert_eq!((before.unwrap().state_bytes, after.unwrap().state_bytes), (12, 14));
    assert!(change.unwrap().is_some() && check.is_ok());
    assert_eq!(*notes.0.lock().unwrap(), [vec![12, 13, 14], vec![12], vec![13], vec![14], vec![], vec![]]);
}

/// Goal: what the registry is told is on disk before anybody hears of it.
#[test]
fn a_change_of_the_registry_makes_its_group_durable() {
    let commits = vec![commit(1, 1)];
    assert!(!Group { commits: commits.clone(), ..Group::default() }.fsync());
    assert!(Group { commits, changes: vec![Changes::default()], ..Group::default() }.fsync());
}

#[tokio::test]
async fn a_group_is_bounded_by_bytes_and_a_larger_commit_goes_alone() {
    let notes = Notes::default();
    let queue = start(notes.clone());
    let sizes = [GROUP_BYTES_MAX / 2, GROUP_BYTES_MAX / 2, 1, GROUP_BYTES_MAX + 1, 1];

    join_all((0..).zip(sizes).map(|(seq, bytes)| queue.commit(commit(seq, bytes)))).await;

    assert_eq!(*notes.0.lock().unwrap(), [vec![0, 1], vec![2], vec![3], vec![4]]);
}

#[tokio::test]
async fn a_group_is_bounded_by_requests() {
    let notes = Notes::default();
    let queue = start(notes.clone());

    join_all((100..3_100).map(|seq| queue.commit(commit(seq, 0)))).await;

    let groups = notes.0.lock().unwrap();
    assert!(groups.iter().all(|group| group.len() <= GROUP_REQUESTS_MAX), "{} groups", groups.len());
    assert!(groups.concat().into_iter().eq(100..3_100), "not in the order of the calls");
}

/// A database that never answers.
struct Hung;

impl GroupWriter for Hung {
    async fn write(&mut self, _group: &Group) -> Result<Written, StoreError> {
        std::future::pending().await
    }

    async fn close(self) {}
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_can_be_closed() {
    let queue = start(Hung);
    let mut hanging = Box::pin(queue.commit(commit(1, 1)));
    assert!(hanging.as_mut().now_or_never().is_none());

    let closed = queue.close().await;

    assert!(matches!(closed, Err(StoreError::Io { .. })), "{closed:?}");
    let (late, check) = (queue.commit(commit(2, 1)).await, queue.check().await);
    assert!(matches!((late, check), (Err(StoreError::Closed), Err(StoreError::Closed))));
}

/// Goal: callers that give up and come again fill no memory with what they left.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_store_that_hangs_is_bounded() {
    let queue = start(Hung);
    let large = commit(1, 8 << 20);
    let mut left = 0;
    let refused = loop {
        let mut attempt = Box::pin(queue.commit(Arc::clone(&large)));
        match attempt.as_mut().now_or_never() {
            None => left += 1,
            Some(answer) => break answer,
        }
    };

    assert!(matches!(&refused, Err(error @ StoreError::Io { .. }) if error.retryable()), "{refused:?}");
    assert_eq!(left, QUEUE_BYTES_MAX / (8 << 20));
}

#[tokio::test]
async fn answered_commits_make_room() {
    let queue = start(Notes::default());
    for round in 0..3 {
        let commits = (0..4).map(|seq| queue.commit(commit(100 + 4 * round + seq, QUEUE_BYTES_MAX / 4)));
        assert!(join_all(commits).await.iter().all(Result::is_ok));
    }
    let alone = queue.commit(commit(200, QUEUE_BYTES_MAX + 1)).await;
    assert!(alone.is_ok(), "the largest goes alone: {alone:?}");
    assert_eq!(queue.bytes.load(Ordering::Relaxed), 0);
}
