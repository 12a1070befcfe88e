//! A scratch channel as its plugin reads it. Every answer is there at once.

use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::plugin::{Channel, Fault, ReadFuture, Stats};
use crate::protocol::event::MemberId;
use crate::protocol::identity::Identity;
use crate::protocol::sql::{Rows, SqlError, Value};
use crate::registry::scratch::kept::Kept;

/// Answers statements: the statement's name and its parameters.
pub type Database = Arc<dyn Fn(&str, &[Value]) -> Result<Rows, SqlError> + Send + Sync>;

/// What the plugin reads, shared with the instance that reads it.
pub(super) struct Held {
    pub(super) state: Mutex<State>,
    pub(super) database: Database,
}

#[derive(Clone, Default)]
pub(super) struct State {
    pub(super) kept: Kept,
    /// In the order in which the broker has them.
    pub(super) members: Vec<(MemberId, Identity)>,
    /// Instead of what is counted here.
    pub(super) stats: Option<Stats>,
    pub(super) uptime_ms: u64,
}

impl Held {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn member(&self, id: MemberId) -> Option<&Identity> {
        self.members.iter().find(|(member, _)| *member == id).map(|(_, identity)| identity)
    }

    /// The last one moves to its place, as in the broker.
    pub(super) fn forget(&mut self, id: MemberId) {
        if let Some(position) = self.members.iter().position(|(member, _)| *member == id) {
            self.members.swap_remove(position);
        }
    }
}

fn answer<'a, T: Send + 'a>(answer: T) -> ReadFuture<'a, T> {
    Box::pin(ready(Ok::<T, Fault>(answer)))
}

impl Channel for Held {
    fn get<'a>(&'a self, key: &'a str) -> ReadFuture<'a, Option<Bytes>> {
        answer(self.lock().kept.get(key))
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        descending: bool,
        limit: u32,
    ) -> ReadFuture<'a, Vec<(String, Bytes)>> {
        answer(self.lock().kept.scan(prefix, after, descending, limit))
    }

    fn read_log(&self, from: u64, before: u64, limit: u32) -> ReadFuture<'_, Vec<(u64, u64, Bytes)>> {
        answer(self.lock().kept.read_log(from, before, limit))
    }

    fn log_bounds(&self) -> (u64, u64) {
        self.lock().kept.log_bounds()
    }

    fn state_bytes(&self) -> u64 {
        self.lock().kept.state_bytes()
    }

    fn members(&self) -> Vec<(MemberId, Identity)> {
        self.lock().members.clone()
    }

    fn member(&self, id: MemberId) -> Option<Identity> {
        self.lock().member(id).cloned()
    }

    fn query<'a>(&'a self, statement: &'a str, parameters: Vec<Value>) -> ReadFuture<'a, Result<Rows, SqlError>> {
        answer((self.database)(statement, &parameters))
    }

    fn stats(&self) -> Stats {
        let state = self.lock();
        let counted = || {
            let mut users: Vec<&str> = state.members.iter().map(|(_, identity)| identity.user()).collect();
            users.sort_unstable();
            users.dedup();
            let connections = state.members.len() as u64;
            Stats { uptime_ms: state.uptime_ms, connections, users: users.len() as u64, channels: 1 }
        };
        state.stats.unwrap_or_else(counted)
    }
}
