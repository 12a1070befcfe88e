//! The adapter with what stands above it: whatever a client compresses and however its bytes are cut, the reader puts out what it
//! would have without compression.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::STEP_BYTES;
use crate::connection::reader::{Inbound, Reader};
use crate::limits::MountLimits;
use crate::protocol::deflate::{Level, deflate};
use crate::protocol::frame::Payload;

/// First bytes of frames.
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const CONTINUATION: u8 = 0x80;
const COMPRESSED: u8 = 0x40;
const UNFINISHED: u8 = 0x7F;

/// What a reader put out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Out {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Close(u16),
}

/// A masked frame.
fn masked(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            frame.push(0xFE);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0xFF);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    masked(first, [0x12, 0x34, 0x56, 0x78], payload)
}

/// What a client would put on the wire, also if it is not smaller.
fn small(payload: &[u8]) -> Vec<u8> {
    deflate(Level::SIX, payload, <[u8]>::to_vec).unwrap_or_else(|| {
        let blocks = payload.chunks(0xFFFF).flat_map(|block| {
            let len = block.len() as u16;
            [&[0][..], &len.to_le_bytes(), &(!len).to_le_bytes(), block].concat()
        });
        blocks.chain([0]).collect()
    })
}

fn limits() -> MountLimits {
    MountLimits { message_bytes_max: 100_000, message_fragments_max: 20, ..MountLimits::default() }
}

fn reader(limits: &MountLimits) -> Reader {
    Reader::new(limits, true)
}

/// Has a reader read bytes in these pieces, each with all that it leaves for later; what it put out, and what it replied.
fn read<'a>(reader: &mut Reader, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Out>, Vec<u8>) {
    let (mut out, mut replies) = (Vec::new(), Vec::new());
    let mut one = |reader: &mut Reader, bytes: &[u8]| {
        let mut into = VecDeque::new();
        replies.extend(reader.read(bytes, &mut into));
        out.extend(into.into_iter().map(|inbound| match inbound {
            Inbound::Message(Payload::Text(text)) => Out::Text(text.to_vec()),
            Inbound::Message(Payload::Binary(bytes)) => Out::Binary(bytes.to_vec()),
            Inbound::Close(close) => Out::Close(close.code),
            Inbound::Admitted(_) | Inbound::OverRate(_) => panic!("nothing was counted yet"),
        }));
    };
    for piece in pieces {
        one(reader, piece);
        while reader.has_left() {
            let left = reader.take_left();
            one(reader, &left);
        }
    }
    (out, replies)
}

fn read_all(bytes: &[u8]) -> Vec<Out> {
    read(&mut reader(&limits()), [bytes]).0
}

/// A session with a bit of everything, what it puts out, and the pongs.
fn session() -> (Vec<u8>, Vec<Out>, Vec<u8>) {
    let text = "ein Text, \u{1F642} ein Text, ein Text";
    let wire = small(text.as_bytes());
    let long = [b'x'; 300];
    let bytes = [
        frame(TEXT | COMPRESSED, &wire),
        frame((TEXT | COMPRESSED) & UNFINISHED, &wire[..3]),
        frame(PING, b"between"),
        frame(CONTINUATION & UNFINISHED, b""),
        frame(CONTINUATION & UNFINISHED, &wire[3..10]),
        frame(CONTINUATION, &wire[10..]),
        frame(BINARY & UNFINISHED, b"pl"),
        frame(PING, b""),
        frame(CONTINUATION, b"ain"),
        frame(BINARY | COMPRESSED, &small(&long)),
        frame(TEXT | COMPRESSED, &[0]),
        frame((TEXT | COMPRESSED) & UNFINISHED, b""),
        frame(CONTINUATION, &wire),
        frame(TEXT, b"plain"),
        frame(CLOSE, b"\x03\xE8"),
        frame(TEXT | COMPRESSED, b"after the end"),
    ];
    let text = Out::Text(text.as_bytes().to_vec());
    let out = vec![
        text.clone(),
        text.clone(),
        Out::Binary(b"plain".to_vec()),
        Out::Binary(long.to_vec()),
        Out::Text(Vec::new()),
        text,
        Out::Text(b"plain".to_vec()),
        Out::Close(1000),
    ];
    (bytes.concat(), out, b"\x8A\x07between\x8A\x00".to_vec())
}

/// Law: where the bytes are cut changes nothing.
#[test]
fn a_session_is_the_same_wherever_its_bytes_are_cut() {
    let (bytes, out, pongs) = session();
    for cut in 0..=bytes.len() {
        let (before, after) = bytes.split_at(cut);
        let result = read(&mut reader(&limits()), [before, after]);
        assert_eq!((&result.0, &result.1), (&out, &pongs), "cut at {cut}");
    }
    let byte_by_byte = read(&mut reader(&limits()), bytes.chunks(1));
    assert_eq!(byte_by_byte, (out, pongs));
}

