//! Updates and state vectors of Yjs, version 1 of their encoding: who inserted which blocks, and what was deleted.
//! Reads and checks them; keeps nothing.

use std::collections::BTreeMap;

use crate::block::{Block, CLOCK_MAX, Id, clock};
use crate::lib0::{Malformed, Read, Reader};

/// Clients of whom an update may bring blocks if they do not come in falling order, as those of Yjs do.
pub(crate) const DISORDER_MAX: usize = 1 << 16;

/// What an update is made of.
pub(crate) enum Part<'a> {
    /// Blocks of this client follow.
    Client(u64),
    /// In the order of their clocks.
    Block(Id, Block<'a>),
    /// The clocks from one to before another.
    Deleted { client: u64, from: u32, to: u32 },
}

/// An update that was read to its end, and is as Yjs would accept it.
#[derive(Clone, Copy)]
pub(crate) struct Checked<'a> {
    pub(crate) bytes: &'a [u8],
    /// Most places in which it can begin a row of blocks.
    pub(crate) rows: usize,
    /// Ranges of deleted clocks.
    pub(crate) ranges: usize,
}

impl<'a> Checked<'a> {
    /// Checks an update.
    pub(crate) fn new(bytes: &'a [u8]) -> Read<Self> {
        let mut reader = Reader::new(bytes);
        let mut checked = Self { bytes, rows: 0, ranges: 0 };
        let (mut last, mut sections, mut falls) = (None, 0, true);
        walk::<true>(&mut reader, |part| match part {
            Part::Client(client) => {
                falls &= last.replace(client).is_none_or(|last| last > client);
                sections += 1;
                checked.rows += 1;
            }
            Part::Block(_, block) => checked.rows += usize::from(block.is_skip()),
            Part::Deleted { .. } => checked.ranges += 1,
        })?;
        if reader.left() > 0 {
            return Err(Malformed("there is more after its end"));
        }
        if !falls {
            checked.is_of_distinct_clients(sections)?;
        }
        Ok(checked)
    }

    /// Yjs would forget all but the last section of a client.
    fn is_of_distinct_clients(self, sections: usize) -> Read<()> {
        if sections > DISORDER_MAX {
            return Err(Malformed("it has blocks of too many clients"));
        }
        let mut clients = Vec::with_capacity(sections);
        self.parts(|part| {
            if let Part::Client(client) = part {
                clients.push(client);
            }
        });
        clients.sort_unstable();
        if clients.is_sorted_by(|one, next| one < next) { Ok(()) } else { Err(Malformed("a client comes twice")) }
    }

    /// Calls `each` with everything it is made of.
    pub(crate) fn parts(self, each: impl FnMut(Part<'a>)) {
        // Checked before: this reads to the end.
        _ = walk::<false>(&mut Reader::new(self.bytes), each);
    }
}

fn walk<'a, const CHECK: bool>(reader: &mut Reader<'a>, mut each: impl FnMut(Part<'a>)) -> Read<()> {
    for _ in 0..reader.count()? {
        let blocks = reader.count()?;
        let mut at = Id { client: reader.number()?, clock: clock(reader)? };
        each(Part::Client(at.client));
        for _ in 0..blocks {
            let block = Block::read::<CHECK>(reader, at)?;
            let len = block.len;
            each(Part::Block(at, block));
            at.clock += len;
        }
    }
    for _ in 0..reader.count()? {
        let client = reader.number()?;
        for _ in 0..reader.count()? {
            let from = clock(reader)?;
            let to = from + clock(reader)?;
            if to > CLOCK_MAX {
                return Err(Malformed("a clock is too large"));
            }
            if from == to {
                // Yjs keeps it, and then fails to encode what it has.
                return Err(Malformed("a deletion is empty"));
            }
            each(Part::Deleted { client, from, to });
        }
    }
    Ok(())
}

/// What somebody has: for each client the clock up to which nothing is missing.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct StateVector(BTreeMap<u64, u32>);

impl StateVector {
    /// Reads one.
    pub(crate) fn read(bytes: &[u8]) -> Read<Self> {
        let mut reader = Reader::new(bytes);
        let mut clocks = BTreeMap::new();
        for _ in 0..reader.count()? {
            let (client, clock) = (reader.number()?, reader.number()?);
            clocks.insert(client, u32::try_from(clock).unwrap_or(CLOCK_MAX));
        }
        Ok(Self(clocks))
    }

    /// The clock of a client; 0 if nothing of it is known.
    pub(crate) fn clock(&self, client: u64) -> u32 {
        self.0.get(&client).copied().unwrap_or(0)
    }
}
