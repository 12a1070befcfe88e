//! The frames of a batch: encoded once, for all who receive them. Frames for everybody lie one after another in one buffer, so
//! that a member who gets all of them is sent that buffer as it is; frames for some lie in a second one. Their compressed form is
//! made when the first member needs it, once for all.

use std::ops::Range;
use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};

use crate::protocol::deflate::{self, Compression};
use crate::protocol::frame::{Audience, Delivery, Opcode, Payload, RSV1, encode, encode_first, header_len};

/// Frames one after another, with what may happen to each when a reader is slow.
#[derive(Debug, Clone, Default)]
pub struct Frames {
    /// The bytes of all frames.
    pub wire: Bytes,
    /// End of each frame in `wire`.
    pub ends: Vec<u32>,
    /// How each is delivered.
    pub deliveries: Deliveries,
    /// The same frames, compressed where that makes them smaller; within it, `None` if it makes none smaller.
    deflated: OnceLock<Option<Box<Frames>>>,
}

/// How the frames of [`Frames`] are delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deliveries {
    /// All in the same way, and none replaces another.
    Alike(Delivery),
    /// Each in its own.
    Each(Vec<Delivery>),
}

impl Deliveries {
    fn of(&self, frame: u32) -> &Delivery {
        match self {
            Self::Alike(delivery) => delivery,
            Self::Each(each) => each.get(frame as usize).unwrap_or(&Delivery::HIGH),
        }
    }
}

impl Default for Deliveries {
    fn default() -> Self {
        Self::Each(Vec::new())
    }
}

impl Frames {
    /// One frame.
    pub fn one(wire: Bytes, delivery: Delivery) -> Self {
        let (ends, deliveries) = (vec![wire.len() as u32], Deliveries::Each(vec![delivery]));
        Self { wire, ends, deliveries, deflated: OnceLock::new() }
    }

    /// How many frames.
    pub fn len(&self) -> u32 {
        self.ends.len() as u32
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Where a frame begins in `wire`; for the index after the last one, where `wire` ends.
    pub fn start(&self, frame: u32) -> usize {
        frame.checked_sub(1).and_then(|before| self.ends.get(before as usize)).map_or(0, |end| *end as usize)
    }

    /// Where some frames lie in `wire`.
    pub fn bytes(&self, frames: &Range<u32>) -> Range<usize> {
        self.start(frames.start)..self.start(frames.end)
    }

    /// How a frame is delivered.
    pub fn delivery(&self, frame: u32) -> &Delivery {
        self.deliveries.of(frame)
    }

    /// These frames for members who negotiated compression: as many, and delivered alike. Members of several mounts may share
    /// them, then they are compressed as the mount of the first one says.
    pub fn deflated(&self, compression: Compression) -> &Self {
        self.deflated.get_or_init(|| self.deflate(compression, |_| true)).as_deref().unwrap_or(self)
    }

    /// Compresses the frames that are wanted, and leaves the others as they are. `None` if none becomes smaller.
    fn deflate(&self, compression: Compression, wanted: impl Fn(u32) -> bool) -> Option<Box<Self>> {
        let frame = |index: u32| &self.wire[self.bytes(&(index..index + 1))];
        let is_worth_it = |index: u32| {
            let frame = frame(index);
            let is_data = frame.first().is_some_and(|first| first & 0x08 == 0);
            is_data && frame.len() - header_len(frame) >= compression.bytes_min as usize && wanted(index)
        };
        if !(0..self.len()).any(is_worth_it) {
            return None;
        }
        let mut any = false;
        let mut wire = BytesMut::new();
        let mut ends = Vec::with_capacity(self.ends.len());
        for index in 0..self.len() {
            let frame = frame(index);
            let payload = &frame[header_len(frame)..];
            let encode = |small: &[u8]| encode_first(frame[0] | RSV1, small, &mut wire);
            let shrunk = is_worth_it(index).then(|| deflate::deflate(compression.level, payload, encode));
            match shrunk.flatten() {
                Some(()) => any = true,
                None => wire.extend_from_slice(frame),
            }
            ends.push(wire.len() as u32);
        }
        let (wire, deliveries) = (wire.freeze(), self.deliveries.clone());
        any.then(|| Box::new(Self { wire, ends, deliveries, deflated: OnceLock::new() }))
    }
}

/// Some consecutive frames of a burst, for a member that does not get all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slice {
    /// Of the shared frames, by their index.
    Shared(Range<u32>),
    /// Of the private frames, by their index.
    Private(Range<u32>),
}

/// On whose account a frame is sent, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Index in the batch of the event on whose account it is sent.
    pub event: u32,
    /// Who receives it.
    pub audience: Audience,
}

/// All frames of a batch.
#[derive(Debug, Clone, Default)]
pub struct Burst {
    /// Those for everybody, or everybody but one, in the order in which they are sent.
    pub shared: Frames,
    /// Those for some.
    pub private: Frames,
    /// Of both kinds, in the order in which they are sent.
    pub order: Vec<Outgoing>,
}

