//! Write what a Hotbay channel means; the host does the rest.
//!
//! A plugin is a type that implements [`Plugin`]. The host makes one instance of it per channel and calls it with what
//! happens there; the instance answers with effects on its [`Channel`]. All effects of a batch of events take hold
//! together, after its writes are durable, or none does.
//!
//! ```
//! use hotbay_sdk::{Channel, ChannelInfo, Joined, Message, Plugin, Refusal};
//!
//! /// Sends every message to all members, and counts them for ever.
//! struct Counter;
//!
//! impl Plugin for Counter {
//!     fn open(_: &ChannelInfo, _: Option<&[u8]>, _: &mut Channel) -> Result<Self, String> {
//!         Ok(Self)
//!     }
//!
//!     fn on_message(&mut self, channel: &mut Channel, message: Message) -> Result<(), Refusal> {
//!         let text = message.payload.text().ok_or(Refusal::bad_request("send text"))?;
//!         let offset = channel.log().append(text.as_bytes());
//!         channel.broadcast(format!("{offset} {}: {text}", message.user));
//!         Ok(())
//!     }
//!
//!     fn on_join(&mut self, channel: &mut Channel, joined: Joined) -> Result<(), Refusal> {
//!         channel.send(joined.member, format!("{} so far", channel.log().bounds().next - 1));
//!         Ok(())
//!     }
//! }
//!
//! hotbay_sdk::export!(Counter);
//!
//! # #[cfg(not(target_family = "wasm"))] {
//! let mut channel = hotbay_sdk::harness::Harness::<Counter>::new("room:1");
//! let ann = channel.join("ann");
//! assert_eq!(channel.message(ann, "hi").texts(ann), ["1 ann: hi"]);
//! # }
//! ```
//!
//! Build it with `crate-type = ["cdylib", "rlib"]` for `wasm32-wasip2`: the file is a component, ready to upload. It imports only
//! the interfaces it calls ([`Channel::kv`], [`Channel::log`], [`Channel::query`], [`Channel::stats`],
//! [`log_info!`]): its import list is the
//! list of permissions it asks for.
//!
//! A plugin must be deterministic: take time from [`Channel::now_ms`] and chance from [`Channel::random`]. Prefer `BTreeMap` to
//! `HashMap`, whose order differs from run to run and which pulls in `wasi:random`.
//!
//! This crate must not know any protocol, nor decide anything the host decides.

#[doc(hidden)]
pub mod bindings;
mod channel;
mod host;
mod instance;
pub mod json;
mod plugin;
mod random;
mod time;
mod words;

#[cfg(not(target_family = "wasm"))]
pub mod harness;

pub use bindings::exports::hotbay::channel::handler::{
    Batch, ChannelInfo, Event, HttpRequest, Joined, LeaveReason, Left, Message, Publication, Routing, Sender, Source,
};
pub use bindings::hotbay::channel::channel::{Audience, Delivery, HttpResponse, Priority, TimerKeep};
pub use bindings::hotbay::channel::kv::Order;
pub use bindings::hotbay::channel::log::{Entry, Extent};
pub use bindings::hotbay::channel::logging::Level;
pub use bindings::hotbay::channel::sql::{Error as SqlError, Rows, Value as SqlValue};
pub use bindings::hotbay::channel::stats::{Link, LinkState, Snapshot};
pub use bindings::hotbay::channel::types::{Identity, Member, MemberId, Payload, Refusal, RefusalCode};
pub use channel::{Channel, Kv, Log};
#[doc(hidden)]
pub use instance::Instance;
pub use plugin::Plugin;
pub use random::{hash, mix};
pub use time::iso8601;

/// Makes a [`Plugin`] the one this component exports. Does nothing when not compiled for WebAssembly.
#[macro_export]
macro_rules! export {
    ($plugin:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            use $crate::bindings::exports::hotbay::channel::handler as wit;

            // A component runs on one thread, so this is a plain static; `thread_local` needs no `unsafe`.
            ::std::thread_local! {
                static INSTANCE: ::std::cell::RefCell<Option<$crate::Instance<$plugin>>> =
                    const { ::std::cell::RefCell::new(None) };
            }

            struct Component;

            impl wit::Guest for Component {
                fn open(info: wit::ChannelInfo, saved: Option<Vec<u8>>) -> Result<(), String> {
                    let instance = $crate::Instance::open_imported(&info, saved.as_deref())?;
                    INSTANCE.set(Some(instance));
                    Ok(())
                }

                fn handle(batch: wit::Batch) {
                    INSTANCE.with_borrow_mut(|instance| match instance {
                        Some(instance) => instance.handle(batch),
                        None => panic!("`handle` was called before `open`"),
                    });
                }

                fn save() -> Vec<u8> {
                    INSTANCE.with_borrow_mut(|instance| match instance {
                        Some(instance) => instance.save(),
                        None => Vec::new(),
                    })
                }

                fn route(from: wit::Sender, frame: wit::Payload) -> wit::Routing {
                    <$plugin as $crate::Plugin>::route(&from, frame)
                }

                fn refused(to: wit::Sender, frame: Option<wit::Payload>, why: wit::Refusal) -> Option<wit::Payload> {
                    <$plugin as $crate::Plugin>::refused(&to, frame.as_ref(), &why)
                }
            }

    $crate::bindings::export_handler!(Component with_types_in $crate::bindings);
        };
    };
}

/// Writes a line for the operator at level `debug`: `log_debug!(channel, "{n} members")`.
#[macro_export]
macro_rules! log_debug {
    ($channel:expr, $($line:tt)+) => { $channel.log_line($crate::Level::Debug, &::std::format!($($line)+)) };
}

/// Writes a line for the operator at level `info`.
#[macro_export]
macro_rules! log_info {
    ($channel:expr, $($line:tt)+) => { $channel.log_line($crate::Level::Info, &::std::format!($($line)+)) };
}

/// Writes a line for the operator at level `warn`.
#[macro_export]
macro_rules! log_warn {
    ($channel:expr, $($line:tt)+) => { $channel.log_line($crate::Level::Warn, &::std::format!($($line)+)) };
}

/// Writes a line for the operator at level `error`.
#[macro_export]
macro_rules! log_error {
    ($channel:expr, $($line:tt)+) => { $channel.log_line($crate::Level::Error, &::std::format!($($line)+)) };
}
