//! One plugin with its channel: turns the calls of the contract into those of [`Plugin`]. Used by the component and by
//! the harness alike, so that both behave the same.

use crate::host::Current;
use crate::{Batch, Channel, ChannelInfo, Event, Plugin};

/// A plugin that was opened.
pub struct Instance<P> {
    plugin: P,
    channel: Channel,
    started: bool,
}

impl<P: Plugin> Instance<P> {
    /// Opens a plugin on the component's imports.
    #[cfg(target_family = "wasm")]
    pub fn open_imported(info: &ChannelInfo, saved: Option<&[u8]>) -> Result<Self, String> {
        Self::open(crate::host::Imports, info, saved)
    }

    pub(crate) fn open(host: Current, info: &ChannelInfo, saved: Option<&[u8]>) -> Result<Self, String> {
        let mut channel = Channel::new(host, info.now_ms, info.seed);
        let plugin = P::open(info, saved, &mut channel)?;
        Ok(Self { plugin, channel, started: false })
    }

    /// Handles a batch.
    pub fn handle(&mut self, batch: Batch) {
        let Self { plugin, channel, started } = self;
        channel.begin(batch.now_ms, batch.seed, &batch.events);
        if !*started {
            *started = true;
            plugin.on_start(channel);
        }
        for (index, event) in batch.events.into_iter().enumerate() {
            channel.at(index);
            let handled = match event {
                Event::Join(joined) => plugin.on_join(channel, joined),
                Event::Leave(left) => {
                    plugin.on_leave(channel, left);
                    Ok(())
                }
                Event::Message(message) => plugin.on_message(channel, message),
                Event::Timer(name) => {
                    plugin.on_timer(channel, &name);
                    Ok(())
                }
                Event::Publish(publication) => plugin.on_publish(channel, publication),
                Event::Request(request) => {
                    let id = request.id;
                    if let Some(response) = plugin.on_request(channel, request) {
                        channel.respond(id, &response);
                    }
                    Ok(())
                }
            };
            if let Err(why) = handled {
                channel.reject(&why);
            }
        }
        plugin.on_batch_end(channel);
    }

    /// What the next instance should get.
    pub fn save(&mut self) -> Vec<u8> {
        self.plugin.save()
    }
}