impl Burst {
    /// The frames of a slice, and their bytes.
    pub fn frames(&self, slice: &Slice) -> (&Frames, Range<u32>) {
        match slice {
            Slice::Shared(frames) => (&self.shared, frames.clone()),
            Slice::Private(frames) => (&self.private, frames.clone()),
        }
    }

    /// Compresses the private frames that members who negotiated it get. Otherwise the first of them would have all private
    /// frames compressed, though most are for somebody else.
    pub fn deflate_private<'a>(&self, compression: Compression, slices: impl Iterator<Item = &'a Slice>) {
        let mut wanted = vec![false; self.private.len() as usize];
        for slice in slices {
            if let Slice::Private(frames) = slice
                && let Some(frames) = wanted.get_mut(frames.start as usize..frames.end as usize)
            {
                frames.fill(true);
            }
        }
        let wanted = |frame: u32| wanted.get(frame as usize) == Some(&true);
        self.private.deflated.get_or_init(|| self.private.deflate(compression, wanted));
    }
}

/// A [`Burst`] being made.
#[derive(Debug, Default)]
pub struct BurstBuilder {
    shared: FramesBuilder,
    private: FramesBuilder,
    order: Vec<Outgoing>,
}

#[derive(Debug, Default)]
struct FramesBuilder {
    wire: BytesMut,
    ends: Vec<u32>,
    deliveries: Deliveries,
}

impl FramesBuilder {
    fn push(&mut self, payload: &Payload, delivery: Delivery) {
        encode(payload.opcode(), payload.bytes(), &mut self.wire);
        let count = self.ends.len();
        self.ends.push(self.wire.len() as u32);
        match &mut self.deliveries {
            Deliveries::Alike(all) if *all == delivery => {}
            Deliveries::Alike(all) => {
                let mut each = vec![all.clone(); count];
                each.push(delivery);
                self.deliveries = Deliveries::Each(each);
            }
            Deliveries::Each(each) if each.is_empty() && delivery.conflate.is_none() => {
                self.deliveries = Deliveries::Alike(delivery);
            }
            Deliveries::Each(each) => each.push(delivery),
        }
    }

    /// A copy of what a frame carries.
    fn payload(&self, frame: u32) -> Payload {
        let end = |frame: u32| self.ends.get(frame as usize).map_or(0, |end| *end as usize);
        let start = frame.checked_sub(1).map_or(0, end);
        let frame = self.wire.get(start..end(frame)).unwrap_or_default();
        let bytes = Bytes::copy_from_slice(&frame[header_len(frame)..]);
        match frame.first() {
            Some(first) if first & 0x0F == Opcode::Text as u8 => Payload::Text(bytes),
            _ => Payload::Binary(bytes),
        }
    }

    fn finish(self) -> Frames {
        Frames { wire: self.wire.freeze(), ends: self.ends, deliveries: self.deliveries, deflated: OnceLock::new() }
    }
}

impl BurstBuilder {
    /// Appends a frame.
    pub fn push(&mut self, event: u32, payload: &Payload, audience: Audience, delivery: Delivery) {
        match audience {
            Audience::All | Audience::Except(_) => self.shared.push(payload, delivery),
            Audience::Only(_) | Audience::User(_) => self.private.push(payload, delivery),
        }
        self.order.push(Outgoing { event, audience });
    }

    /// The frames so far, in the order in which they were appended: for whom, what, and how.
    pub fn frames(&self) -> impl Iterator<Item = (&Outgoing, Payload, &Delivery)> {
        let (mut shared, mut private) = (0, 0);
        self.order.iter().map(move |outgoing| {
            let (frames, next) = match outgoing.audience {
                Audience::All | Audience::Except(_) => (&self.shared, &mut shared),
                Audience::Only(_) | Audience::User(_) => (&self.private, &mut private),
            };
            let frame = *next;
            *next += 1;
            (outgoing, frames.payload(frame), frames.deliveries.of(frame))
        })
    }

