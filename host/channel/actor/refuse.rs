//! Telling senders that what they sent had no effect, in the plugin's own words.

use crate::channel::actor::Actor;
use crate::channel::mailbox::Reply;
use crate::fanout::Recipient;
use crate::protocol::close::Close;
use crate::protocol::event::{Event, MemberId};
use crate::protocol::frame::{Delivery, encode_payload};
use crate::protocol::refusal::{Refusal, RefusalCode};
use crate::telemetry::now_ms;

impl Actor {
    /// Tells whoever sent an event that it had no effect.
    pub(super) async fn refuse(&mut self, event: Event, code: RefusalCode) {
        let why = match (code, &self.over) {
            (RefusalCode::Fault, _) => {
                Refusal::new(code, "the channel's plugin failed on this message; nothing was changed")
            }
            (RefusalCode::Unavailable, Some(over)) => Refusal::new(code, over.clone()),
            _ => Refusal::new(code, "the channel cannot serve this now; nothing was changed, try again later"),
        };
        if let Event::Timer { name, durable: true } = &event
            && code == RefusalCode::Fault
        {
            self.spent_timers.push(name.clone());
        }
        self.refuse_for_good(&event, &why).await;
    }

    /// Tells whoever sent an event that nobody knows whether it had an effect.
    pub(super) async fn tell_unsure(&mut self, event: Event) {
        let words = "the store did not confirm this in time: it may or may not have taken hold";
        self.refuse_for_good(&event, &Refusal::new(RefusalCode::Unavailable, words)).await;
    }

    /// Refuses an event that is not in a batch any more.
    async fn refuse_for_good(&mut self, event: &Event, why: &Refusal) {
        self.refuse_with(event, why).await;
        if let Event::Join { member, .. } = event {
            self.settle_join(*member);
        }
    }

    async fn refuse_with(&mut self, event: &Event, why: &Refusal) {
        match event {
            Event::Join { member, .. } => self.refuse_join(*member, event, why).await,
            Event::Leave { member, .. } => {
                // A leave that never ran still is one: nobody is there any more.
                if !self.leaving.contains_key(member) {
                    self.with_roster(|roster| drop(roster.remove(*member)));
                }
                self.forget_left(*member);
            }
            Event::Message { member, .. } => {
                let recipient = self.with_roster(|roster| roster.find(*member).cloned());
                if let Some(recipient) = recipient.or_else(|| self.leaving.get(member).cloned()) {
                    self.tell(&recipient, event, why).await;
                }
            }
            Event::Timer { .. } => {}
            Event::Publish { .. } | Event::Request { .. } => {
                self.answer(event.request(), Reply::Refused(why.clone()));
            }
        }
    }

    /// The plugin says that an event had no effect.
    pub(super) async fn reject(&mut self, event: &Event, why: &Refusal) {
        if !matches!(event, Event::Leave { .. }) {
            self.refuse_with(event, why).await;
        }
    }

    /// A join had no effect. Whoever was a member before, and only asked again, stays one.
    async fn refuse_join(&mut self, member: MemberId, event: &Event, why: &Refusal) {
        self.rejected.remove(&member);
        let known = self.with_roster(|roster| roster.find(member).cloned());
        let mut orphans = Vec::new();
        if known.is_none() {
            // From here on the connection itself refuses what is sent to the channel.
            if let Some(membership) = self.memberships.remove(&member) {
                membership.end();
            }
            orphans.extend(self.orphans.extract_if(.., |orphan| orphan.member() == Some(member)));
            orphans.extend(self.core.forget(member));
        }
        let Some(recipient) = known.or_else(|| self.joiner(member)) else { return };
        self.tell(&recipient, event, why).await;
        for orphan in orphans {
            self.tell_orphan(&recipient, &orphan).await;
            if let Event::Join { .. } = orphan {
                self.settle_join(member);
            }
        }
    }

    /// Tells whoever sent an event behind a join that was refused.
    pub(super) async fn tell_orphan(&mut self, recipient: &Recipient, event: &Event) {
        let why = match event {
            Event::Join { .. } => Refusal::new(RefusalCode::Unavailable, "an earlier join was refused; join again"),
            _ => Refusal::new(RefusalCode::NotJoined, "not a member of the channel"),
        };
        self.tell(recipient, event, &why).await;
    }

    /// Puts a refusal into the plugin's words and sends it.
    pub(super) async fn tell(&mut self, recipient: &Recipient, event: &Event, why: &Refusal) {
        let frame = match event {
            Event::Join { frame, .. } | Event::Leave { frame, .. } => frame.as_ref(),
            Event::Message { payload, .. } => Some(payload),
            _ => None,
        };
        metrics::counter!("hotbay_refusals_total", "code" => why.code.as_str()).increment(1);
        if self.assigned.version.is_withdrawn() {
            // It has no words any more.
            return recipient.outbox.close(Close::WITHDRAWN);
        }
        let (router, quota) = (&self.assigned.version.router, Some(&self.channel.quota));
        match router.refused_for(quota, &recipient.identity, now_ms(), frame, why).await {
            Ok(Some(payload)) => recipient.outbox.send(encode_payload(&payload), Delivery::HIGH),
            Ok(None) => {}
            Err(fault) => self.count_fault(&fault),
        }
        let bad_max = self.channel.logic.limits.bad_messages_per_minute_max;
        recipient.outbox.count_refusal(why.code, bad_max, now_ms());
    }
}
