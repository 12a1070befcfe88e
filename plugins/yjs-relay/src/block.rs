//! Blocks, which Yjs calls structs: what one client inserted at consecutive clocks. Reads and checks them as strictly
//! as the readers of Yjs do, and cuts them as Yjs does. Knows nothing of a document.

use std::borrow::Cow;

use crate::lib0::{Malformed, Read, Reader, write_bytes, write_number};

/// Past the last clock. Yjs allows more, but clients in other languages count with 32 bits and a sign.
pub(crate) const CLOCK_MAX: u32 = i32::MAX as u32;

/// What the lowest five bits of a block's first byte say.
mod kind {
    pub(super) const MASK: u8 = 0x1F;
    pub(super) const GC: u8 = 0;
    pub(super) const DELETED: u8 = 1;
    pub(super) const JSON: u8 = 2;
    pub(super) const BINARY: u8 = 3;
    pub(super) const STRING: u8 = 4;
    pub(super) const EMBED: u8 = 5;
    pub(super) const FORMAT: u8 = 6;
    pub(super) const TYPE: u8 = 7;
    pub(super) const ANY: u8 = 8;
    pub(super) const DOC: u8 = 9;
    pub(super) const SKIP: u8 = 10;
}

const HAS_ORIGIN: u8 = 0x80;
const HAS_RIGHT_ORIGIN: u8 = 0x40;
const HAS_PARENT_SUB: u8 = 0x20;

/// Names one inserted thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id {
    pub(crate) client: u64,
    pub(crate) clock: u32,
}

impl Id {
    fn read(reader: &mut Reader<'_>) -> Read<Self> {
        Ok(Self { client: reader.number()?, clock: clock(reader)? })
    }

    fn write(self, to: &mut Vec<u8>) {
        write_number(to, self.client);
        write_number(to, u64::from(self.clock));
    }
}

/// A clock, or a number of clocks.
pub(crate) fn clock(reader: &mut Reader<'_>) -> Read<u32> {
    let clock = reader.number()?;
    u32::try_from(clock).ok().filter(|clock| *clock < CLOCK_MAX).ok_or(Malformed("a clock is too large"))
}

/// A block as it stands in an update.
#[derive(Clone)]
pub(crate) struct Block<'a> {
    info: u8,
    /// How many clocks it takes.
    pub(crate) len: u32,
    origin: Option<Id>,
    right_origin: Option<Id>,
    /// Parent, and key within it, where there is no origin to take them from.
    parent: &'a [u8],
    content: &'a [u8],
    /// All of it.
    pub(crate) raw: &'a [u8],
}

impl<'a> Block<'a> {
    /// Reads a block that begins at this clock of this client. Without `CHECK` it was checked before.
    pub(crate) fn read<const CHECK: bool>(reader: &mut Reader<'a>, at: Id) -> Read<Self> {
        let begin = reader.position();
        let info = reader.byte()?;
        if matches!(info, kind::GC | kind::SKIP) {
            let content_begin = reader.position();
            let len = clock(reader)?;
            let (content, raw) = (reader.since(content_begin), reader.since(begin));
            check_len(at, len)?;
            return Ok(Self { info, len, origin: None, right_origin: None, parent: &[], content, raw });
        }
        let origin = if info & HAS_ORIGIN == 0 { None } else { Some(earlier(at, Id::read(reader)?)?) };
        let right_origin = if info & HAS_RIGHT_ORIGIN == 0 { None } else { Some(earlier(at, Id::read(reader)?)?) };
        let parent_begin = reader.position();
        if origin.is_none() && right_origin.is_none() {
            match reader.number()? {
                0 => _ = earlier(at, Id::read(reader)?)?,
                1 => _ = reader.text::<CHECK>()?,
                _ => return Err(Malformed("a parent is neither a name nor an id")),
            }
            if info & HAS_PARENT_SUB != 0 {
                reader.text::<CHECK>()?;
            }
        }
        let parent = reader.since(parent_begin);
        let content_begin = reader.position();
        let len = read_content::<CHECK>(reader, info & kind::MASK)?;
        check_len(at, len)?;
        let (content, raw) = (reader.since(content_begin), reader.since(begin));
        Ok(Self { info, len, origin, right_origin, parent, content, raw })
    }

    /// Whether it stands for clocks that are left out.
    pub(crate) fn is_skip(&self) -> bool {
        self.info == kind::SKIP
    }

    /// Whether it has no content to give up.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.info & kind::MASK, kind::GC | kind::DELETED)
    }

    /// What cuts it into pieces.
    pub(crate) fn cutter(self, at: Id) -> Cutter<'a> {
        Cutter { block: self, at, text: None, byte: 0, passed: 0 }
    }
}

