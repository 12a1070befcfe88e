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

#[cfg(test)]
mod tests {
    use super::Relay;
    use hotbay_sdk::harness::Harness;

    #[test]
    fn what_is_sent_or_published_reaches_all() {
        let mut channel = Harness::<Relay>::new("room:1");
        let (ann, bob) = (channel.join("ann"), channel.join("bob"));
        let outcome = channel.message(ann, vec![1_u8, 2]);
        assert_eq!(
            (outcome.texts(ann), outcome.texts(bob)),
            (vec!["<2 bytes>".to_owned()], vec!["<2 bytes>".to_owned()])
        );
        assert_eq!(channel.publish("x").texts(bob), ["x"]);
    }
}
