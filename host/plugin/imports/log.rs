//! `hotbay:channel/log`: the channel's durable log. Offsets follow each other without gaps, over the batch under way,
//! batches on their way to the disk, and the store.

use std::sync::Arc;

use bytes::Bytes;

use crate::limits::{READ_BYTES_MAX, READ_ENTRIES_MAX, STATE_VALUE_BYTES_MAX};
use crate::plugin::bindings::hotbay::channel::log;
use crate::plugin::fault::Fault;
use crate::plugin::state::State;

impl log::Host for State {
    fn append(&mut self, data: Vec<u8>) -> wasmtime::Result<u64> {
        let (_, next) = self.log_bounds()?;
        check_entry(&data)?;
        self.charge(data.len())?;
        self.effects.appends.push(data.into());
        Ok(next)
    }

    async fn read(&mut self, from: u64, limit: u32) -> wasmtime::Result<Vec<log::Entry>> {
        let (channel, now_ms, _) = self.channel()?;
        let limit = limit.min(READ_ENTRIES_MAX);
        let (first, _) = self.log_bounds()?;
        let (_, known_next) = channel.log_bounds();
        let from = from.max(first);
        let mut entries: Vec<(u64, u64, Bytes)> = Vec::new();
        if from < known_next {
            let channel = Arc::clone(channel);
            entries = self.waiting(channel.read_log(from, known_next, limit)).await?;
        }
        let next = entries.last().map_or(from, |(offset, _, _)| offset + 1);
        if next >= known_next {
            let appended =
                self.effects.appends.iter().zip(known_next..).map(|(data, offset)| (offset, now_ms, data.clone()));
            entries.extend(appended.skip_while(|(offset, _, _)| *offset < from));
        }
        let mut bytes = 0;
        let mut found = Vec::new();
        for (offset, at_ms, mut data) in entries.into_iter().take(limit as usize) {
            if let Some(replaced) = self.effects.replaces.get(&offset) {
                data = replaced.clone();
            }
            bytes += data.len();
            if bytes > READ_BYTES_MAX && !found.is_empty() {
                break;
            }
            found.push(log::Entry { offset, at_ms, data: data.to_vec() });
        }
        Ok(found)
    }

    async fn replace(&mut self, offset: u64, data: Vec<u8>) -> wasmtime::Result<bool> {
        check_entry(&data)?;
        let (first, next) = self.log_bounds()?;
        if !(first..next).contains(&offset) {
            return Ok(false);
        }
        self.charge(data.len())?;
        let (_, known_next) = self.channel()?.0.log_bounds();
        match offset.checked_sub(known_next) {
            Some(index) => self.effects.appends[index as usize] = data.into(),
            None => drop(self.effects.replaces.insert(offset, data.into())),
        }
        Ok(true)
    }

    fn trim(&mut self, before: u64) -> wasmtime::Result<()> {
        let (channel, _, _) = self.channel()?;
        // What the batch itself appended stays: it is not committed yet.
        let before = before.min(channel.log_bounds().1);
        self.charge(0)?;
        let trim = &mut self.effects.trim_before;
        *trim = Some(trim.map_or(before, |earlier| earlier.max(before)));
        Ok(())
    }

    fn bounds(&mut self) -> wasmtime::Result<log::Extent> {
        let (first, next) = self.log_bounds()?;
        Ok(log::Extent { first, next })
    }
}

impl State {
    /// Offset of the oldest entry and of the next append, as the batch under way sees them.
    fn log_bounds(&self) -> Result<(u64, u64), Fault> {
        let (first, next) = self.channel()?.0.log_bounds();
        let first = self.effects.trim_before.map_or(first, |before| first.max(before));
        Ok((first, next + self.effects.appends.len() as u64))
    }
}

fn check_entry(data: &[u8]) -> Result<(), Fault> {
    if data.len() > STATE_VALUE_BYTES_MAX {
        return Err(Fault::refused(format!("a log entry over {STATE_VALUE_BYTES_MAX} bytes")));
    }
    Ok(())
}