/// Cuts a block into pieces, from left to right and in one go however many they are.
pub(crate) struct Cutter<'a> {
    block: Block<'a>,
    at: Id,
    /// Its text, once that is needed.
    text: Option<&'a str>,
    /// Where in its text, or in its content, the last cut was.
    byte: usize,
    /// The clocks, or UTF-16 units, before that.
    passed: u32,
}

impl<'a> Cutter<'a> {
    /// What is between two of its clocks, counted from its first, as Yjs would cut it out: what follows another part
    /// has the end of that as its origin. Must not begin before the end of the piece before.
    pub(crate) fn piece(&mut self, from: u32, to: u32) -> Piece<'a> {
        let body = self.body(from, to);
        let (block, at) = (&self.block, self.at);
        let head = Piece {
            at: Id { client: at.client, clock: at.clock + from },
            len: to - from,
            info: block.info,
            origin: block.origin,
            right_origin: block.right_origin,
            parent: block.parent,
            body,
        };
        if from == 0 || block.info == kind::GC {
            return head;
        }
        let origin = Some(Id { client: at.client, clock: at.clock + from - 1 });
        Piece { info: block.info | HAS_ORIGIN, origin, parent: &[], ..head }
    }

    fn body(&mut self, from: u32, to: u32) -> Body<'a> {
        let whole = from == 0 && to == self.block.len;
        match self.block.info & kind::MASK {
            kind::GC | kind::DELETED | kind::SKIP => Body::Empty,
            kind::STRING if whole => Body::Text(Cow::Borrowed(self.text_bytes())),
            kind::STRING => Body::Text(self.text_between(from, to)),
            kind::JSON | kind::ANY if !whole => Body::Other(Cow::Owned(self.elements(from, to).unwrap_or_default())),
            _ => Body::Other(Cow::Borrowed(self.block.content)),
        }
    }

    fn text_bytes(&self) -> &'a [u8] {
        Reader::new(self.block.content).byte_string().unwrap_or_default()
    }

    /// Text by UTF-16 units. Half of a surrogate pair becomes U+FFFD, as in Yjs.
    fn text_between(&mut self, from: u32, to: u32) -> Cow<'a, [u8]> {
        const HALF: &str = "\u{FFFD}";
        let bytes = self.text_bytes();
        let text = *self.text.get_or_insert_with(|| std::str::from_utf8(bytes).unwrap_or_default());
        let (before, begin) = self.boundary(text, from);
        let (end, after) = self.boundary(text, to);
        let inner = text.get(begin..end).unwrap_or_default();
        if before == begin && end == after {
            return Cow::Borrowed(inner.as_bytes());
        }
        let first = if before == begin { "" } else { HALF };
        let last = if end == after { "" } else { HALF };
        Cow::Owned([first, inner, last].concat().into_bytes())
    }

    /// The byte before which, and the one after which, so many UTF-16 units end. They differ within a surrogate pair.
    fn boundary(&mut self, text: &str, units: u32) -> (usize, usize) {
        for character in text.get(self.byte..).unwrap_or_default().chars() {
            if self.passed >= units {
                break;
            }
            let next = self.byte + character.len_utf8();
            if self.passed + character.len_utf16() as u32 > units {
                return (self.byte, next);
            }
            self.byte = next;
            self.passed += character.len_utf16() as u32;
        }
        (self.byte, self.byte)
    }

    /// The elements from one to before another, as content.
    fn elements(&mut self, from: u32, to: u32) -> Read<Vec<u8>> {
        let mut reader = Reader::new(self.block.content);
        if self.byte == 0 {
            reader.number()?;
        } else {
            reader.take(self.byte)?;
        }
        let mut begin = reader.position();
        while self.passed < to {
            if self.passed == from {
                begin = reader.position();
            }
            match self.block.info & kind::MASK {
                kind::JSON => _ = reader.byte_string()?,
                _ => reader.any::<false>()?,
            }
            self.passed += 1;
        }
        self.byte = reader.position();
        let elements = reader.since(begin);
        let mut out = Vec::with_capacity(elements.len() + 5);
        write_number(&mut out, u64::from(to - from));
        out.extend_from_slice(elements);
        Ok(out)
    }
}

/// A block can only refer to what its own client made before it. A client of Yjs does not check that: it would fail on
/// such a block, and on every document with it.
fn earlier(at: Id, other: Id) -> Read<Id> {
    if other.client == at.client && other.clock >= at.clock {
        return Err(Malformed("a block refers to itself or a later one"));
    }
    Ok(other)
}

