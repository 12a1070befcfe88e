//! Owner metrics of HangarShare: figures every five seconds, bookings at once, events kept for owners who are away.

use hotbay_sdk::{Channel, ChannelInfo, Plugin};

/// See the module.
struct HangarshareMetrics;

impl Plugin for HangarshareMetrics {
    fn open(_: &ChannelInfo, _: Option<&[u8]>, _: &mut Channel) -> Result<Self, String> {
        Ok(Self)
    }
}

hotbay_sdk::export!(HangarshareMetrics);
