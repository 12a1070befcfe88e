//! `permessage-deflate` (RFC 7692) over real sockets: what is agreed on, who gets what compressed, and what no client gains by it.

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress};

use crate::raw::{BINARY, CLOSE, PING, PONG, Raw, TEXT, fixture_path, frame, handshake, header};
use crate::support::broker::{Broker, Setup};

/// In a first byte: compressed, and more fragments follow.
const COMPRESSED: u8 = 0x40;
const UNFINISHED: u8 = 0x7F;

const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

fn compressing(extra: &str) -> Broker {
    Setup::fixture(&format!("compression = {{}}\n{extra}")).start()
}

fn offer(offers: &str) -> String {
    format!("Sec-WebSocket-Extensions: {offers}\r\n")
}

/// A connection that negotiated compression.
async fn join(broker: &Broker, user: &str) -> Raw {
    let mut raw = Raw::open(broker).await;
    let head =
        upgrade(&mut raw, &fixture_path(broker, user, "a"), &offer("permessage-deflate; client_max_window_bits")).await;
    assert_eq!(agreed(&head).as_deref(), Some(AGREED));
    raw
}

async fn upgrade(raw: &mut Raw, path: &str, extra: &str) -> String {
    raw.write(handshake(path, extra).as_bytes()).await;
    raw.head().await
}

/// The extensions an answer has.
fn agreed(head: &str) -> Option<String> {
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-extensions")).map(|(_, value)| value.to_owned())
}

fn deflate(payload: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(payload.len() + 1_000);
    let mut machine = Compress::new(flate2::Compression::default(), false);
    machine.compress_vec(payload, &mut output, FlushCompress::Sync).expect("room");
    output.strip_suffix(&[0, 0, 0xFF, 0xFF]).expect("a flush").to_vec()
}

fn inflate(payload: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(1 << 20);
    let input = [payload, &[0, 0, 0xFF, 0xFF]].concat();
    Decompress::new(false).decompress_vec(&input, &mut output, FlushDecompress::Sync).expect("DEFLATE data");
    output
}

/// A compressed text message in one frame.
fn squeezed(text: &str) -> Vec<u8> {
    frame(TEXT | COMPRESSED, &deflate(text.as_bytes()))
}

/// The next message, whether it was compressed, and how large it was on the wire.
async fn message(raw: &mut Raw) -> (String, bool, usize) {
    let (first, payload) = raw.frame().await.expect("a message");
    let compressed = first & COMPRESSED != 0;
    assert_eq!(first & !COMPRESSED, TEXT, "{first:x}");
    let plain = if compressed { inflate(&payload) } else { payload.clone() };
    (String::from_utf8(plain).expect("UTF-8"), compressed, payload.len())
}

/// RFC 7692 §7.1: the first offer that can be honoured is agreed on, and none where the mount does not compress.
#[tokio::test]
async fn an_offer_is_agreed_on_declined_or_malformed() {
    let (broker, plain) = (compressing(""), Setup::fixture("").start());
    let answer = async |broker: &Broker, offers: &str| {
        let mut raw = Raw::open(broker).await;
        agreed(&upgrade(&mut raw, &fixture_path(broker, "raw", "a"), &offer(offers)).await)
    };
    let window = format!("{AGREED}; server_max_window_bits=15");
    for (offers, expected) in [
        ("permessage-deflate", Some(AGREED)),
        ("permessage-deflate; client_max_window_bits=\"10\"", Some(AGREED)),
        ("permessage-deflate; server_max_window_bits=10, permessage-deflate", Some(AGREED)),
        ("permessage-deflate; server_max_window_bits=15", Some(&*window)),
        ("permessage-deflate; server_max_window_bits=10", None),
        ("permessage-deflate; unknown", None),
        ("permessage-bzip2", None),
    ] {
        assert_eq!(answer(&broker, offers).await.as_deref(), expected, "{offers}");
        assert_eq!(answer(&plain, offers).await, None, "{offers}");
    }
    let mut malformed = Raw::open(&broker).await;
    let head = upgrade(&mut malformed, &fixture_path(&broker, "raw", "a"), &offer("permessage-deflate; =15")).await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    let mut none = Raw::open(&broker).await;
    assert_eq!(agreed(&upgrade(&mut none, &fixture_path(&broker, "raw", "a"), "").await), None);
}

/// Members with and without compression get the same messages; only the large ones are compressed, and only for those who
/// negotiated it.
#[tokio::test]
async fn members_get_what_they_negotiated() {
    let broker = compressing("");
    let mut squeezing = join(&broker, "one").await;
    let mut other = join(&broker, "two").await;
    let mut plain = Raw::join(&broker, "a").await;
    for raw in [&mut squeezing, &mut other, &mut plain] {
        raw.say("echo joined").await;
        assert_eq!(raw.text().await, "joined");
    }

    squeezing.write(&squeezed("big 20000")).await;
    squeezing.write(&squeezed("big 10")).await;

    let expected = [("x".repeat(20_000), true), ("x".repeat(10), false)];
    for raw in [&mut squeezing, &mut other] {
        for (text, compressed) in &expected {
            let (got, was_compressed, size) = message(raw).await;
            assert_eq!((&got, was_compressed), (text, *compressed));
            assert!(size < 100, "{size} bytes");
        }
    }
    assert_eq!([plain.text().await, plain.text().await], expected.map(|(text, _)| text));
    // Answers to one member, and refusals, are compressed as well.
    let long = "y".repeat(1_000);
    other.write(&squeezed(&format!("echo {long}"))).await;
    let (got, compressed, _) = message(&mut other).await;
    assert_eq!((got, compressed), (long, true));
    let plain_size: f64 = broker.metric("hotbay_bytes_in_total").await;
    assert!(plain_size < 500.0, "what was read is counted as it came: {plain_size}");
}

