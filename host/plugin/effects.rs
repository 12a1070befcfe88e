//! The effects of a batch, buffered while its plugin runs. They take hold all together after the commit, or not at
//! all. Bounds are checked as the effects come in, so that a flood ends where it starts.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::limits::MountLimits;
use crate::plugin::fault::Fault;
use crate::protocol::burst::BurstBuilder;
use crate::protocol::event::{HttpResponse, MemberId, RequestId};
use crate::protocol::frame::{Audience, Delivery, Payload};
use crate::protocol::refusal::Refusal;

/// What a plugin asked for.
#[derive(Debug, Default)]
pub struct Effects {
    /// Frames to members.
    pub frames: BurstBuilder,
    /// Connections to close after those frames: member, code, reason.
    pub closes: Vec<(MemberId, u16, String)>,
    /// Events that had no effect, by index, and why.
    pub rejects: Vec<(u32, Refusal)>,
    /// Messages to other channels of the tenant: name and payload.
    pub publishes: Vec<(String, Payload)>,
    /// Answers to HTTP requests.
    pub responses: Vec<(RequestId, HttpResponse)>,
    /// Timers to set or cancel.
    pub timers: BTreeMap<String, Option<Timer>>,
    /// State values to set or delete.
    pub state: BTreeMap<String, Option<Bytes>>,
    /// Log entries to append.
    pub appends: Vec<Bytes>,
    /// Log entries to write over.
    pub replaces: BTreeMap<u64, Bytes>,
    /// Forget log entries before this offset.
    pub trim_before: Option<u64>,
    count: usize,
    bytes: usize,
}

/// A timer to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    /// When it fires, in milliseconds since the Unix epoch.
    pub due_ms: u64,
    /// Whether it survives the instance.
    pub durable: bool,
}

impl Effects {
    /// Counts one effect of this many bytes against the batch's bounds.
    ///
    /// # Errors
    /// If a bound is passed; the whole batch is refused then.
    pub fn charge(&mut self, bytes: usize, limits: &MountLimits) -> Result<(), Fault> {
        self.count += 1;
        self.bytes += bytes;
        if self.count > limits.effects_max {
            return Err(Fault::refused(format!("more than {} effects in one batch (effects_max)", limits.effects_max)));
        }
        if self.bytes > limits.effect_bytes_max {
            return Err(Fault::refused(format!(
                "more than {} bytes of effects in one batch (effect_bytes_max)",
                limits.effect_bytes_max
            )));
        }
        Ok(())
    }

    /// Adds a frame.
    ///
    /// # Errors
    /// See [`Effects::charge`].
    pub fn send(
        &mut self,
        event: u32,
        payload: &Payload,
        audience: Audience,
        delivery: Delivery,
        limits: &MountLimits,
    ) -> Result<(), Fault> {
        /// What a frame costs beside what it carries: its header, and where it lies and how it is delivered.
        const FRAME_BYTES: usize = 64;
        let named = match &audience {
            Audience::All | Audience::Except(_) => 0,
            Audience::Only(members) => size_of_val(&**members),
            Audience::User(user) => user.len(),
        };
        let key = delivery.conflate.as_ref().map_or(0, |key| key.len());
        self.charge(FRAME_BYTES + payload.len() + named + key, limits)?;
        self.frames.push(event, payload, audience, delivery);
        Ok(())
    }
}
