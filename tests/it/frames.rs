//! Frames on the wire (RFC 6455): what breaks the protocol ends the connection with the right code, and what is merely odd
//! is served.

use crate::raw::{BINARY, CLOSE, PING, PONG, Raw, TEXT, frame, header};
use crate::support::broker::{Broker, Setup};

/// Sends bytes on a fresh connection; the code it is closed with.
async fn closed_with(broker: &Broker, bytes: &[u8]) -> Option<u16> {
    let mut raw = Raw::join(broker, "a").await;
    raw.write(bytes).await;
    raw.close_code().await
}

/// §5.1, §5.2, §5.4, §5.5: what no client may send is answered with 1002.
#[tokio::test]
async fn a_broken_protocol_is_closed_with_1002() {
    let broker = Setup::fixture("").start();
    let unmasked = [TEXT, 2, b'h', b'i'];
    for (why, bytes) in [
        ("an unmasked frame", unmasked.to_vec()),
        ("opcode 3", frame(0x83, b"x")),
        ("opcode 7", frame(0x87, b"x")),
        ("opcode 11", frame(0x8B, b"x")),
        ("opcode 15", frame(0x8F, b"x")),
        ("a reserved bit", frame(0xC1, b"x")),
        ("another reserved bit", frame(0x91, b"x")),
        ("a long ping", frame(PING, &[b'x'; 126])),
        ("a ping in pieces", frame(0x09, b"x")),
        ("a continuation of nothing", frame(0x80, b"x")),
        ("a message within a message", [frame(0x01, b"x"), frame(TEXT, b"y")].concat()),
        ("half a close code", frame(CLOSE, &[3])),
        ("a close code nobody sends", frame(CLOSE, &1005_u16.to_be_bytes())),
        ("a close code below all", frame(CLOSE, &999_u16.to_be_bytes())),
    ] {
        assert_eq!(closed_with(&broker, &bytes).await, Some(1002), "{why}");
    }
    let mut other = Raw::join(&broker, "a").await;
    other.say("echo still here").await;
    assert_eq!(other.text().await, "still here");
}

/// §8.1: text that is not UTF-8 is answered with 1007, in one frame or in pieces, and so is the reason of a close.
#[tokio::test]
async fn text_that_is_not_utf8_is_closed_with_1007() {
    let broker = Setup::fixture("").start();
    for (why, bytes) in [
        ("a lone continuation byte", frame(TEXT, b"\x80")),
        ("a cut character", frame(TEXT, b"a\xF0\x9F\x99")),
        ("a surrogate", frame(TEXT, b"\xED\xA0\x80")),
        ("an overlong slash", frame(TEXT, b"\xC0\xAF")),
        ("a cut character at the end of the pieces", [frame(0x01, b"\xF0"), frame(0x80, b"\x9F")].concat()),
        ("a close reason", frame(CLOSE, b"\x03\xE8\xFF")),
    ] {
        assert_eq!(closed_with(&broker, &bytes).await, Some(1007), "{why}");
    }
}

/// A character cut by frames is whole again; binary messages may hold anything; empty messages are messages.
#[tokio::test]
async fn odd_but_correct_messages_are_served() {
    let broker = Setup::fixture("").start();
    let mut raw = Raw::join(&broker, "a").await;

    raw.write(&[frame(0x01, b"echo \xF0\x9F"), frame(PING, b"between"), frame(0x80, b"\x99\x82")].concat()).await;
    let between = raw.frame().await;
    let whole = raw.text().await;
    raw.write(&frame(BINARY, b"\xFF\x00\x80")).await;
    let binary = raw.frame().await;
    raw.write(&[frame(TEXT, b""), frame(BINARY, b"")].concat()).await;
    let empty = [raw.frame().await, raw.frame().await];
    // §5.2: a length may be written longer than it need be, and a mask is undone.
    raw.write(&[TEXT, 0xFE, 0, 6, 1, 2, 3, 4, b'e' ^ 1, b'c' ^ 2, b'h' ^ 3, b'o' ^ 4, b' ' ^ 1, b'x' ^ 2]).await;
    let masked = raw.text().await;

    assert_eq!(between, Some((PONG, b"between".to_vec())));
    assert_eq!(whole, "🙂");
    assert_eq!(binary, Some((BINARY, b"\xFF\x00\x80".to_vec())));
    assert_eq!(empty, [Some((TEXT, Vec::new())), Some((BINARY, Vec::new()))]);
    assert_eq!(masked, "x");
}

