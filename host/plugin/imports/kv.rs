//! `hotbay:channel/kv`: the channel's durable state. Reads see, newest first: the batch under way, batches on their way
//! to the disk, the store.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::limits::{READ_ENTRIES_MAX, STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX};
use crate::plugin::bindings::hotbay::channel::kv;
use crate::plugin::fault::Fault;
use crate::plugin::state::State;
use crate::protocol::overlay::{Overlay, Page};

impl kv::Host for State {
    async fn get(&mut self, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        let (channel, _, _) = self.channel()?;
        if let Some(written) = self.effects.state.get(&key) {
            return Ok(written.as_ref().map(|value| value.to_vec()));
        }
        let channel = Arc::clone(channel);
        let value = self.waiting(channel.get(&key)).await?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn put(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<()> {
        let (channel, _, _) = self.channel()?;
        let state_bytes = channel.state_bytes();
        check_key(&key)?;
        if value.len() > STATE_VALUE_BYTES_MAX {
            return Err(Fault::refused(format!("a state value over {STATE_VALUE_BYTES_MAX} bytes")).into());
        }
        if state_bytes > self.limits.state_bytes_max {
            let bytes_max = self.limits.state_bytes_max;
            return Err(
                Fault::refused(format!("the channel's state is over {bytes_max} bytes (state_bytes_max)")).into()
            );
        }
        self.charge(key.len() + value.len())?;
        self.effects.state.insert(key, Some(value.into()));
        Ok(())
    }

    fn delete(&mut self, key: String) -> wasmtime::Result<()> {
        self.channel()?;
        check_key(&key)?;
        self.charge(key.len())?;
        self.effects.state.insert(key, None);
        Ok(())
    }

    async fn scan(&mut self, prefix: String, order: kv::Order, limit: u32) -> wasmtime::Result<Vec<(String, Vec<u8>)>> {
        let channel = Arc::clone(self.channel()?.0);
        let limit = limit.min(READ_ENTRIES_MAX);
        let descending = order == kv::Order::Descending;
        // Each key the batch deleted may take one entry away.
        let deleted = self.written(&prefix).filter(|(_, value)| value.is_none()).count() as u32;
        let ask = limit.saturating_add(deleted);
        let mut answer = Overlay::new(descending, limit);
        let mut after: Option<String> = None;
        loop {
            let below = self.waiting(channel.scan(&prefix, after.as_deref(), descending, ask)).await?;
            match answer.add(after.as_deref(), Page::of_answer(below, ask), self.written(&prefix)) {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        Ok(answer.into_bounded().into_iter().map(|(key, value)| (key, value.to_vec())).collect())
    }
}

impl State {
    /// What the batch under way wrote to keys with a prefix; `None` is deleted.
    fn written<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, Option<&'a Bytes>)> {
        let range = (Bound::Included(prefix), Bound::Unbounded);
        let written = self.effects.state.range::<str, _>(range).map(|(key, value)| (key.as_str(), value.as_ref()));
        written.take_while(move |(key, _)| key.starts_with(prefix))
    }
}

fn check_key(key: &str) -> Result<(), Fault> {
    if key.len() > STATE_KEY_BYTES_MAX {
        return Err(Fault::refused(format!("a state key over {STATE_KEY_BYTES_MAX} bytes")));
    }
    Ok(())
}