/// Law: compressed or not, in whatever fragments, masks and reads, with whatever between them, the same messages come out.
#[test]
fn random_sessions_put_out_what_was_put_in() {
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..random.random_range(1..10) {
            let words = ["a", "bb", "news ", "{\"type\":\"x\"}", "\u{e9}", "0123456789"];
            let count_max = [3, 50, 3_000][random.random_range(0..3)];
            let count = random.random_range(0..count_max);
            let payload: String = (0..count).map(|_| words[random.random_range(0..words.len())]).collect();
            let payload = payload.into_bytes();
            let (first, out) = if random.random() {
                (TEXT, Out::Text(payload.clone()))
            } else {
                (BINARY, Out::Binary(payload.clone()))
            };
            expected.push(out);
            let compressed = random.random_bool(0.7);
            let wire = if compressed { small(&payload) } else { payload };
            let first = if compressed { first | COMPRESSED } else { first };
            let mut cuts: Vec<usize> =
                (0..random.random_range(0..6)).map(|_| random.random_range(0..=wire.len())).collect();
            cuts.sort_unstable();
            cuts.push(wire.len());
            let mut from = 0;
            for (index, to) in cuts.iter().enumerate() {
                let opcode = if index == 0 { first } else { CONTINUATION };
                let end = if index + 1 == cuts.len() { 0xFF } else { UNFINISHED };
                bytes.extend(masked(opcode & end, random.random(), &wire[from..*to]));
                from = *to;
                if random.random_bool(0.2) {
                    bytes.extend(masked(PING, random.random(), b"ping"));
                }
            }
        }
        let mut reader = reader(&limits());
        let (mut out, mut rest) = (Vec::new(), &bytes[..]);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(random.random_range(1..=rest.len().min(2_000)));
            out.extend(read(&mut reader, [piece]).0);
            rest = after;
        }
        assert_eq!(out, expected, "seed {seed}");
        assert!(!reader.is_in_message(), "seed {seed}");
    }
}

/// RFC 7692 §6, RFC 6455 §5.2, §5.4: what no client may send ends the connection with 1002; what came before counts.
#[test]
fn a_broken_protocol_is_closed_with_1002() {
    let wire = small(b"a rose is a rose is a rose");
    let begun = frame((TEXT | COMPRESSED) & UNFINISHED, &wire[..2]);
    let plain = frame(TEXT & UNFINISHED, b"x");
    let unmasked = |first: u8| vec![first, 1, b'x'];
    for (why, bytes) in [
        ("a compressed continuation of nothing", frame(CONTINUATION | COMPRESSED, &wire)),
        ("a compressed continuation of a compressed message", [begun.clone(), frame(0xC0, &wire[2..])].concat()),
        ("a compressed continuation of a plain message", [plain.clone(), frame(0xC0, b"x")].concat()),
        ("a compressed message in a plain one", [plain.clone(), frame(TEXT | COMPRESSED, &wire)].concat()),
        ("a message in a compressed one", [begun.clone(), frame(TEXT, b"x")].concat()),
        ("a compressed message in a compressed one", [begun.clone(), frame(TEXT | COMPRESSED, &wire)].concat()),
        ("a compressed ping", frame(PING | COMPRESSED, b"x")),
        ("a compressed ping in a compressed message", [begun.clone(), frame(PING | COMPRESSED, b"x")].concat()),
        ("a compressed close", frame(CLOSE | COMPRESSED, b"\x03\xE8")),
        ("RSV2", frame(TEXT | 0x20, b"x")),
        ("RSV3", frame(TEXT | 0x10, b"x")),
        ("RSV2 of a compressed message", frame(TEXT | COMPRESSED | 0x20, &wire)),
        ("RSV3 of a compressed continuation", [begun.clone(), frame(0x90, &wire[2..])].concat()),
        ("a compressed opcode 3", frame(0xC3, &wire)),
        ("opcode 4 in a compressed message", [begun.clone(), frame(0x84, b"x")].concat()),
        ("an unmasked compressed message", unmasked(TEXT | COMPRESSED)),
        ("an unmasked continuation", [begun, unmasked(CONTINUATION)].concat()),
        ("an unmasked plain message", unmasked(TEXT)),
    ] {
        let bytes = [frame(TEXT | COMPRESSED, &wire), bytes].concat();
        let expected = [Out::Text(b"a rose is a rose is a rose".to_vec()), Out::Close(1002)];
        assert_eq!(read_all(&bytes), expected, "{why}");
        assert_eq!(read(&mut reader(&limits()), bytes.chunks(1)).0, expected, "{why}, byte by byte");
    }
    let compressed = frame(TEXT | COMPRESSED, &wire);
    assert_eq!(read(&mut Reader::new(&limits(), false), [&compressed[..]]).0, [Out::Close(1002)], "not negotiated");
}

