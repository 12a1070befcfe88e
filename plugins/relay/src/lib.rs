//! Sends every message, and everything published, on to all members unchanged, the sender too. Keeps nothing.

use hotbay_sdk::{Channel, ChannelInfo, Plugin};

/// A channel without a meaning of its own.
pub struct Relay;

impl Plugin for Relay {
    fn open(_: &ChannelInfo, _: Option<&[u8]>, _: &mut Channel) -> Result<Self, String> {
        Ok(Self)
    }
}

hotbay_sdk::export!(Relay);
