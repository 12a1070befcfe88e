//! lib0, the encoding beneath Yjs: numbers of variable length, byte strings, and values of any type. Reads what anybody
//! sent: never panics, never reserves more than there is, and goes at most [`DEPTH_MAX`] deep.

use serde::de::IgnoredAny;

/// Largest whole number JavaScript holds exactly.
pub(crate) const INTEGER_MAX: u64 = (1 << 53) - 1;
/// Deepest nesting of a value.
pub(crate) const DEPTH_MAX: u32 = 128;

/// Bytes that are not what they should be, in a sentence for a developer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// What a read gives.
pub(crate) type Read<T> = Result<T, Malformed>;

const TOO_SHORT: Malformed = Malformed("it ends too early");

/// A position in bytes.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// At the beginning.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The bytes from a former position up to here.
    pub(crate) fn since(&self, position: usize) -> &'a [u8] {
        self.bytes.get(position..self.at).unwrap_or_default()
    }

    /// The bytes that are left.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// One byte.
    pub(crate) fn byte(&mut self) -> Read<u8> {
        let byte = *self.bytes.get(self.at).ok_or(TOO_SHORT)?;
        self.at += 1;
        Ok(byte)
    }

    /// This many bytes.
    pub(crate) fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        let taken = self.rest().get(..length).ok_or(TOO_SHORT)?;
        self.at += length;
        Ok(taken)
    }

    /// A number from 0 to [`INTEGER_MAX`].
    pub(crate) fn number(&mut self) -> Read<u64> {
        let first = self.byte()?;
        if first < 128 {
            return Ok(u64::from(first));
        }
        let mut number = u64::from(first & 127);
        for shift in [7, 14, 21, 28, 35, 42, 49] {
            let byte = self.byte()?;
            number |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return if number <= INTEGER_MAX { Ok(number) } else { Err(Malformed("a number is too large")) };
            }
        }
        Err(Malformed("a number is too long"))
    }

    /// A number of things of which each takes at least one of the bytes that are left.
    pub(crate) fn count(&mut self) -> Read<usize> {
        let count = self.number()?;
        usize::try_from(count).ok().filter(|count| *count <= self.left()).ok_or(TOO_SHORT)
    }

    /// A byte string with its length.
    pub(crate) fn byte_string(&mut self) -> Read<&'a [u8]> {
        let length = self.count()?;
        self.take(length)
    }

    /// The bytes of a text with its length. They are UTF-8 if `CHECK`; else somebody checked before.
    pub(crate) fn text<const CHECK: bool>(&mut self) -> Read<&'a [u8]> {
        let bytes = self.byte_string()?;
        if CHECK && std::str::from_utf8(bytes).is_err() {
            return Err(Malformed("a text is not UTF-8"));
        }
        Ok(bytes)
    }

    /// A text that is JSON, for `JSON.parse` at the other end. Not checked without `CHECK`.
    pub(crate) fn json<const CHECK: bool>(&mut self) -> Read<&'a [u8]> {
        let bytes = self.text::<CHECK>()?;
        if CHECK && !is_json(bytes) {
            return Err(Malformed("a text is not JSON"));
        }
        Ok(bytes)
    }

    /// Passes over a whole number with a sign.
    fn signed(&mut self) -> Read<()> {
        let first = self.byte()?;
        if first < 128 {
            return Ok(());
        }
        let mut number = u64::from(first & 63);
        for shift in [6, 13, 20, 27, 34, 41, 48] {
            let byte = self.byte()?;
            number |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return if number <= INTEGER_MAX { Ok(()) } else { Err(Malformed("a number is too large")) };
            }
        }
        Err(Malformed("a number is too long"))
    }

    /// Passes over a value of any type.
    pub(crate) fn any<const CHECK: bool>(&mut self) -> Read<()> {
        self.any_at::<CHECK>(0)
    }

    /// Passes over an object.
    pub(crate) fn object<const CHECK: bool>(&mut self) -> Read<()> {
        match self.rest().first() {
            Some(&OBJECT) => self.any::<CHECK>(),
            _ => Err(Malformed("a value is not an object")),
        }
    }

    fn any_at<const CHECK: bool>(&mut self, depth: u32) -> Read<()> {
        if depth > DEPTH_MAX {
            return Err(Malformed("a value is nested too deep"));
        }
        match self.byte()? {
            BYTES => _ = self.byte_string()?,
            TEXT => _ = self.text::<CHECK>()?,
            ARRAY => {
                for _ in 0..self.count()? {
                    self.any_at::<CHECK>(depth + 1)?;
                }
            }
            OBJECT => {
                for _ in 0..self.count()? {
                    self.text::<CHECK>()?;
                    self.any_at::<CHECK>(depth + 1)?;
                }
            }
            TRUE | FALSE | NULL | UNDEFINED => {}
            BIG_INTEGER | FLOAT_64 => _ = self.take(8)?,
            FLOAT_32 => _ = self.take(4)?,
            INTEGER => self.signed()?,
            _ => return Err(Malformed("a value has an unknown type")),
        }
        Ok(())
    }
}

const BYTES: u8 = 116;
const ARRAY: u8 = 117;
const OBJECT: u8 = 118;
const TEXT: u8 = 119;
const TRUE: u8 = 120;
const FALSE: u8 = 121;
const BIG_INTEGER: u8 = 122;
const FLOAT_64: u8 = 123;
const FLOAT_32: u8 = 124;
const INTEGER: u8 = 125;
const NULL: u8 = 126;
const UNDEFINED: u8 = 127;

/// Whether `JSON.parse` would take it.
pub(crate) fn is_json(text: &[u8]) -> bool {
    match text {
        // By far the most: values of formats. Not worth the parser's time.
        b"null" | b"true" | b"false" | b"{}" | b"\"\"" => true,
        _ => serde_json::from_slice::<IgnoredAny>(text).is_ok(),
    }
}

/// Writes a number.
pub(crate) fn write_number(to: &mut Vec<u8>, mut number: u64) {
    while number > 127 {
        to.push(number as u8 | 128);
        number >>= 7;
    }
    to.push(number as u8);
}

/// Writes a byte string, or a text, with its length.
pub(crate) fn write_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    write_number(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}