    /// The burst.
    pub fn finish(self) -> Burst {
        Burst { shared: self.shared.finish(), private: self.private.finish(), order: self.order }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::event::MemberId;
    use crate::protocol::frame::Priority;

    fn delivery(priority: Priority, conflate: Option<&str>) -> Delivery {
        Delivery { priority, conflate: conflate.map(Into::into) }
    }

    #[test]
    fn frames_for_everybody_and_for_some_lie_apart_and_keep_their_deliveries() {
        let mut builder = BurstBuilder::default();
        let normal = delivery(Priority::Normal, None);
        let newest = delivery(Priority::Low, Some("x"));
        builder.push(0, &Payload::text("a"), Audience::All, normal.clone());
        builder.push(0, &Payload::text("bb"), Audience::Only([MemberId(1)].into()), newest.clone());
        builder.push(1, &Payload::text("ccc"), Audience::Except(MemberId(1)), normal.clone());
        builder.push(2, &Payload::text("d"), Audience::All, newest.clone());

        let told: Vec<_> =
            builder.frames().map(|(outgoing, payload, how)| (outgoing.event, payload, how.clone())).collect();
        let burst = builder.finish();

        let expected = [(0, "a", &normal), (0, "bb", &newest), (1, "ccc", &normal), (2, "d", &newest)];
        assert_eq!(told, expected.map(|(event, text, how)| (event, Payload::text(text), how.clone())));
        assert_eq!(burst.shared.wire, &b"\x81\x01a\x81\x03ccc\x81\x01d"[..]);
        assert_eq!((burst.shared.len(), burst.shared.bytes(&(1..3)), burst.shared.start(0)), (3, 3..11, 0));
        assert_eq!([0, 1, 2].map(|frame| burst.shared.delivery(frame)), [&normal, &normal, &newest]);
        assert_eq!((burst.private.len(), burst.private.delivery(0)), (1, &newest));
        assert_eq!(burst.order.len(), 4);
    }

    #[test]
    fn frames_that_replace_each_other_are_never_taken_for_alike() {
        let mut builder = BurstBuilder::default();
        for _ in 0..2 {
            builder.push(0, &Payload::text("a"), Audience::All, delivery(Priority::Low, Some("x")));
        }
        assert!(matches!(builder.finish().shared.deliveries, Deliveries::Each(each) if each.len() == 2));
    }

    /// Law: the compressed form has the same frames by the same numbers, compressed where that is worth it, and is made once.
    #[test]
    fn frames_are_compressed_where_that_makes_them_smaller() {
        let mut noise = 1_u32;
        let noise = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        });
        let payloads = [
            Payload::text("x".repeat(255)),
            Payload::text("x".repeat(256)),
            Payload::Binary(noise.take(1_000).collect()),
            Payload::Binary(vec![7; 70_000].into()),
        ];
        let mut builder = BurstBuilder::default();
        for (payload, number) in payloads.iter().zip(0..) {
            let key = format!("{number}");
            builder.push(0, payload, Audience::All, delivery(Priority::Low, Some(&key)));
        }
        let plain = builder.finish().shared;

        let deflated = plain.deflated(Compression::default());

        assert!(std::ptr::eq(deflated, plain.deflated(Compression::default())));
        assert_eq!((deflated.len(), &deflated.deliveries), (4, &plain.deliveries));
        let frame = |frames: &Frames, index: u32| frames.wire.slice(frames.bytes(&(index..index + 1)));
        for (index, first) in [(1, 0xC1), (3, 0xC2)] {
            let (small, large) = (frame(deflated, index), frame(&plain, index));
            assert_eq!(small[0], first);
            assert!(small.len() < large.len() / 4);
            let (mut inflated, mut payload) = (Vec::new(), small[header_len(&small)..].to_vec());
            deflate::inflate(&mut payload, 70_000, &mut inflated).unwrap();
            assert_eq!(inflated, large[header_len(&large)..]);
        }
        for index in [0, 2] {
            assert_eq!(frame(deflated, index), frame(&plain, index));
        }
    }

    #[test]
    fn what_compression_makes_no_smaller_stays_as_it_is() {
        let all = Compression { bytes_min: 0, ..Compression::default() };
        let close = Frames::one(Bytes::from_static(b"\x88\x0a\x03\xE8xxxxxxxx"), Delivery::HIGH);
        let pings = Frames::one(Bytes::from([[0x89, 0x7D].to_vec(), vec![7; 125]].concat().repeat(9)), Delivery::HIGH);
        let nothing = Frames::one(Bytes::from_static(b"\x81\x00"), Delivery::HIGH);
        for frames in [close, pings, nothing, Frames::default()] {
            assert!(std::ptr::eq(frames.deflated(all), &raw const frames));
        }
    }

    /// Goal: of many private frames only those are compressed that somebody gets compressed.
    #[test]
    fn private_frames_are_compressed_only_for_those_who_want_that() {
        let mut builder = BurstBuilder::default();
        for member in 0..10 {
            let audience = Audience::Only([MemberId(member)].into());
            builder.push(0, &Payload::text("x".repeat(1_000)), audience, delivery(Priority::Low, None));
        }
        let burst = builder.finish();
        let slices = [Slice::Private(2..4), Slice::Shared(0..0), Slice::Private(7..8)];

        burst.deflate_private(Compression::default(), slices.iter());

        let deflated = burst.private.deflated(Compression::default());
        let compressed = (0..10).filter(|frame| deflated.wire[deflated.start(*frame)] & RSV1 != 0);
        assert_eq!(compressed.collect::<Vec<_>>(), [2, 3, 7]);
        assert_eq!(deflated.bytes(&(9..10)).len(), burst.private.bytes(&(9..10)).len());
    }
}