/// What is no DEFLATE data, or text that is not UTF-8, is closed with 1007.
#[test]
fn data_that_is_wrong_is_closed_with_1007() {
    let wire = small(&[b'x'; 1_000]);
    for (why, bytes) in [
        ("something else", frame(TEXT | COMPRESSED, b"\xFFhello")),
        ("nothing", frame(TEXT | COMPRESSED, b"")),
        ("cut", frame(BINARY | COMPRESSED, &wire[..wire.len() - 2])),
        ("not UTF-8", frame(TEXT | COMPRESSED, &small(b"\xFF\xFE\xFF\xFE"))),
        (
            "half a character",
            frame(TEXT | COMPRESSED, &small("xxxxxxxxxxxxxxxx\u{1F642}".as_bytes().split_last().unwrap().1)),
        ),
    ] {
        let bytes = [frame(TEXT, b"before"), bytes, frame(TEXT, b"after")].concat();
        assert_eq!(read_all(&bytes), [Out::Text(b"before".to_vec()), Out::Close(1007)], "{why}");
    }
}

/// Law: a message is as large as it is uncompressed: the limit itself fits, also where compression makes it larger on the wire,
/// and one byte more does not.
#[test]
fn the_limit_is_that_of_the_uncompressed_message() {
    let mut noise = vec![0; limits().message_bytes_max + 1];
    StdRng::seed_from_u64(1).fill(&mut noise[..]);
    let (fits, too_large) = (&noise[1..], &noise[..]);
    assert!(small(fits).len() > fits.len());
    assert_eq!(read_all(&frame(BINARY | COMPRESSED, &small(fits))), [Out::Binary(fits.to_vec())]);
    assert_eq!(read_all(&frame(BINARY | COMPRESSED, &small(too_large))), [Out::Close(1009)]);
    let zeros = vec![0; limits().message_bytes_max + 1];
    assert_eq!(read_all(&frame(BINARY | COMPRESSED, &small(&zeros[1..]))), [Out::Binary(zeros[1..].to_vec())]);
    assert_eq!(read_all(&frame(BINARY | COMPRESSED, &small(&zeros))), [Out::Close(1009)]);
    // A plain one has no room for what compression may add, and one that could not be right by any means is refused by its header.
    assert_eq!(read_all(&frame(BINARY, too_large)[..20]), [Out::Close(1009)]);
    assert_eq!(read_all(&masked(BINARY | COMPRESSED, [0; 4], &vec![0; 126_000])[..20]), [Out::Close(1009)]);
    // Fragments count as those of others do.
    let pieces = [frame((BINARY | COMPRESSED) & UNFINISHED, b""), frame(0, b"").repeat(18)].concat();
    let most = [pieces.clone(), frame(CONTINUATION, &small(b"x"))].concat();
    assert_eq!(read_all(&most), [Out::Binary(b"x".to_vec())]);
    assert_eq!(read_all(&[pieces, frame(0, b""), frame(CONTINUATION, &small(b"x"))].concat()), [Out::Close(1009)]);
}

/// Law: a read full of small messages that are large uncompressed becomes messages a step at a time, and nothing is lost.
#[test]
fn a_read_full_of_bombs_becomes_messages_a_step_at_a_time() {
    let zeros = vec![0; limits().message_bytes_max];
    let bomb = frame(BINARY | COMPRESSED, &small(&zeros));
    let count = (64 << 10) / bomb.len();
    let mut reader = reader(&limits());
    let (mut bytes, mut messages, mut steps) = (bomb.repeat(count), 0, 0);
    while !bytes.is_empty() {
        let mut into = VecDeque::new();
        reader.read(&bytes, &mut into);
        let made: usize = into
            .iter()
            .map(|inbound| match inbound {
                Inbound::Message(payload) => payload.len(),
                _ => panic!("only messages"),
            })
            .sum();
        assert!(made <= STEP_BYTES + zeros.len(), "{made} bytes in one step");
        messages += into.len();
        steps += 1;
        bytes = reader.take_left().to_vec();
    }
    assert_eq!((messages, steps), (count, count));
}

/// Law: no input makes it panic or grow beyond its bounds.
#[test]
fn garbage_is_survived() {
    let (session, ..) = session();
    for seed in 0..3_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bytes = session.clone();
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(0..bytes.len());
            match random.random_range(0..3) {
                0 => bytes[at] = random.random(),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, random.random()),
            }
        }
        let mut reader = reader(&limits());
        let (out, _) = read(&mut reader, bytes.chunks(random.random_range(1..200)));
        let closes = out.iter().filter(|out| matches!(out, Out::Close(_))).count();
        assert!(closes <= 1 && (closes == 0 || matches!(out.last(), Some(Out::Close(_)))), "seed {seed}: {out:?}");
    }
}
