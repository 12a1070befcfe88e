//! A draft in the channel's store: a snapshot of the document in pieces, and in the log the updates since. Owns the
//! keys and their layout; loads, appends and folds.
//!
//! | where | what |
//! | --- | --- |
//! | `snapshot` | layout version `1`, number of pieces (4 bytes), bytes of all (8 bytes), little-endian |
//! | `snapshot/000000` … | the document as one update of Yjs, in pieces of 1 MiB |
//! | log | one update each, as it came |
//!
//! A fold writes all pieces and trims the log in one batch, so nothing in between can ever be found. The host trims only
//! what was committed before: updates of that batch stay in the log as well, where they say nothing new, until the next
//! fold. An update too large for a log entry is folded in the batch that brings it.

use hotbay_sdk::Channel;

use crate::document::{Applied, Document, Excess};
use crate::settings::Settings;
use crate::update::Checked;

const KEY: &str = "snapshot";
const VERSION: u8 = 1;
/// What the host takes as one value or log entry, in bytes.
const PIECE_BYTES: usize = 1 << 20;
const READ_MAX: u32 = 1_000;

fn piece_key(index: u32) -> String {
    format!("{KEY}/{index:06}")
}

/// Whether nothing was ever stored, except what the running batch has still to fold.
pub(crate) fn is_blank(channel: &Channel) -> bool {
    channel.log().bounds().next == 1 && channel.kv().get(KEY).is_none()
}

/// A draft, loaded.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) document: Document,
    /// Pieces of the stored snapshot.
    pieces: u32,
    /// In the log.
    updates: usize,
    bytes: usize,
    /// Something is in the document that the log does not hold.
    ahead: bool,
    fold_updates_max: usize,
    fold_bytes_max: usize,
}

impl Draft {
    /// Loads the draft of a channel.
    ///
    /// # Errors
    /// A sentence for the operator. What is stored stays as it is.
    pub(crate) fn load(channel: &Channel, settings: &Settings) -> Result<Self, String> {
        let mut draft = Self {
            document: Document::new(settings.document_bytes_max, settings.garbage_collection),
            pieces: 0,
            updates: 0,
            bytes: 0,
            ahead: false,
            fold_updates_max: settings.fold_updates_max,
            fold_bytes_max: settings.fold_bytes_max,
        };
        draft.load_snapshot(channel)?;
        let extent = channel.log().bounds();
        let mut from = extent.first;
        while from < extent.next {
            let entries = channel.log().read(from, READ_MAX);
            let Some(last) = entries.last() else {
                return Err(format!("the log ends before entry {from}"));
            };
            let next = last.offset + 1;
            for entry in entries {
                let update = Checked::new(&entry.data);
                let update = update.map_err(|why| format!("log entry {} is no update: {}", entry.offset, why.0))?;
                draft.document.restore(&update);
                draft.updates += 1;
                draft.bytes += entry.data.len();
            }
            from = next;
        }
        Ok(draft)
    }

    fn load_snapshot(&mut self, channel: &Channel) -> Result<(), String> {
        let Some(head) = channel.kv().get(KEY) else { return Ok(()) };
        let (pieces, bytes) = read_head(&head).ok_or("the snapshot's head is not one")?;
        let mut update = Vec::with_capacity(bytes);
        for index in 0..pieces {
            let piece = channel.kv().get(&piece_key(index));
            update.extend(piece.ok_or_else(|| format!("the snapshot's piece {index} is missing"))?);
        }
        if update.len() != bytes {
            return Err(format!("the snapshot has {} bytes instead of {bytes}", update.len()));
        }
        let update = Checked::new(&update).map_err(|why| format!("the snapshot is no update: {}", why.0))?;
        self.document.restore(&update);
        self.document.shrink();
        self.pieces = pieces;
        Ok(())
    }

    /// Takes an update and stores it, unless it says nothing new.
    pub(crate) fn write(&mut self, channel: &Channel, update: &Checked<'_>) -> Result<Applied, Excess> {
        let applied = self.document.apply(update)?;
        if applied.changed {
            if update.bytes.len() <= PIECE_BYTES {
                channel.log().append(update.bytes);
                self.updates += 1;
                self.bytes += update.bytes.len();
            } else {
                self.ahead = true;
            }
        }
        Ok(applied)
    }

    /// Whether the log is due to be folded.
    pub(crate) fn is_fold_due(&self) -> bool {
        self.ahead || self.updates >= self.fold_updates_max || self.bytes >= self.fold_bytes_max
    }

    /// Whether it must be folded in this batch.
    pub(crate) fn is_ahead(&self) -> bool {
        self.ahead
    }

    /// Writes the document as the snapshot, and empties the log.
    pub(crate) fn fold(&mut self, channel: &Channel) {
        self.document.compact();
        let update = self.document.encode();
        let kv = channel.kv();
        let mut pieces = 0;
        for piece in update.chunks(PIECE_BYTES) {
            kv.put(&piece_key(pieces), piece);
            pieces += 1;
        }
        (pieces..self.pieces).for_each(|index| kv.delete(&piece_key(index)));
        kv.put(KEY, &write_head(pieces, update.len()));
        let log = channel.log();
        log.trim(log.bounds().next);
        (self.pieces, self.updates, self.bytes, self.ahead) = (pieces, 0, 0, false);
    }
}

fn write_head(pieces: u32, bytes: usize) -> Vec<u8> {
    let mut head = vec![VERSION];
    head.extend(pieces.to_le_bytes());
    head.extend((bytes as u64).to_le_bytes());
    head
}

fn read_head(head: &[u8]) -> Option<(u32, usize)> {
    let (&[VERSION], rest) = head.split_first_chunk()? else { return None };
    let (pieces, rest) = rest.split_first_chunk()?;
    let (bytes, rest) = rest.split_first_chunk()?;
    let (pieces, bytes) = (u32::from_le_bytes(*pieces), usize::try_from(u64::from_le_bytes(*bytes)).ok()?);
    let fits = rest.is_empty() && bytes <= pieces as usize * PIECE_BYTES;
    fits.then_some((pieces, bytes))
}
