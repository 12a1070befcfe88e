//! What a batch did: its effects, and what each member received because of them.

use crate::{Audience, Delivery, HttpResponse, MemberId, Payload, Refusal};

/// Something a plugin asked for, in the order of the calls.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// A frame by `broadcast` or `forward`.
    Frame {
        /// The event on whose account it was sent, by its index in the batch.
        event: u32,
        /// Who it is for.
        to: Audience,
        /// What it carries.
        what: Payload,
        /// How it is treated when its receiver is slow.
        how: Delivery,
    },
    /// A connection closed.
    Close {
        /// Whose.
        member: MemberId,
        /// The close code.
        code: u16,
        /// The close reason.
        reason: String,
    },
    /// An event refused.
    Reject {
        /// By its index in the batch.
        event: u32,
        /// Why.
        why: Refusal,
    },
    /// A message to another channel.
    Publish {
        /// Its name.
        channel: String,
        /// The message.
        what: Payload,
    },
    /// An answer to an HTTP request.
    Respond {
        /// The request's id.
        request: u64,
        /// The answer.
        response: HttpResponse,
    },
}

/// What became of one or more batches.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// The effects that took hold.
    pub effects: Vec<Effect>,
    /// What was sent to whom, in order. Refusals are among it, in the words of `Plugin::refused`.
    pub received: Vec<(MemberId, Payload)>,
    /// Events that were refused, by the plugin or for a fault.
    pub refusals: Vec<Refusal>,
    /// Connections that were closed: member, code, reason.
    pub closed: Vec<(MemberId, u16, String)>,
    /// The messages of the panics on the way; their batches left no other trace.
    pub faults: Vec<String>,
    /// A channel that a frame was routed to, but that the harness does not hold.
    pub routed_elsewhere: Option<String>,
}

impl Outcome {
    /// The texts one member received, in order. A binary message shows as `<n bytes>`.
    pub fn texts(&self, member: MemberId) -> Vec<String> {
        let mine = self.received.iter().filter(|(to, _)| *to == member);
        mine.map(|(_, what)| match what {
            Payload::Text(text) => text.clone(),
            Payload::Binary(bytes) => format!("<{} bytes>", bytes.len()),
        })
        .collect()
    }

    /// The answers to HTTP requests.
    pub fn responses(&self) -> Vec<&HttpResponse> {
        let answers = self.effects.iter().filter_map(|effect| match effect {
            Effect::Respond { response, .. } => Some(response),
            _ => None,
        });
        answers.collect()
    }

    pub(super) fn absorb(&mut self, later: Self) {
        self.effects.extend(later.effects);
        self.received.extend(later.received);
        self.refusals.extend(later.refusals);
        self.closed.extend(later.closed);
        self.faults.extend(later.faults);
        self.routed_elsewhere = later.routed_elsewhere.or(self.routed_elsewhere.take());
    }
}
