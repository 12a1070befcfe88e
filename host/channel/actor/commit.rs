//! The commit under way: handed to the store, looked after, repeated, given up.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::channel::actor::Actor;
use crate::channel::core::{BatchId, CommitFailure, Output};
use crate::store::{Commit, Committed, StoreError};
use crate::telemetry::{hot, now_ms};

pub(super) struct CommitUnderWay {
    id: BatchId,
    attempt: Pin<Box<dyn Future<Output = Result<Committed, StoreError>> + Send>>,
    /// What came of it, once that is known and until somebody asks.
    outcome: Option<Result<Committed, StoreError>>,
    /// Set while the next attempt waits for its time.
    not_before: Option<Instant>,
    /// When it was first tried.
    started: Instant,
    /// A store that does not answer until then does not answer.
    give_up: Instant,
}

impl CommitUnderWay {
    /// When [`Actor::commit_is_due`] has something to do.
    pub(super) fn due(&self) -> Instant {
        self.not_before.unwrap_or(self.give_up)
    }

    /// Keeps what came of it for the next question.
    pub(super) fn came_back(&mut self, outcome: Result<Committed, StoreError>) {
        self.outcome = Some(outcome);
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Committed, StoreError>> {
        match (self.not_before, self.outcome.take()) {
            (Some(_), _) => Poll::Pending,
            (None, Some(outcome)) => Poll::Ready(outcome),
            (None, None) => self.attempt.as_mut().poll(cx),
        }
    }
}

impl Actor {
    /// Submits the writes of a batch, at once or later.
    pub(super) fn submit(&mut self, id: BatchId, pause_ms: Option<u64>) {
        let Some(commit) = self.commit_of(id) else { return };
        let now = Instant::now();
        let (started, give_up) = match self.commit.take() {
            Some(earlier) if earlier.id == id => (earlier.started, earlier.give_up),
            _ => (now, now + Duration::from_millis(self.channel.logic.limits.commit_ms_max)),
        };
        let not_before = pause_ms.map(|ms| now + Duration::from_millis(ms));
        let store = Arc::clone(&self.directory.store);
        let attempt = Box::pin(async move { store.commit(commit).await });
        let mut commit = CommitUnderWay { id, attempt, outcome: None, not_before, started, give_up };
        // The first poll hands the writes over, before the plugin runs on.
        if let Poll::Ready(outcome) = commit.poll(&mut Context::from_waker(Waker::noop())) {
            commit.came_back(outcome);
        }
        self.commit = Some(commit);
    }

    fn commit_of(&self, id: BatchId) -> Option<Arc<Commit>> {
        self.prepared.iter().find(|(prepared, _)| *prepared == id)?.1.commit.clone()
    }

    /// The outcome of the commit under way, if it is there.
    pub(super) fn finished_commit(&mut self) -> Option<Result<Committed, StoreError>> {
        match self.commit.as_mut()?.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    /// It is time for the next attempt, or for giving up.
    pub(super) async fn commit_is_due(&mut self) {
        let Some(commit) = &mut self.commit else { return };
        if commit.not_before.take().is_none() {
            let detail = format!("no answer within {:?} (commit_ms_max)", commit.started.elapsed());
            self.commit_came_back(Err(StoreError::Io { detail })).await;
        }
    }

    pub(super) async fn commit_came_back(&mut self, result: Result<Committed, StoreError>) {
        let Some(CommitUnderWay { id, started, .. }) = &self.commit else { return };
        let (id, elapsed) = (*id, started.elapsed());
        let fence = self.commit_of(id).map(|commit| commit.fence);
        let out = match result {
            Ok(committed) => {
                self.commit = None;
                hot::BATCH_COMMIT.record(elapsed.as_secs_f64());
                if let Some(claim) = &mut self.claim {
                    claim.view.committed(committed.state_bytes);
                    if let Some(fence) = fence {
                        claim.keeps(&self.channel.quota, fence, &committed);
                    }
                }
                self.core.committed(id)
            }
            Err(error) => {
                let why = if error.retryable() { CommitFailure::Passing } else { CommitFailure::Final };
                let out = self.core.commit_failed(id, why, now_ms());
                if !matches!(out.as_slice(), [Output::CommitAgain(..)]) {
                    (self.commit, self.over) = (None, None);
                    // It is dropped by what follows from that.
                    if let Some(claim) = &mut self.claim {
                        claim.is_unsure = true;
                    }
                    tracing::error!(channel = %self.channel.name, %error, "a batch could not be committed; its senders are told");
                    metrics::counter!("hotbay_commits_given_up_total").increment(1);
                }
                out
            }
        };
        let again = matches!(out.as_slice(), [Output::CommitAgain(..)]);
        self.carry_out(out).await;
        if !again {
            // Released by now; or long ago, where nothing waits for a commit.
            drop(self.take_prepared(id));
        }
    }
}
