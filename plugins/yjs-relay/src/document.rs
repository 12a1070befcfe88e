//! A document as a relay needs it: all blocks of all clients as they came, and what was deleted. It answers what
//! somebody lacks, takes updates, and knows its size; it does not know what the blocks say, so nothing in them can lead
//! it astray.
//!
//! Blocks are not integrated as in an editor. Merging updates, state vectors and differences need only clocks: memory
//! is that of the encoded bytes, and every step takes time in proportion to what it reads or writes. A block whose
//! neighbours are missing is kept like any other; whoever receives it waits for them.

mod compact;

use std::collections::BTreeMap;

use crate::block::{Id, write_skip};
use crate::lib0::{Reader, write_number};
use crate::ranges::Ranges;
use crate::update::{Checked, Part, StateVector};

/// Rows of blocks with a gap before them. Editors make none; a frame that was lost makes one.
pub(crate) const GAPS_MAX: usize = 4_096;
/// What a client, or a row of its blocks behind a gap, counts beside its bytes: about what it takes in memory.
const ROW_BYTES: usize = 128;
/// What a range of deleted clocks counts; encoded it has at most ten bytes.
const RANGE_BYTES: usize = 12;
/// What a document has encoded beside its parts.
const HEAD_BYTES: usize = 16;
/// Longest row, in bytes, that is joined at once with the one before it.
const JOINED_BYTES_MAX: usize = 4 << 10;

/// Why an update cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    /// The document would be larger than it may be.
    Bytes,
    /// More than [`GAPS_MAX`].
    Gaps,
}

/// What an update did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Applied {
    /// It said something new.
    pub(crate) changed: bool,
    /// Of one of its clients, blocks before those it brought are missing.
    pub(crate) gap: bool,
}

/// Consecutive blocks of one client.
#[derive(Debug)]
struct Row {
    from: u32,
    to: u32,
    /// How many.
    blocks: u32,
    /// As they stand in an update.
    bytes: Vec<u8>,
}

/// What came of one client.
#[derive(Debug, Default)]
struct Client {
    /// By clock; without overlaps. Those that touch are joined when the document is compacted.
    rows: Vec<Row>,
    deleted: Ranges,
    /// Something came since it was compacted.
    loose: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Document {
    clients: BTreeMap<u64, Client>,
    /// Bytes of all rows.
    bytes: usize,
    /// Rows that do not begin at clock 0.
    detached: usize,
    ranges: usize,
    bytes_max: usize,
    /// What is deleted gives up its content.
    collects: bool,
    /// Bytes that came, and clocks that were deleted, since it was compacted.
    loose: usize,
    /// It may be compacted to make room for an update.
    may_make_room: bool,
}

impl Document {
    /// An empty document, which may grow to so many bytes.
    pub(crate) fn new(bytes_max: usize, collects: bool) -> Self {
        Self {
            clients: BTreeMap::new(),
            bytes: 0,
            detached: 0,
            ranges: 0,
            bytes_max,
            collects,
            loose: 0,
            may_make_room: true,
        }
    }

    /// Its size: never less than what it takes encoded, and little more.
    pub(crate) fn size(&self) -> usize {
        HEAD_BYTES + self.bytes + (self.clients.len() + self.detached) * ROW_BYTES + self.ranges * RANGE_BYTES
    }

    /// Takes an update, all of it or, if that would be too much, nothing.
    pub(crate) fn apply(&mut self, update: &Checked<'_>) -> Result<Applied, Excess> {
        if self.may_exceed(update) {
            let mut excess = self.exceeds(update);
            // Worth its time only if there is much to gain.
            if excess.is_err() && self.may_make_room && self.loose > self.bytes_max / 16 {
                self.may_make_room = false;
                self.compact();
                excess = self.exceeds(update);
            }
            excess?;
        }
        Ok(self.take(update))
    }

    /// Lets it be compacted once more to make room for an update. To be called now and then, so that nobody can have it
    /// compacted again and again.
    pub(crate) fn renew(&mut self) {
        self.may_make_room = true;
    }

    /// Takes an update of the document's own past, whatever its size.
    pub(crate) fn restore(&mut self, update: &Checked<'_>) {
        self.take(update);
    }

    /// Whether an update could be too much, at first glance.
    fn may_exceed(&self, update: &Checked<'_>) -> bool {
        let grown = update.bytes.len() + update.rows * ROW_BYTES + update.ranges * (ROW_BYTES + RANGE_BYTES);
        self.size() + grown > self.bytes_max || self.detached + update.rows > GAPS_MAX
    }

