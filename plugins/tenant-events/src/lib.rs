//! The event bus of a tenant: channels, filters, priorities, history and replay.

use hotbay_sdk::{Channel, ChannelInfo, Plugin};

/// See the module.
struct TenantEvents;

impl Plugin for TenantEvents {
    fn open(_: &ChannelInfo, _: Option<&[u8]>, _: &mut Channel) -> Result<Self, String> {
        Ok(Self)
    }
}

hotbay_sdk::export!(TenantEvents);
