//! One instance of a plugin: a store with its component, for one channel. Calls never overlap. After a fault the
//! instance is spent.

use std::sync::Arc;
use std::time::Instant;

use wasmtime::Store;

use crate::plugin::Plugin;
use crate::plugin::bindings::Plugin as Bindings;
use crate::plugin::bindings::exports::hotbay::channel::handler as wit;
use crate::plugin::effects::Effects;
use crate::plugin::fault::Fault;
use crate::plugin::state::{self, Call, Channel, State};
use crate::protocol::event::Batch;
use crate::protocol::frame::Payload;
use crate::protocol::name::ChannelName;
use crate::protocol::refusal::Refusal;

/// A running instance.
pub struct Instance {
    store: Store<State>,
    bindings: Bindings,
}

/// What `open` is told about the channel.
pub struct Opening<'a> {
    /// The channel.
    pub name: &'a ChannelName,
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// A random number.
    pub seed: u64,
    /// The mount's settings, as the text of a JSON object.
    pub settings: &'a str,
    /// What the instance before saved.
    pub saved: Option<&'a [u8]>,
}

impl Instance {
    /// Starts an instance with fresh memory. `label` names it in the plugin's log lines.
    ///
    /// # Errors
    /// If the pool is exhausted, or the component's start code fails.
    pub async fn start(
        plugin: &Plugin,
        limits: Arc<crate::limits::MountLimits>,
        seed: u64,
        label: &str,
    ) -> Result<Self, Fault> {
        let mut store = Store::new(plugin.engine(), State::new(limits, seed, label));
        state::bound(&mut store);
        state::start_clock(&mut store);
        let bindings =
            plugin.pre().instantiate_async(&mut store).await.map_err(|error| match Fault::from_call(&error) {
                Fault::Trap { message } => Fault::Start { cause: message },
                fault => fault,
            })?;
        Ok(Self { store, bindings })
    }

    /// Calls `open`. Its effects stay buffered: they come out with those of the first batch.
    ///
    /// # Errors
    /// If the plugin fails or returns an error.
    pub async fn open(&mut self, channel: Arc<dyn Channel>, opening: Opening<'_>) -> Result<(), Fault> {
        let info = wit::ChannelInfo {
            tenant: opening.name.tenant().to_owned(),
            name: opening.name.name().to_owned(),
            now_ms: opening.now_ms,
            seed: opening.seed,
            settings: opening.settings.to_owned(),
        };
        let saved = opening.saved.map(<[u8]>::to_vec);
        self.begin(Call::Channel { channel, now_ms: opening.now_ms, batch: None }, opening.now_ms, opening.seed);
        let handler = self.bindings.hotbay_channel_handler();
        let result = handler.call_open(&mut self.store, &info, saved.as_deref()).await;
        match self.end(result)? {
            Ok(()) => Ok(()),
            Err(message) => Err(Fault::Open { message: message.chars().take(500).collect() }),
        }
    }

    /// Calls `handle` with a batch and returns its effects.
    ///
    /// # Errors
    /// If the plugin fails or breaks a bound: then there are no effects.
    pub async fn handle(&mut self, channel: Arc<dyn Channel>, batch: &Arc<Batch>) -> Result<Effects, Fault> {
        let call = wit::Batch {
            now_ms: batch.now_ms,
            seed: batch.seed,
            events: batch.events.iter().map(convert::event).collect::<Result<_, _>>()?,
        };
        self.begin(
            Call::Channel { channel, now_ms: batch.now_ms, batch: Some(Arc::clone(batch)) },
            batch.now_ms,
            batch.seed,
        );
        let handler = self.bindings.hotbay_channel_handler();
        let result = handler.call_handle(&mut self.store, &call).await;
        self.end(result)?;
        Ok(std::mem::take(&mut self.store.data_mut().effects))
    }

    /// Calls `save`.
    ///
    /// # Errors
    /// If the plugin fails or returns more than the mount allows.
    pub async fn save(&mut self, channel: Arc<dyn Channel>, now_ms: u64) -> Result<Vec<u8>, Fault> {
        self.begin(Call::Channel { channel, now_ms, batch: None }, now_ms, 0);
        let result = self.bindings.hotbay_channel_handler().call_save(&mut self.store).await;
        let saved = self.end(result)?;
        let bytes_max = self.store.data().limits.saved_bytes_max;
        if saved.len() > bytes_max {
            return Err(Fault::refused(format!("save returned more than {bytes_max} bytes (saved_bytes_max)")));
        }
        Ok(saved)
    }

    /// Calls `route`, on an instance that serves no channel.
    ///
    /// # Errors
    /// If the plugin fails.
    pub(super) async fn route(&mut self, sender: &wit::Sender, frame: &Payload) -> Result<wit::Routing, Fault> {
        let frame = convert::to_wit(frame)?;
        self.begin(Call::Pure, sender.now_ms, 0);
        let result = self.bindings.hotbay_channel_handler().call_route(&mut self.store, sender, &frame).await;
        self.end(result)
    }

    /// Calls `refused`, on an instance that serves no channel.
    ///
    /// # Errors
    /// If the plugin fails.
    pub(super) async fn refused(
        &mut self,
        sender: &wit::Sender,
        frame: Option<&Payload>,
        why: &Refusal,
    ) -> Result<Option<Payload>, Fault> {
        let frame = frame.map(convert::to_wit).transpose()?;
        let why = convert::refusal_to(why);
        self.begin(Call::Pure, sender.now_ms, 0);
        let handler = self.bindings.hotbay_channel_handler();
        let result = handler.call_refused(&mut self.store, sender, frame.as_ref(), &why).await;
        Ok(self.end(result)?.map(convert::payload))
    }