    /// Whether it is too much, by what of it is new.
    fn exceeds(&self, update: &Checked<'_>) -> Result<(), Excess> {
        let (mut bytes, mut detached, mut deleted) = (0, 0, 0);
        let (mut known, mut end) = (None, 0);
        let mut scratch = Vec::new();
        update.parts(|part| match part {
            Part::Client(client) => {
                (known, end) = (self.clients.get(&client), 0);
                bytes += if known.is_none() { ROW_BYTES } else { 0 };
            }
            Part::Block(at, block) => {
                if block.is_skip() {
                    return;
                }
                let rows = known.map_or(&[][..], |client| &client.rows);
                let len = block.len;
                let mut cutter = block.cutter(at);
                each_missing(rows, at.clock, at.clock + len, |from, to| {
                    scratch.clear();
                    cutter.piece(from - at.clock, to - at.clock).write(&mut scratch);
                    bytes += scratch.len();
                    let follows = end == from || row_ending_at(rows, from).is_some();
                    detached += usize::from(!follows);
                    end = to;
                });
            }
            Part::Deleted { client, from, to } => {
                let known = self.clients.get(&client);
                if !known.is_some_and(|known| known.deleted.covers(from, to)) {
                    deleted += RANGE_BYTES + if known.is_none() { ROW_BYTES } else { 0 };
                }
            }
        });
        if self.detached + detached > GAPS_MAX {
            return Err(Excess::Gaps);
        }
        // Removing makes a full document larger at first, and smaller in the end.
        let removes = bytes == 0 && self.size() + deleted <= self.bytes_max + self.bytes_max / 8;
        let grown = bytes + detached * ROW_BYTES + deleted;
        if grown > 0 && !removes && self.size() + grown > self.bytes_max {
            return Err(Excess::Bytes);
        }
        Ok(())
    }

    fn take(&mut self, update: &Checked<'_>) -> Applied {
        let mut applied = Applied::default();
        let mut scratch = Vec::new();
        let mut detached_of = Vec::new();
        update.parts(|part| match part {
            Part::Client(_) => {}
            Part::Block(at, block) => {
                if block.is_skip() {
                    return;
                }
                let client = self.clients.entry(at.client).or_default();
                let (to, detached) = (at.clock + block.len, client.detached());
                if client.end() <= at.clock {
                    // Nearly always: nothing of it was there, and nothing behind it.
                    self.bytes += block.raw.len();
                    self.loose += block.raw.len();
                    client.append(at.clock, to, block.raw);
                    applied.changed = true;
                } else {
                    let mut missing = Vec::new();
                    each_missing(&client.rows, at.clock, to, |from, to| missing.push((from, to)));
                    let mut cutter = block.cutter(at);
                    for (from, to) in missing {
                        scratch.clear();
                        cutter.piece(from - at.clock, to - at.clock).write(&mut scratch);
                        self.bytes += scratch.len();
                        self.loose += scratch.len();
                        client.insert(from, to, &scratch);
                        applied.changed = true;
                    }
                }
                self.detached = self.detached + client.detached() - detached;
                if client.detached() > 0 && detached_of.last() != Some(&at.client) {
                    detached_of.push(at.client);
                }
            }
            Part::Deleted { client, from, to } => {
                let client = self.clients.entry(client).or_default();
                if !client.deleted.covers(from, to) {
                    let before = client.deleted.len();
                    client.deleted.add(from, to);
                    client.loose = true;
                    self.ranges = self.ranges + client.deleted.len() - before;
                    self.loose += to.min(client.end()).saturating_sub(from) as usize;
                    applied.changed = true;
                }
            }
        });
        let has_gap = |client| self.clients.get(client).is_some_and(|client| client.known() < client.end());
        applied.gap = detached_of.iter().any(has_gap);
        applied
    }

    /// Writes the state vector.
    pub(crate) fn write_state_vector(&self, to: &mut Vec<u8>) {
        let known = self.clients.iter().map(|(client, rows)| (*client, rows.known()));
        let known: Vec<(u64, u32)> = known.filter(|(_, clock)| *clock > 0).collect();
        write_number(to, known.len() as u64);
        for (client, clock) in known {
            write_number(to, client);
            write_number(to, u64::from(clock));
        }
    }

    fn write_missing(&self, has: &StateVector, to: &mut Vec<u8>) {
        let lacks = |(client, rows): &(&u64, &Client)| rows.end() > has.clock(**client);
        // Higher clients come first, as in Yjs.
        let sections = || self.clients.iter().rev().filter(lacks);
        write_number(to, sections().count() as u64);
        for (client, rows) in sections() {
            rows.write_from(*client, has.clock(*client), to);
        }
        let deleted = || self.clients.iter().rev().filter(|(_, client)| client.deleted.len() > 0);
        write_number(to, deleted().count() as u64);
        for (client, rows) in deleted() {
            write_number(to, *client);
            write_number(to, rows.deleted.len() as u64);
            for (from, end) in rows.deleted.iter() {
                write_number(to, u64::from(from));
                write_number(to, u64::from(end - from));
            }
        }
    }

    /// Gives back memory that was reserved for more to come.
    pub(crate) fn shrink(&mut self) {
        self.clients.values_mut().flat_map(|client| &mut client.rows).for_each(|row| row.bytes.shrink_to_fit());
    }

