//! `hotbay:channel/channel`: effects on members. Nothing here touches a socket: frames are encoded into the batch's
//! burst, everything else is noted down.

use crate::limits::TIMER_NAME_BYTES_MAX;
use crate::plugin::bindings::hotbay::channel as wit;
use crate::plugin::convert;
use crate::plugin::effects::Timer;
use crate::plugin::fault::Fault;
use crate::plugin::state::State;
use crate::protocol::event::{Event, HttpResponse, MemberId, RequestId};
use crate::protocol::frame::{Audience, Delivery, Priority};
use crate::protocol::name::ChannelName;

use wit::channel::{Audience as WitAudience, Delivery as WitDelivery, HttpResponse as WitResponse, TimerKeep};

impl wit::types::Host for State {}

impl wit::channel::Host for State {
    fn broadcast(
        &mut self,
        event: u32,
        to: WitAudience,
        what: wit::types::PayloadResult,
        how: WitDelivery,
    ) -> wasmtime::Result<()> {
        self.check_event(event)?;
        let payload = convert::payload(what);
        Ok(self.effects.send(event, &payload, audience(to), delivery(how)?, &self.limits)?)
    }

    fn forward(&mut self, event: u32, to: WitAudience, how: WitDelivery) -> wasmtime::Result<()> {
        let (_, _, batch) = self.channel()?;
        let payload = match batch.and_then(|batch| batch.events.get(event as usize)) {
            Some(Event::Message { payload, .. } | Event::Publish { payload, .. }) => payload.clone(),
            _ => {
                return Err(Fault::refused(format!("forward of event {event}, which is no message or publish")).into());
            }
        };
        Ok(self.effects.send(event, &payload, audience(to), delivery(how)?, &self.limits)?)
    }

    fn close(&mut self, who: u64, code: u16, reason: String) -> wasmtime::Result<()> {
        self.channel()?;
        if !matches!(code, 1000 | 1008 | 3000..=4999) {
            return Err(Fault::refused(format!("close code {code}; allowed are 1000, 1008 and 3000 to 4999")).into());
        }
        self.charge(reason.len())?;
        self.effects.closes.push((MemberId(who), code, reason));
        Ok(())
    }

    fn reject(&mut self, event: u32, why: wit::types::RefusalResult) -> wasmtime::Result<()> {
        self.check_event(event)?;
        self.charge(why.message.len())?;
        self.effects.rejects.push((event, convert::refusal(why)));
        Ok(())
    }

    fn publish(&mut self, channel: String, what: wit::types::PayloadResult) -> wasmtime::Result<()> {
        self.channel()?;
        let payload = convert::payload(what);
        self.charge(channel.len() + payload.len())?;
        // Only the form is checked here; whether the mount serves the name is known where it is delivered.
        ChannelName::new("tenant", &channel).map_err(|e| Fault::refused(format!("publish: {e}")))?;
        self.effects.publishes.push((channel, payload));
        Ok(())
    }

    fn respond(&mut self, request: u64, response: WitResponse) -> wasmtime::Result<()> {
        self.channel()?;
        let headers: usize = response.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.charge(headers + response.body.len())?;
        if !(200..=599).contains(&response.status) {
            return Err(Fault::refused(format!("HTTP status {}; allowed are 200 to 599", response.status)).into());
        }
        let response = HttpResponse { status: response.status, headers: response.headers, body: response.body.into() };
        self.effects.responses.push((RequestId(request), response));
        Ok(())
    }

    fn set_timer(&mut self, name: String, after_ms: u64, keep: TimerKeep) -> wasmtime::Result<()> {
        let (_, now_ms, _) = self.channel()?;
        let due_ms = now_ms.saturating_add(after_ms);
        if name.len() > TIMER_NAME_BYTES_MAX {
            return Err(Fault::refused(format!("a timer name over {TIMER_NAME_BYTES_MAX} bytes")).into());
        }
        self.charge(name.len())?;
        self.effects.timers.insert(name, Some(Timer { due_ms, durable: keep == TimerKeep::Durable }));
        Ok(())
    }

    fn cancel_timer(&mut self, name: String) -> wasmtime::Result<()> {
        self.channel()?;
        self.charge(name.len())?;
        self.effects.timers.insert(name, None);
        Ok(())
    }

    fn members(&mut self) -> wasmtime::Result<Vec<wit::types::Member>> {
        let (channel, _, _) = self.channel()?;
        let members = channel.members();
        let members = members
            .iter()
            .map(|(id, identity)| wit::types::Member { id: id.0, identity: convert::give_identity(identity) });
        Ok(members.collect())
    }

    fn find_member(&mut self, id: u64) -> wasmtime::Result<Option<wit::types::Member>> {
        let (channel, _, _) = self.channel()?;
        let identity = channel.member(MemberId(id));
        Ok(identity.map(|identity| wit::types::Member { id, identity: convert::give_identity(&identity) }))
    }
}

impl State {
    /// An index must name an event of the batch; during `open`, which has none, only 0.
    fn check_event(&self, event: u32) -> Result<(), Fault> {
        let (_, _, batch) = self.channel()?;
        let events = batch.map_or(1, |batch| batch.events.len());
        if (event as usize) < events {
            Ok(())
        } else {
            Err(Fault::refused(format!("an effect on account of event {event}, but the batch has {events}")))
        }
    }
}

fn audience(audience: WitAudience) -> Audience {
    match audience {
        WitAudience::All => Audience::All,
        WitAudience::Except(member) => Audience::Except(MemberId(member)),
        WitAudience::Only(members) => Audience::Only(members.into_iter().map(MemberId).collect()),
        WitAudience::User(user) => Audience::User(user.into()),
    }
}

fn delivery(delivery: WitDelivery) -> Result<Delivery, Fault> {
    const KEY_BYTES_MAX: usize = 256;
    if delivery.conflate.as_ref().is_some_and(|key| key.len() > KEY_BYTES_MAX) {
        return Err(Fault::refused(format!("a conflation key over {KEY_BYTES_MAX} bytes")));
    }
    let priority = match delivery.priority {
        wit::channel::Priority::Low => Priority::Low,
        wit::channel::Priority::Normal => Priority::Normal,
        wit::channel::Priority::High => Priority::High,
    };
    Ok(Delivery { priority, conflate: delivery.conflate.map(Into::into) })
}