    fn begin(&mut self, call: Call, now_ms: u64, seed: u64) {
        state::start_clock(&mut self.store);
        let state = self.store.data_mut();
        state.clock.set(now_ms, seed);
        state.call = call;
        state.started = Some(Instant::now());
    }

    fn end<T>(&mut self, result: wasmtime::Result<T>) -> Result<T, Fault> {
        let state = self.store.data_mut();
        state.call = Call::Pure;
        state.finish();
        result.map_err(|error| Fault::from_call(&error))
    }

    /// CPU time of the calls since the last question, in nanoseconds, without waiting for reads.
    pub fn take_cpu_ns(&mut self) -> u64 {
        std::mem::take(&mut self.store.data_mut().cpu_ns)
    }
}

/// Between the host's types and those of the WIT package.
pub(super) mod convert {
    use super::wit;
    use crate::plugin::bindings::hotbay::channel::types;
    use crate::plugin::fault::Fault;
    use crate::protocol::event::{Event, LeaveReason, Source};
    use crate::protocol::frame::Payload;
    use crate::protocol::identity::Identity;
    use crate::protocol::refusal::{Refusal, RefusalCode};

    pub(in crate::plugin) fn payload(payload: types::Payload) -> Payload {
        match payload {
            types::Payload::Text(text) => Payload::Text(text.into()),
            types::Payload::Binary(bytes) => Payload::Binary(bytes.into()),
        }
    }

    pub(in crate::plugin) fn to_wit(payload: &Payload) -> Result<types::Payload, Fault> {
        Ok(match payload {
            Payload::Text(bytes) => types::Payload::Text(
                String::from_utf8(bytes.to_vec()).map_err(|e| Fault::refused(format!("a text payload: {e}")))?,
            ),
            Payload::Binary(bytes) => types::Payload::Binary(bytes.to_vec()),
        })
    }

    pub(in crate::plugin) fn identity(identity: &Identity) -> types::Identity {
        types::Identity {
            user: identity.user().to_owned(),
            role: identity.role().to_owned(),
            claims: identity.claims().to_owned(),
        }
    }

    pub(super) fn event(event: &Event) -> Result<wit::Event, Fault> {
        Ok(match event {
            Event::Join { member, identity: who, frame } => wit::Event::Join(wit::Joined {
                member: member.0,
                identity: identity(who),
                frame: frame.as_ref().map(to_wit).transpose()?,
            }),
            Event::Leave { member, identity, why, frame } => wit::Event::Leave(wit::Left {
                member: member.0,
                user: identity.user().to_owned(),
                why: match why {
                    LeaveReason::Asked => wit::LeaveReason::Asked,
                    LeaveReason::Disconnected => wit::LeaveReason::Disconnected,
                    LeaveReason::Closed => wit::LeaveReason::Closed,
                },
                frame: frame.as_ref().map(to_wit).transpose()?,
            }),
            Event::Message { member, identity, payload } => wit::Event::Message(wit::Message {
                member: member.0,
                user: identity.user().to_owned(),
                payload: to_wit(payload)?,
            }),
            Event::Timer { name, .. } => wit::Event::Timer(name.clone()),
            Event::Publish { source, payload, .. } => wit::Event::Publish(wit::Publication {
                source: match source {
                    Source::Api(key) => wit::Source::Api(key.to_string()),
                    Source::Channel(name) => wit::Source::Channel(name.to_string()),
                },
                payload: to_wit(payload)?,
            }),
            Event::Request { request, http } => wit::Event::Request(wit::HttpRequest {
                id: request.0,
                method: http.method.clone(),
                path: http.path.clone(),
                query: http.query.clone(),
                headers: http.headers.clone(),
                body: http.body.to_vec(),
                identity: http.identity.as_ref().map(identity),
            }),
        })
    }

    pub(in crate::plugin) fn refusal_from(refusal: types::Refusal) -> Refusal {
        let code = match refusal.code {
            types::RefusalCode::BadRequest => RefusalCode::BadRequest,
            types::RefusalCode::Forbidden => RefusalCode::Forbidden,
            types::RefusalCode::NotFound => RefusalCode::NotFound,
            types::RefusalCode::NotJoined => RefusalCode::NotJoined,
            types::RefusalCode::TooLarge => RefusalCode::TooLarge,
            types::RefusalCode::RateLimited => RefusalCode::RateLimited,
            types::RefusalCode::Conflict => RefusalCode::Conflict,
            types::RefusalCode::Unavailable => RefusalCode::Unavailable,
            types::RefusalCode::Fault => RefusalCode::Fault,
            types::RefusalCode::Lost => RefusalCode::Lost,
        };
        Refusal::new(code, refusal.message)
    }

    pub(super) fn refusal_to(refusal: &Refusal) -> types::Refusal {
        let code = match refusal.code {
            RefusalCode::BadRequest => types::RefusalCode::BadRequest,
            RefusalCode::Forbidden => types::RefusalCode::Forbidden,
            RefusalCode::NotFound => types::RefusalCode::NotFound,
            RefusalCode::NotJoined => types::RefusalCode::NotJoined,
            RefusalCode::TooLarge => types::RefusalCode::TooLarge,
            RefusalCode::RateLimited => types::RefusalCode::RateLimited,
            RefusalCode::Conflict => types::RefusalCode::Conflict,
            RefusalCode::Unavailable => types::RefusalCode::Unavailable,
            RefusalCode::Fault => types::RefusalCode::Fault,
            RefusalCode::Lost => types::RefusalCode::Lost,
        };
        types::Refusal { code, message: refusal.message.to_string() }
    }
}
