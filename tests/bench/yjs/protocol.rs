//! What is said between a member and a server: the protocol of y-websocket, in its own framing and in that of Hocuspocus, and as
//! much of Yjs updates (version 1) as it takes to see whose text is in them.

/// Name of the document that is measured.
pub(crate) const DOCUMENT: &str = "bench";

const SYNC: u64 = 0;
const AUTH: u64 = 2;
const SYNC_REPLY: u64 = 4;
const CLOSE: u64 = 7;
const STEP_1: u64 = 0;
const STEP_2: u64 = 1;
const UPDATE: u64 = 2;

/// Both a state vector and an update that say nothing are zeros.
const NO_STATE: &[u8] = &[0];
const NO_CHANGE: &[u8] = &[0, 0];

/// How messages are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    YWebsocket,
    /// Each message begins with the document's name, and nothing happens before the first one, which carries a token.
    Hocuspocus,
}

/// A message of a server.
#[derive(Debug)]
pub(crate) enum Incoming<'a> {
    /// It asks what the member has.
    Question,
    /// What the member lacked when it asked.
    Document(&'a [u8]),
    Update(&'a [u8]),
    /// It will not serve this member.
    Refused(String),
    Other,
}

impl Dialect {
    /// What a member says first: who it is, where that is said in messages, and that it has nothing of the document yet.
    pub(crate) fn greetings(self) -> Vec<Vec<u8>> {
        let question = self.message(&[SYNC, STEP_1], NO_STATE);
        match self {
            Self::YWebsocket => vec![question],
            Self::Hocuspocus => vec![self.message(&[AUTH, 0], b"anybody"), question],
        }
    }

    /// The answer to a question, of a member that has nothing to add.
    pub(crate) fn nothing_to_add(self) -> Vec<u8> {
        self.message(&[SYNC, STEP_2], NO_CHANGE)
    }

    pub(crate) fn update(self, update: &[u8]) -> Vec<u8> {
        self.message(&[SYNC, UPDATE], update)
    }

    fn message(self, kind: &[u64], bytes: &[u8]) -> Vec<u8> {
        let mut message = Vec::with_capacity(bytes.len() + 16);
        if self == Self::Hocuspocus {
            write_bytes(&mut message, DOCUMENT.as_bytes());
        }
        for number in kind {
            write_number(&mut message, *number);
        }
        write_bytes(&mut message, bytes);
        message
    }

    /// Reads a message; `None` if it is malformed.
    pub(crate) fn read(self, message: &[u8]) -> Option<Incoming<'_>> {
        let mut reader = Reader(message);
        if self == Self::Hocuspocus && reader.bytes()? != DOCUMENT.as_bytes() {
            return None;
        }
        Some(match (reader.number()?, self) {
            (SYNC, _) | (SYNC_REPLY, Self::Hocuspocus) => match reader.number()? {
                STEP_1 => Incoming::Question,
                STEP_2 => Incoming::Document(reader.bytes()?),
                UPDATE => Incoming::Update(reader.bytes()?),
                _ => return None,
            },
            (AUTH, _) => match (reader.number()?, self) {
                (0, Self::YWebsocket) | (1, Self::Hocuspocus) => Incoming::Refused(reader.words()?),
                _ => Incoming::Other,
            },
            (CLOSE, Self::Hocuspocus) => Incoming::Refused(reader.words()?),
            _ => Incoming::Other,
        })
    }
}

/// A piece of text in an update.
pub(crate) struct Text<'a> {
    pub(crate) client: u64,
    /// Of its first character.
    pub(crate) clock: u32,
    pub(crate) ascii: &'a [u8],
}

/// Calls `each` with the texts of an update, in the order of their clocks for each client. Expects nothing but ASCII, as
/// `typing.mjs` writes it; `None` if there is anything else, which nobody wrote.
pub(crate) fn texts<'a>(update: &'a [u8], mut each: impl FnMut(Text<'a>)) -> Option<()> {
    const HAS_ORIGIN: u8 = 0x80;
    const HAS_RIGHT_ORIGIN: u8 = 0x40;
    const STRING: u8 = 4;
    let mut reader = Reader(update);
    for _ in 0..reader.number()? {
        let blocks = reader.number()?;
        let (client, mut clock) = (reader.number()?, u32::try_from(reader.number()?).ok()?);
        for _ in 0..blocks {
            let info = reader.byte()?;
            if info & !(HAS_ORIGIN | HAS_RIGHT_ORIGIN) != STRING {
                return None;
            }
            for _ in 0..(info & (HAS_ORIGIN | HAS_RIGHT_ORIGIN)).count_ones() {
                reader.number()?;
                reader.number()?;
            }
            if info & (HAS_ORIGIN | HAS_RIGHT_ORIGIN) == 0 {
                // The parent: the name of a text at the top.
                let (1, _) = (reader.number()?, reader.bytes()?) else { return None };
            }
            let ascii = reader.bytes()?;
            each(Text { client, clock, ascii });
            clock += ascii.len() as u32;
        }
    }
    // Nobody deletes.
    (reader.0 == [0]).then_some(())
}

/// Reads numbers and byte strings as lib0 writes them.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// Seven bits in each byte, the lowest first; the highest bit says that more follow.
    #[inline]
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    #[inline]
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn words(&mut self) -> Option<String> {
        Some(String::from_utf8_lossy(self.bytes()?).into_owned())
    }
}

fn write_number(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn write_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    write_number(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}