fn check_len(at: Id, len: u32) -> Read<()> {
    match at.clock.checked_add(len) {
        Some(end) if end <= CLOCK_MAX && len > 0 => Ok(()),
        Some(_) if len == 0 => Err(Malformed("a block is empty")),
        _ => Err(Malformed("a clock is too large")),
    }
}

/// Passes over the content of an item, and gives its length in clocks.
fn read_content<const CHECK: bool>(reader: &mut Reader<'_>, kind: u8) -> Read<u32> {
    match kind {
        kind::DELETED => return clock(reader),
        kind::STRING => return Ok(utf16_len(reader.text::<CHECK>()?)),
        kind::JSON => {
            let count = reader.count()?;
            for _ in 0..count {
                let text = reader.text::<CHECK>()?;
                if CHECK && text != b"undefined" && !crate::lib0::is_json(text) {
                    return Err(Malformed("a text is not JSON"));
                }
            }
            return Ok(count as u32);
        }
        kind::ANY => {
            let count = reader.count()?;
            for _ in 0..count {
                reader.any::<CHECK>()?;
            }
            return Ok(count as u32);
        }
        kind::BINARY => _ = reader.byte_string()?,
        kind::EMBED => _ = reader.json::<CHECK>()?,
        kind::FORMAT => {
            reader.text::<CHECK>()?;
            reader.json::<CHECK>()?;
        }
        kind::TYPE => match reader.number()? {
            // Array, map, text, XML fragment, XML text; XML element and XML hook with their name.
            0..=2 | 4 | 6 => {}
            3 | 5 => _ = reader.text::<CHECK>()?,
            _ => return Err(Malformed("a shared type is unknown")),
        },
        kind::DOC => {
            reader.text::<CHECK>()?;
            reader.object::<CHECK>()?;
        }
        _ => return Err(Malformed("a block has an unknown kind")),
    }
    Ok(1)
}

/// The length of a UTF-8 text in UTF-16 units, which is what Yjs counts.
fn utf16_len(text: &[u8]) -> u32 {
    text.iter().map(|byte| u32::from(byte & 0xC0 != 0x80) + u32::from(*byte >= 0xF0)).sum()
}

/// What an item carries.
#[derive(Clone)]
enum Body<'a> {
    /// Nothing but its length.
    Empty,
    Text(Cow<'a, [u8]>),
    Other(Cow<'a, [u8]>),
}

/// A block, or a part of one, or several joined.
#[derive(Clone)]
pub(crate) struct Piece<'a> {
    /// Its first clock.
    at: Id,
    pub(crate) len: u32,
    info: u8,
    origin: Option<Id>,
    right_origin: Option<Id>,
    parent: &'a [u8],
    body: Body<'a>,
}

impl Piece<'_> {
    /// Gives up its content, as Yjs does with what was deleted.
    pub(crate) fn empty(&mut self) {
        if self.info != kind::GC {
            self.info = self.info & !kind::MASK | kind::DELETED;
        }
        self.body = Body::Empty;
    }

    /// Joins the piece that follows, where Yjs would: cut apart again, both would be what they were.
    pub(crate) fn try_join(&mut self, next: &Self) -> bool {
        let last = Id { client: self.at.client, clock: self.at.clock + self.len - 1 };
        if self.info == kind::GC && next.info == kind::GC {
            self.len += next.len;
            return true;
        }
        if self.info & kind::MASK != next.info & kind::MASK
            || next.origin != Some(last)
            || self.right_origin != next.right_origin
            || (self.info ^ next.info) & HAS_PARENT_SUB != 0
        {
            return false;
        }
        match (&mut self.body, &next.body) {
            (Body::Empty, Body::Empty) => {}
            // Under a key each value replaces the one before: those are no text to join.
            (Body::Text(text), Body::Text(more)) if self.info & HAS_PARENT_SUB == 0 => {
                text.to_mut().extend_from_slice(more);
            }
            _ => return false,
        }
        self.len += next.len;
        true
    }

    /// Writes it as a block.
    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        to.push(self.info);
        if let Some(origin) = self.origin {
            origin.write(to);
        }
        if let Some(right_origin) = self.right_origin {
            right_origin.write(to);
        }
        to.extend_from_slice(self.parent);
        match &self.body {
            Body::Empty => write_number(to, u64::from(self.len)),
            Body::Text(text) => write_bytes(to, text),
            Body::Other(content) => to.extend_from_slice(content),
        }
    }
}

/// Writes a block that stands for clocks that are left out.
pub(crate) fn write_skip(to: &mut Vec<u8>, len: u32) {
    to.push(kind::SKIP);
    write_number(to, u64::from(len));
}
