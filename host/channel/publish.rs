//! Publishing from outside, with an answer that survives retries: of several requests with the same idempotency key one
//! takes hold, and all get its answer, also after a crash in between.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::channel::directory::{Directory, LookupError};
use crate::channel::mailbox::{Enclosure, Letter, Reply};
use crate::protocol::event::{Event, Source};
use crate::protocol::frame::Payload;
use crate::protocol::name::ChannelName;
use crate::store::StoreError;
use crate::telemetry::now_ms;

/// What is published.
pub struct Publication {
    /// Where to.
    pub channel: ChannelName,
    /// The name of the API key.
    pub sender: Arc<str>,
    /// What.
    pub payload: Payload,
    /// See the module.
    pub idempotency_key: Option<Box<str>>,
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There is no such channel.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// Whether it was published before cannot be found out.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The channel ended without an answer.
    #[error("the channel ended before it answered; try again")]
    NoAnswer,
}

/// Sends publications, one at a time for each idempotency key.
pub struct Publisher {
    directory: Arc<Directory>,
    under_way: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
}

type Key = (ChannelName, Arc<str>, Box<str>);

impl Publisher {
    /// A publisher for the channels of a directory.
    pub fn new(directory: Arc<Directory>) -> Self {
        Self { directory, under_way: Mutex::default() }
    }

    /// Publishes, and waits until it is committed, refused, or found to have been published before.
    ///
    /// # Errors
    /// If it cannot be handed over or its outcome is unknown; a retry with the same key is safe.
    pub async fn publish(&self, publication: Publication) -> Result<Reply, PublishError> {
        let Some(key) = publication.idempotency_key.clone() else { return self.publish_once(publication).await };
        self.directory.logic_of(publication.channel.name())?;
        let key: Key = (publication.channel.clone(), Arc::clone(&publication.sender), key);
        let turn = {
            let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(under_way.entry(key.clone()).or_default())
        };
        let result = {
            let _turn = turn.lock().await;
            let known = self.directory.store.answer(&key.0, &key.1, &key.2, now_ms()).await;
            match known.map(|answer| answer.and_then(|answer| decode_position(&answer))) {
                Ok(Some((epoch, seq))) => Ok(Reply::Published { epoch, seq }),
                Ok(None) => self.publish_once(publication).await,
                Err(error) => Err(error.into()),
            }
        };
        drop(turn);
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if under_way.get(&key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            under_way.remove(&key);
        }
        result
    }

    async fn publish_once(&self, publication: Publication) -> Result<Reply, PublishError> {
        let Publication { channel: name, sender, payload, idempotency_key } = publication;
        let logic = Arc::clone(self.directory.logic_of(name.name())?);
        let (reply, answer) = oneshot::channel();
        let request = Some(self.directory.request_id());
        let event = Event::Publish { source: Source::Api(sender), payload, request, idempotency_key, hops: 0 };
        let mut channel = self.directory.get(&name, &logic)?;
        self.directory.post_in_turn(&mut channel, Letter { event, enclosure: Enclosure::Reply(reply) }).await?;
        answer.await.map_err(|_| PublishError::NoAnswer)
    }
}

/// How an answer is kept: epoch and sequence number, as big-endian numbers.
pub(super) fn encode_position((epoch, seq): (u64, u64)) -> Bytes {
    [epoch.to_be_bytes(), seq.to_be_bytes()].concat().into()
}

fn decode_position(bytes: &[u8]) -> Option<(u64, u64)> {
    let (epoch, seq) = bytes.split_at_checked(8)?;
    Some((u64::from_be_bytes(epoch.try_into().ok()?), u64::from_be_bytes(seq.try_into().ok()?)))
}