/// A message over the limit is refused by its header: 1009 comes before its body was sent.
#[tokio::test]
async fn a_message_that_says_it_is_too_large_is_closed_before_its_body() {
    let broker = Setup::fixture("limits.message_bytes_max = 1000").start();
    for length in [1_001, 70_000, 1 << 31, 1 << 62] {
        assert_eq!(closed_with(&broker, &header(BINARY, length)).await, Some(1009), "{length} bytes");
    }
    let pieces = [frame(0x02, &[0; 600]), frame(0x80, &[0; 401])].concat();
    assert_eq!(closed_with(&broker, &pieces).await, Some(1009), "in pieces");
    let impossible = [&[BINARY, 0xFF][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
    let code = closed_with(&broker, &impossible).await;
    assert!(matches!(code, Some(1002 | 1009)), "a length with the highest bit set: {code:?}");

    let mut raw = Raw::join(&broker, "a").await;
    raw.write(&frame(BINARY, &[7; 1_000])).await;
    assert_eq!(raw.frame().await, Some((BINARY, vec![7; 1_000])), "the limit itself fits");
}

/// The same of a message in pieces: the header of the fragment that makes it too large is enough, wherever pings come between;
/// and what was whole before it, in the very same segment, counts.
#[tokio::test]
async fn a_fragment_that_makes_a_message_too_large_is_closed_before_its_body() {
    let broker = Setup::fixture("limits.message_bytes_max = 1000").start();
    let pieces = [frame(0x02, &[0; 600]), frame(0x00, &[0; 300]), frame(PING, b"between")].concat();
    for (why, last) in [("the last fragment", header(0x80, 101)), ("one of many", header(0x00, 1 << 40))] {
        assert_eq!(closed_with(&broker, &[pieces.clone(), last].concat()).await, Some(1009), "{why}");
    }
    let whole = [frame(TEXT, b"put one 1"), frame(TEXT, b"put two 2")].concat();

    assert_eq!(closed_with(&broker, &[whole, pieces.clone(), header(0x80, 101)].concat()).await, Some(1009));

    let mut raw = Raw::join(&broker, "a").await;
    for (command, answer) in [("get one", "value 1"), ("get two", "value 2")] {
        raw.say(command).await;
        assert_eq!(raw.text().await, answer);
    }
    raw.write(&[pieces, frame(0x80, &[0; 100])].concat()).await;
    assert_eq!(raw.frame().await, Some((PONG, b"between".to_vec())));
    assert_eq!(raw.frame().await, Some((BINARY, vec![0; 1_000])), "the limit itself fits");
}

/// A message of more fragments than allowed ends the connection, however small they are; the limit itself fits.
#[tokio::test]
async fn a_flood_of_fragments_is_closed() {
    let broker = Setup::fixture("limits.message_fragments_max = 10").start();
    let begin = frame(0x02, b"");
    let flood = [begin.clone(), frame(0x00, b"").repeat(100)].concat();
    let most = [begin, frame(0x00, b"x").repeat(8), frame(0x80, b"x")].concat();

    let code = closed_with(&broker, &flood).await;
    let mut raw = Raw::join(&broker, "b").await;
    raw.write(&most).await;

    assert!(matches!(code, Some(1008 | 1009)), "{code:?}");
    assert_eq!(raw.frame().await, Some((BINARY, b"x".repeat(9))));
}

/// A message that trickles in is closed with 1008 when its time is over, however busy the client is; one that arrives a byte
/// at a time within its time is served.
#[tokio::test]
async fn a_message_that_takes_too_long_is_closed() {
    let broker = Setup::fixture("limits.message_ms_max = 500").start();
    let mut slow = Raw::join(&broker, "a").await;
    slow.write(&header(BINARY, 60_000)).await;
    while slow.poll().await == Some(0) && slow.try_write(b"x").await {}
    let mut in_pieces = Raw::join(&broker, "a").await;
    in_pieces.write(&frame(0x02, b"")).await;
    let code = loop {
        // Pings between the pieces are answered, and buy no time.
        in_pieces.try_write(&frame(PING, b"")).await;
        match in_pieces.frame().await {
            Some((PONG, _)) => {}
            Some((CLOSE, payload)) => break payload.first_chunk().map(|code| u16::from_be_bytes(*code)),
            other => panic!("neither pong nor close: {other:?}"),
        }
    };
    let mut half_a_header = Raw::join(&broker, "a").await;
    half_a_header.write(&[BINARY]).await;

    assert_eq!((slow.close_code().await, code), (Some(1008), Some(1008)));
    assert_eq!(half_a_header.close_code().await, Some(1008));
    let broker = Setup::fixture("").start();
    let mut patient = Raw::join(&broker, "a").await;
    for byte in frame(TEXT, b"echo byte by byte") {
        patient.write(&[byte]).await;
    }
    assert_eq!(patient.text().await, "byte by byte");
}

/// §5.5.2, §5.5.3: a ping is answered with its payload; a pong nobody asked for is ignored.
#[tokio::test]
async fn pings_are_answered_with_their_payload() {
    let broker = Setup::fixture("").start();
    let mut raw = Raw::join(&broker, "a").await;
    let long = [b'p'; 125];

    raw.write(&[frame(PONG, b"unasked"), frame(PING, b""), frame(PING, &long)].concat()).await;

    assert_eq!(raw.frame().await, Some((PONG, Vec::new())));
    assert_eq!(raw.frame().await, Some((PONG, long.to_vec())));
}

/// §5.5.1, §7.4: a close is answered with its code, and the broker then ends the connection; nothing sent behind it counts.
#[tokio::test]
async fn a_close_is_answered_and_the_connection_ends() {
    let broker = Setup::fixture("").start();
    for (payload, code) in [(&b"\x03\xE8bye"[..], 1000), (b"\x0F\xA0", 4000), (b"\x03\xE9", 1001)] {
        let mut raw = Raw::join(&broker, "a").await;
        raw.write(&[frame(CLOSE, payload), frame(TEXT, b"put after close")].concat()).await;

        assert_eq!(raw.close_code().await, Some(code));
        assert_eq!(raw.frame().await, None, "the end");
    }
    let mut without_code = Raw::join(&broker, "a").await;
    without_code.write(&frame(CLOSE, b"")).await;
    assert!(matches!(without_code.close_code().await, Some(1000 | 1005)));
    let mut raw = Raw::join(&broker, "a").await;
    raw.say("get after").await;
    assert_eq!(raw.text().await, "none");
}