/// RFC 7692 §6.1, §7.2.2: messages in fragments with pings in between, uncompressed ones, and one that comes with the handshake.
#[tokio::test]
async fn a_client_may_compress_and_cut_its_messages_as_it_likes() {
    let broker = compressing("");
    let wire = deflate(format!("echo {}", "lorem ipsum ".repeat(10)).as_bytes());
    let mut raw = Raw::open(&broker).await;
    let early = [
        handshake(&fixture_path(&broker, "raw", "a"), &offer("permessage-deflate")).into_bytes(),
        squeezed("echo early"),
    ];
    raw.write(&early.concat()).await;
    assert_eq!(agreed(&raw.head().await).as_deref(), Some(AGREED));
    assert_eq!(message(&mut raw).await.0, "early");

    let pieces = [
        frame((TEXT | COMPRESSED) & UNFINISHED, &wire[..1]),
        frame(PING, b"between"),
        frame(0x00, &wire[1..9]),
        frame(0x80, &wire[9..]),
    ];
    for byte in pieces.concat() {
        raw.write(&[byte]).await;
    }
    raw.say("echo plain").await;
    raw.write(&[frame(0x01, b"echo pla"), frame(0x80, b"in in pieces")].concat()).await;

    assert_eq!(raw.frame().await, Some((PONG, b"between".to_vec())));
    assert_eq!(message(&mut raw).await.0, "lorem ipsum ".repeat(10));
    assert_eq!(message(&mut raw).await.0, "plain");
    assert_eq!(message(&mut raw).await.0, "plain in pieces");
}

/// What is broken or too large is closed with the right code; the limits hold for what a message is, not for what it looks like.
#[tokio::test]
async fn limits_hold_for_compressed_messages() {
    let broker = compressing("limits = { message_bytes_max = 1000, message_fragments_max = 5, message_ms_max = 500 }");
    let wire = deflate(b"a rose is a rose is a rose");
    for (why, bytes, code) in [
        ("one byte too many", squeezed(&"x".repeat(1_001)), 1009),
        ("a bomb", frame(BINARY | COMPRESSED, &deflate(&vec![0; 900_000])), 1009),
        ("a header that promises too much", header(BINARY | COMPRESSED, 5_000), 1009),
        ("too many fragments", [frame(0x41, b""), frame(0, b"").repeat(5)].concat(), 1009),
        ("no DEFLATE data", frame(TEXT | COMPRESSED, b"\xFF\xFF"), 1007),
        ("half of it", frame(TEXT | COMPRESSED, &wire[..9]), 1007),
        ("text that is not UTF-8", frame(TEXT | COMPRESSED, &deflate(b"\xFF\xFF")), 1007),
        ("a compressed continuation", [frame(0x41, &wire[..9]), frame(0xC0, &wire[9..])].concat(), 1002),
        ("a compressed ping", frame(PING | COMPRESSED, b""), 1002),
        ("another reserved bit", frame(TEXT | COMPRESSED | 0x20, &wire), 1002),
        ("a message that trickles", [frame(0x41, &wire[..9]), frame(PING, b"")].concat(), 1008),
    ] {
        let mut raw = join(&broker, "raw").await;
        raw.write(&bytes).await;
        assert_eq!(raw.close_code().await, Some(code), "{why}");
    }
    let mut raw = Raw::join(&broker, "a").await;
    raw.write(&frame(TEXT | COMPRESSED, &wire)).await;
    assert_eq!(raw.close_code().await, Some(1002), "not negotiated");

    let mut raw = join(&broker, "raw").await;
    raw.write(&squeezed(&format!("echo {}", "x".repeat(995)))).await;
    assert_eq!(message(&mut raw).await.0.len(), 995, "the limit itself fits");
    raw.write(&frame(CLOSE, b"\x03\xE8")).await;
    assert_eq!(raw.close_code().await, Some(1000));
}

/// Law: what a read holds compressed takes no more memory than what a client could send without: it becomes messages as they are
/// taken, and all of them are.
#[tokio::test]
async fn a_flood_of_bombs_takes_little_memory() {
    let broker = compressing("limits.outbox_bytes_max = 4194304");
    let mut raw = join(&broker, "raw").await;
    raw.write(&squeezed("big 65536")).await;
    assert_eq!(message(&mut raw).await.0.len(), 65_536);
    let before = peak_memory(&broker);

    let bomb = frame(TEXT | COMPRESSED, &deflate(format!("relayed {}", "x".repeat(65_500)).as_bytes()));
    let count = (64 << 10) / bomb.len() * 4;
    raw.write(&bomb.repeat(count)).await;
    raw.write(&squeezed("echo done")).await;
    let mut answers = 0;
    while message(&mut raw).await.0 != "done" {
        answers += 1;
    }

    assert_eq!(answers, count);
    let grown_mib = (peak_memory(&broker) - before) >> 20;
    let sent_mib = (count * 65_500) >> 20;
    assert!(sent_mib > 100 && grown_mib < 60, "{grown_mib} MiB more for {sent_mib} MiB");
}

/// The most memory a broker had so far, in bytes.
fn peak_memory(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).expect("a process");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
}
