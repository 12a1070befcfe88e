//! Sends every message back to its sender, unchanged. Keeps nothing.

use hotbay_sdk::{Audience, Channel, ChannelInfo, Delivery, Message, Plugin, Refusal};

/// A channel in which everybody is alone.
pub struct Echo;

impl Plugin for Echo {
    fn open(_: &ChannelInfo, _: Option<&[u8]>, _: &mut Channel) -> Result<Self, String> {
        Ok(Self)
    }

    fn on_message(&mut self, channel: &mut Channel, message: Message) -> Result<(), Refusal> {
        channel.forward(&Audience::Only(vec![message.member]), &Delivery::NORMAL);
        Ok(())
    }
}

hotbay_sdk::export!(Echo);

#[cfg(test)]
mod tests {
    use super::Echo;
    use hotbay_sdk::harness::Harness;

    #[test]
    fn a_message_returns_to_its_sender_alone() {
        let mut channel = Harness::<Echo>::new("room:1");
        let (ann, bob) = (channel.join("ann"), channel.join("bob"));
        let outcome = channel.message(ann, "hi");
        assert_eq!((outcome.texts(ann), outcome.texts(bob)), (vec!["hi".to_owned()], vec![]));
    }
}
