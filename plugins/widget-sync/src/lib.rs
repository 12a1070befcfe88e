//! Dashboard widgets: versions, conflicts, atomic batches, layouts, and the same over HTTP.

use hotbay_sdk::{Channel, ChannelInfo, Plugin};

/// See the module.
struct WidgetSync;

impl Plugin for WidgetSync {
    fn open(_: &ChannelInfo, _: Option<&[u8]>, _: &mut Channel) -> Result<Self, String> {
        Ok(Self)
    }
}

hotbay_sdk::export!(WidgetSync);
