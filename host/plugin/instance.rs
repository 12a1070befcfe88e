//! One instance of a plugin: a store with its component, for one channel. Calls never overlap. After a fault the
//! instance is spent.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::Store;

use crate::plugin::Plugin;
use crate::plugin::bindings::Plugin as Bindings;
use crate::plugin::bindings::exports::hotbay::channel::handler as wit;
use crate::plugin::convert;
use crate::plugin::effects::Effects;
use crate::plugin::fault::Fault;
use crate::plugin::lane::Lane;
use crate::plugin::meter::{Memory, Meter};
use crate::plugin::state::{self, Call, Channel, State, Stopwatch};
use crate::protocol::event::Batch;
use crate::protocol::frame::Payload;
use crate::protocol::name::ChannelName;
use crate::protocol::refusal::Refusal;
use crate::quota::Quota;

/// A running instance.
pub struct Instance {
    store: Store<State>,
    bindings: Bindings,
    ran: Duration,
    lane: Arc<Lane>,
    #[cfg(feature = "native-relay")]
    is_native: bool,
}

/// What `open` is told about the channel.
#[derive(Clone)]
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
        Self::start_for(None, plugin, limits, seed, label).await
    }

    /// The same on a tenant's account, which its memory and processor time are counted on.
    ///
    /// # Errors
    /// Also if the tenant may not have its memory: [`Fault::Quota`].
    pub async fn start_for(
        quota: Option<&Arc<Quota>>,
        plugin: &Plugin,
        limits: Arc<crate::limits::MountLimits>,
        seed: u64,
        label: &str,
    ) -> Result<Self, Fault> {
        let mut meter = Meter::of(plugin.effort());
        meter.charge_to(quota);
        let mut store = Store::new(plugin.engine(), State::new(limits, seed, label, meter, Memory::of(quota)));
        state::bound(&mut store);
        state::start_clock(&mut store);
        let bindings = plugin.pre().instantiate_async(&mut store).await;
        let state = store.data_mut();
        let ran = state.stopwatch.pause();
        state.meter.charge(ran);
        let bindings = bindings.map_err(|error| match store.data().memory.refused {
            Some(over) => Fault::Quota { over: over.to_string() },
            None => Fault::from_start(&error),
        })?;
        Ok(Self {
            store,
            bindings,
            ran: Duration::ZERO,
            lane: Arc::clone(plugin.lane()),
            #[cfg(feature = "native-relay")]
            is_native: plugin.name() == crate::plugin::native::NAME,
        })
    }

    /// Calls `open`. Its effects stay buffered: they come out with those of the first batch.
    ///
    /// # Errors
    /// If the plugin fails or returns an error.
    pub async fn open(&mut self, channel: Arc<dyn Channel>, opening: Opening<'_>) -> Result<(), Fault> {
        let info = wit::ChannelInfo {
            tenant: opening.name.tenant(),
            name: opening.name.name(),
            now_ms: opening.now_ms,
            seed: opening.seed,
            settings: opening.settings,
        };
        self.begin(Call::Channel { channel, now_ms: opening.now_ms, batch: None }, opening.now_ms, opening.seed);
        let handler = self.bindings.hotbay_channel_handler();
        let result = handler.call_open(&mut self.store, info, opening.saved).await;
        match self.end(result)? {
            Ok(()) => Ok(()),
            Err(message) => Err(Fault::Open { message: message.chars().take(500).collect() }),
        }
    }

    /// Calls `handle` with a batch and returns its effects, or why there are none: the plugin failed or broke a bound. A call
    /// that turns out to be long goes on in a [lane](super::lane) of its own. The instance comes back, unless the broker ends.
    pub async fn handle(
        mut self,
        channel: Arc<dyn Channel>,
        batch: Arc<Batch>,
    ) -> (Option<Self>, Result<Effects, Fault>) {
        let (lane, stopwatch) = (Arc::clone(&self.lane), Arc::clone(&self.store.data().stopwatch));
        let call = Box::pin(async move {
            let result = self.handle_here(channel, &batch).await;
            (self, result)
        });
        match lane.run(call, &stopwatch).await {
            Some((instance, result)) => (Some(instance), result),
            None => (None, Err(Fault::Start { cause: "the broker ends".to_owned() })),
        }
    }

    async fn handle_here(&mut self, channel: Arc<dyn Channel>, batch: &Arc<Batch>) -> Result<Effects, Fault> {
        #[cfg(feature = "native-relay")]
        if self.is_native {
            return crate::plugin::native::handle(batch, &self.store.data().limits);
        }
        let requests: Vec<_> = batch.events.iter().filter_map(convert::pairs_of).collect();
        let mut pairs = requests.iter();
        let events = batch.events.iter().map(|event| convert::event(event, &mut pairs));
        let events = events.collect::<Result<Vec<_>, _>>()?;
        self.store.data().meter.count_events(batch.events.len());
        let call = wit::Batch { now_ms: batch.now_ms, seed: batch.seed, events: &events };
        self.begin(
            Call::Channel { channel, now_ms: batch.now_ms, batch: Some(Arc::clone(batch)) },
            batch.now_ms,
            batch.seed,
        );
        // The other calls are short, or hold what others wait for.
        self.store.data_mut().meter.begin(true);
        let handler = self.bindings.hotbay_channel_handler();
        let result = handler.call_handle(&mut self.store, call).await;
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
    pub(super) async fn route(&mut self, sender: wit::Sender<'_>, frame: &Payload) -> Result<wit::Routing, Fault> {
        let frame = convert::lend(frame)?;
        self.begin(Call::Pure, sender.now_ms, 0);
        let result = self.bindings.hotbay_channel_handler().call_route(&mut self.store, sender, frame).await;
        self.end(result)
    }

    /// Calls `refused`, on an instance that serves no channel.
    ///
    /// # Errors
    /// If the plugin fails.
    pub(super) async fn refused(
        &mut self,
        sender: wit::Sender<'_>,
        frame: Option<&Payload>,
        why: &Refusal,
    ) -> Result<Option<Payload>, Fault> {
        let frame = frame.map(convert::lend).transpose()?;
        let why = convert::lend_refusal(why);
        self.begin(Call::Pure, sender.now_ms, 0);
        let handler = self.bindings.hotbay_channel_handler();
        let result = handler.call_refused(&mut self.store, sender, frame, why).await;
        Ok(self.end(result)?.map(convert::payload))
    }

    /// The effects of `open`, if they are wanted apart from those of the first batch.
    pub fn take_effects_of_open(&mut self) -> Effects {
        std::mem::take(&mut self.store.data_mut().effects)
    }

    /// Linear memory it has now, in bytes, over all its memories.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().memory_bytes()
    }

    fn begin(&mut self, call: Call, now_ms: u64, seed: u64) {
        let state = self.store.data_mut();
        state.clock.set(now_ms, seed);
        state.call = call;
        state.memory.refused = None;
        state.meter.begin(false);
        state::start_clock(&mut self.store);
    }

    fn end<T>(&mut self, result: wasmtime::Result<T>) -> Result<T, Fault> {
        let state = self.store.data_mut();
        state.call = Call::Pure;
        let ran = state.stopwatch.pause();
        state.meter.charge(ran);
        self.ran += ran;
        result.map_err(|error| match (Fault::from_call(&error), state.memory.refused) {
            // Most programs end when they get no memory.
            (Fault::Trap { .. }, Some(over)) => Fault::Quota { over: over.to_string() },
            (fault, _) => fault,
        })
    }

    /// Whether others wait until its calls have ended. Then they neither wait while its tenant is out of processor time nor step back
    /// for others as soon as usual.
    pub fn holds_a_turn(&mut self, holds: bool) {
        let state = self.store.data_mut();
        state.meter.is_patient = !holds;
        state.patience = if holds { Stopwatch::PATIENCE_IN_TURN } else { Stopwatch::PATIENCE };
    }

    /// Who pays for its calls from now on.
    pub(super) fn charge_to(&mut self, quota: Option<&Arc<Quota>>) {
        self.store.data_mut().meter.charge_to(quota);
    }

    /// How long the calls since the last question ran, without their waits and pauses.
    pub fn take_ran(&mut self) -> Duration {
        std::mem::take(&mut self.ran)
    }
}
