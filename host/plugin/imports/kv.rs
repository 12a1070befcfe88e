//! `hotbay:channel/kv`: the channel's durable state. Reads see, newest first: the batch under way, batches on their way
//! to the disk, the store.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::limits::{READ_BYTES_MAX, READ_ENTRIES_MAX, STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX};
use crate::plugin::bindings::hotbay::channel::kv;
use crate::plugin::fault::Fault;
use crate::plugin::state::State;

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
        let (channel, _, _) = self.channel()?;
        let limit = limit.min(READ_ENTRIES_MAX);
        let descending = order == kv::Order::Descending;
        // Each key the batch deleted may take one committed entry away.
        let deleted = self.effects.state.values().filter(|value| value.is_none()).count() as u32;
        let channel = Arc::clone(channel);
        let stored = self.waiting(channel.scan(&prefix, None, descending, limit.saturating_add(deleted))).await?;
        Ok(merge(stored, &self.effects.state, &prefix, descending, limit))
    }
}

/// Lays what the batch wrote over what was stored.
fn merge(
    stored: Vec<(String, Bytes)>,
    written: &BTreeMap<String, Option<Bytes>>,
    prefix: &str,
    descending: bool,
    limit: u32,
) -> Vec<(String, Vec<u8>)> {
    let mut entries: BTreeMap<String, Option<Bytes>> =
        stored.into_iter().map(|(key, value)| (key, Some(value))).collect();
    let range = (Bound::Included(prefix), Bound::Unbounded);
    for (key, value) in written.range::<str, _>(range).take_while(|(key, _)| key.starts_with(prefix)) {
        entries.insert(key.clone(), value.clone());
    }
    let mut found = Vec::new();
    let mut bytes = 0;
    let mut take = |(key, value): (String, Option<Bytes>)| {
        let Some(value) = value else { return true };
        bytes += key.len() + value.len();
        if found.len() >= limit as usize || (bytes > READ_BYTES_MAX && !found.is_empty()) {
            return false;
        }
        found.push((key, value.to_vec()));
        true
    };
    if descending {
        entries.into_iter().rev().all(&mut take);
    } else {
        entries.into_iter().all(&mut take);
    }
    found
}

fn check_key(key: &str) -> Result<(), Fault> {
    if key.len() > STATE_KEY_BYTES_MAX {
        return Err(Fault::refused(format!("a state key over {STATE_KEY_BYTES_MAX} bytes")));
    }
    Ok(())
}
