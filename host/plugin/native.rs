//! For measuring only (feature `native-relay`): what the plugin `relay` does, as native code, so that `make bench-tax` can say
//! what WebAssembly costs. Everything around the call stays as it is; releases are built without.

use crate::limits::MountLimits;
use crate::plugin::effects::Effects;
use crate::plugin::fault::Fault;
use crate::protocol::event::{Batch, Event};
use crate::protocol::frame::{Audience, Delivery, Priority};

/// The plugin that is replaced.
pub(super) const NAME: &str = "relay";

/// Sends every message and publication to all members.
pub(super) fn handle(batch: &Batch, limits: &MountLimits) -> Result<Effects, Fault> {
    let mut effects = Effects::default();
    for (event, index) in batch.events.iter().zip(0_u32..) {
        if let Event::Message { payload, .. } | Event::Publish { payload, .. } = event {
            let delivery = Delivery { priority: Priority::Normal, conflate: None };
            effects.send(index, payload, Audience::All, delivery, limits)?;
        }
    }
    Ok(effects)
}