    /// An update with everything.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut update = Vec::with_capacity(self.size());
        self.write_missing(&StateVector::default(), &mut update);
        update
    }

    /// An update with everything that somebody with this state vector lacks.
    pub(crate) fn encode_missing(&self, has: &StateVector) -> Vec<u8> {
        let mut update = Vec::new();
        self.write_missing(has, &mut update);
        update
    }
}

impl Client {
    /// The clock up to which nothing is missing.
    fn known(&self) -> u32 {
        let mut known = 0;
        for row in &self.rows {
            if row.from > known {
                break;
            }
            known = row.to;
        }
        known
    }

    fn end(&self) -> u32 {
        self.rows.last().map_or(0, |row| row.to)
    }

    /// Rows that do not begin at clock 0.
    fn detached(&self) -> usize {
        self.rows.len() - usize::from(self.rows.first().is_some_and(|row| row.from == 0))
    }

    /// Adds a block behind all others.
    fn append(&mut self, from: u32, to: u32, bytes: &[u8]) {
        self.loose = true;
        match self.rows.last_mut() {
            Some(row) if row.to == from => row.push(to, bytes),
            _ => self.rows.push(Row { from, to, blocks: 1, bytes: bytes.to_vec() }),
        }
    }

    /// Adds a block where none is.
    fn insert(&mut self, from: u32, to: u32, bytes: &[u8]) {
        self.loose = true;
        let index = if let Some(index) = row_ending_at(&self.rows, from) {
            self.rows[index].push(to, bytes);
            index
        } else {
            let index = self.rows.partition_point(|row| row.from < from);
            self.rows.insert(index, Row { from, to, blocks: 1, bytes: bytes.to_vec() });
            index
        };
        // Longer ones stay apart until the document is compacted, so that nobody can have them copied again and again.
        let touches = |next: &Row| next.from == to && next.bytes.len() <= JOINED_BYTES_MAX;
        if self.rows.get(index + 1).is_some_and(touches) {
            let next = self.rows.remove(index + 1);
            let row = &mut self.rows[index];
            row.bytes.extend_from_slice(&next.bytes);
            row.blocks += next.blocks;
            row.to = next.to;
        }
    }

    /// Writes its section of an update: everything from this clock on, which must not be its end.
    fn write_from(&self, client: u64, clock: u32, to: &mut Vec<u8>) {
        let first = self.rows.partition_point(|row| row.to <= clock);
        let rows = self.rows.get(first..).unwrap_or_default();
        let Some(row) = rows.first() else { return };
        let begin = clock.max(row.from);
        let (passed, cut, tail) = row.split(client, begin);
        let gaps = rows.windows(2).filter(|pair| pair[0].to < pair[1].from).count() as u32;
        let blocks: u32 = rows.iter().map(|row| row.blocks).sum();
        write_number(to, u64::from(blocks - passed + gaps));
        write_number(to, client);
        write_number(to, u64::from(begin));
        to.extend_from_slice(&cut);
        to.extend_from_slice(tail);
        let mut end = row.to;
        for row in &rows[1..] {
            if row.from > end {
                write_skip(to, row.from - end);
            }
            to.extend_from_slice(&row.bytes);
            end = row.to;
        }
    }
}

impl Row {
    fn push(&mut self, to: u32, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.blocks += 1;
        self.to = to;
    }

    /// What of it is from this clock on: how many blocks end before, the rest of the one that is cut, and the bytes of
    /// those behind.
    fn split(&self, client: u64, clock: u32) -> (u32, Vec<u8>, &[u8]) {
        if clock <= self.from {
            return (0, Vec::new(), &self.bytes);
        }
        let mut reader = Reader::new(&self.bytes);
        let mut at = Id { client, clock: self.from };
        let mut passed = 0;
        while at.clock < clock {
            let Ok(block) = crate::block::Block::read::<false>(&mut reader, at) else { break };
            let end = at.clock + block.len;
            if end > clock {
                let mut cut = Vec::new();
                let len = block.len;
                block.cutter(at).piece(clock - at.clock, len).write(&mut cut);
                return (passed, cut, reader.rest());
            }
            at.clock = end;
            passed += 1;
        }
        (passed, Vec::new(), reader.rest())
    }
}

fn row_ending_at(rows: &[Row], clock: u32) -> Option<usize> {
    let index = rows.partition_point(|row| row.from < clock).checked_sub(1)?;
    (rows[index].to == clock).then_some(index)
}

/// Calls `each` with the parts of a range that are in no row, in order.
fn each_missing(rows: &[Row], from: u32, to: u32, mut each: impl FnMut(u32, u32)) {
    let mut at = from;
    for row in &rows[rows.partition_point(|row| row.to <= from)..] {
        if row.from >= to {
            break;
        }
        if row.from > at {
            each(at, row.from);
        }
        at = row.to;
    }
    if at < to {
        each(at, to);
    }
}
