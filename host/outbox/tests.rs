//! The outbox against real sockets: a reader that stalls, and then reads everything it is still owed.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::protocol::burst::BurstBuilder;
use crate::protocol::deflate::inflate;
use crate::protocol::event::MemberId;
use crate::protocol::frame::{Audience, Payload, Priority, RSV1, encode_payload};

/// More than the kernel's buffers hold on loopback.
const FILL_BYTES: usize = 16 << 20;

async fn pair(bytes_max: usize) -> (Arc<Outbox>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (Arc::new(Outbox::new(server, bytes_max)), client)
}

fn frame(text: &str) -> Bytes {
    encode_payload(&Payload::text(text))
}

fn delivery(priority: Priority, conflate: Option<&str>) -> Delivery {
    Delivery { priority, conflate: conflate.map(Into::into) }
}

/// Sends frames of `size` bytes until some wait.
fn fill(outbox: &Outbox, size: usize) -> usize {
    let mut sent = 0;
    while outbox.bytes_waiting() == 0 {
        outbox.send(frame(&format!("{sent:0size$}")), Delivery::HIGH);
        sent += 1;
        assert!(sent * size < FILL_BYTES, "the kernel takes everything");
    }
    sent
}

/// Reads to the end while the outbox writes what waits, and splits what came into frames: opcode and payload.
async fn read_all(outbox: Arc<Outbox>, mut client: TcpStream) -> Vec<(u8, Bytes)> {
    let writer = crate::telemetry::spawn("test", async move {
        std::future::poll_fn(|cx| match outbox.poll_progress(cx) {
            Progress::Done => Poll::Ready(()),
            _ => Poll::Pending,
        })
        .await;
        socket2::SockRef::from(outbox.stream()).shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut bytes = BytesMut::new();
    while client.read_buf(&mut bytes).await.unwrap() > 0 {}
    writer.await.unwrap();
    let mut bytes = bytes.freeze();
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let first = bytes.get_u8();
        let len = match bytes.get_u8() {
            126 => usize::from(bytes.get_u16()),
            127 => bytes.get_u64() as usize,
            len => usize::from(len),
        };
        let mut payload = bytes.split_to(len);
        if first & RSV1 != 0 {
            let mut plain = Vec::new();
            inflate(&mut payload.to_vec(), FILL_BYTES, &mut plain).unwrap();
            payload = plain.into();
        }
        frames.push((first & 0x0F, payload));
    }
    frames
}

fn texts(frames: &[(u8, Bytes)]) -> Vec<&str> {
    frames.iter().filter(|(opcode, _)| *opcode == 1).map(|(_, text)| std::str::from_utf8(text).unwrap()).collect()
}

#[tokio::test]
async fn a_reader_that_stalls_and_comes_back_gets_everything_in_order() {
    let (outbox, client) = pair(FILL_BYTES).await;
    let size = 10_000;
    let sent = fill(&outbox, size);
    let mut builder = BurstBuilder::default();
    for text in ["one", "two", "three"] {
        builder.push(0, &Payload::text(text), Audience::All, Delivery::HIGH);
    }
    builder.push(0, &Payload::text("mine"), Audience::Only([MemberId(1)].into()), Delivery::HIGH);
    let burst = builder.finish();
    outbox.send_slices(&burst, &[Slice::Shared(0..1), Slice::Private(0..1), Slice::Shared(2..3)]);
    outbox.send_frames(&burst.shared);
    outbox.close_with(1000, "bye");

    let frames = read_all(outbox, client).await;

    let texts = texts(&frames);
    let expected: Vec<String> = (0..sent).map(|number| format!("{number:0size$}")).collect();
    assert_eq!(texts[..sent], expected);
    assert_eq!(texts[sent..], ["one", "mine", "three", "one", "two", "three"]);
    assert_eq!(frames.last().map(|(opcode, body)| (*opcode, &body[..])), Some((8, &b"\x03\xE8bye"[..])));
}

#[tokio::test]
async fn a_newer_frame_with_the_same_key_replaces_the_one_that_waits() {
    let (outbox, client) = pair(FILL_BYTES).await;
    let sent = fill(&outbox, 10_000);
    for number in 0..5 {
        outbox.send(frame(&format!("a{number}")), delivery(Priority::Normal, Some("a")));
        outbox.send(frame(&format!("b{number}")), delivery(Priority::Normal, Some("b")));
    }
    outbox.close_with(1000, "");

    let frames = read_all(outbox, client).await;

    assert_eq!(texts(&frames)[sent..], ["a4", "b4"]);
}

#[tokio::test]
async fn low_priority_is_shed_first_then_normal_and_it_is_counted() {
    let (outbox, client) = pair(FILL_BYTES).await;
    let sent = fill(&outbox, 10_000);
    let room = outbox.bytes_waiting() + 3 * (102 + queue::ENTRY_BYTES);
    let outbox = Arc::new(Outbox { bytes_max: room, ..Arc::into_inner(outbox).unwrap() });
    let text = |name: &str| format!("{name:_<100}");
    for (name, priority) in [
        ("low1", Priority::Low),
        ("normal1", Priority::Normal),
        ("low2", Priority::Low),
        ("high1", Priority::High), // low1 goes
        ("high2", Priority::High), // low2 goes
        ("high3", Priority::High), // normal1 goes
    ] {
        outbox.send(frame(&text(name)), delivery(priority, None));
    }
    assert_eq!(outbox.take_shed(), 0, "not told while frames wait");
    outbox.close_with(1000, "");
    let shed = Arc::clone(&outbox);

    let frames = read_all(outbox, client).await;

    assert_eq!(texts(&frames)[sent..], [text("high1"), text("high2"), text("high3")]);
    assert_eq!(shed.take_shed(), 3);
}

/// Law: what waits for a client that negotiated compression waits compressed, is counted so, and is conflated and shed by the
/// same rules.
#[tokio::test]
async fn compressed_frames_wait_under_the_same_rules() {
    let (outbox, client) = pair(FILL_BYTES).await;
    let sent = fill(&outbox, 10_000);
    let room = outbox.bytes_waiting() + 5_000;
    let outbox = Outbox { bytes_max: room, ..Arc::into_inner(outbox).unwrap() };
    let outbox = Arc::new(outbox.compressing(Some(Compression::default())));
    let text = |name: &str| format!("{name}{}", "_".repeat(100_000));
    let mut builder = BurstBuilder::default();
    let low = delivery(Priority::Low, None);
    for (name, audience) in
        [("one", Audience::All), ("mine", Audience::Only([MemberId(1)].into())), ("two", Audience::All)]
    {
        builder.push(0, &Payload::text(text(name)), audience, low.clone());
    }
    let burst = builder.finish();
    outbox.send_slices(&burst, &[Slice::Shared(0..1), Slice::Private(0..1), Slice::Shared(1..2)]);
    outbox.send_frames(&burst.shared);
    for number in 0..5 {
        outbox.send(frame(&text(&format!("a{number}"))), delivery(Priority::Normal, Some("a")));
    }
    assert!(outbox.bytes_waiting() < room, "each of them takes some hundred bytes");
    let noise: Bytes = std::iter::repeat_with(rand::random::<u8>).take(4_200).collect();
    outbox.send(encode_payload(&Payload::Binary(noise.clone())), Delivery::HIGH);
    outbox.close_with(1000, "");

    let frames = read_all(outbox, client).await;

    let waited: Vec<&str> = texts(&frames).split_off(sent);
    let expected = [text("two"), text("a4")];
    assert!(waited.ends_with(&[&*expected[0], &*expected[1]]) && waited.len() < 6, "the oldest low ones were shed");
    assert_eq!(frames[frames.len() - 2], (2, noise));
}

#[tokio::test]
async fn a_reader_over_the_bound_with_nothing_to_shed_is_closed_and_gets_no_broken_frame() {
    let (outbox, client) = pair(30_000).await;
    let sent = fill(&outbox, 10_000);
    for _ in 0..3 {
        outbox.send(frame(&"x".repeat(10_000)), Delivery::HIGH);
    }
    assert_eq!(outbox.closed_with(), Some(4408));
    outbox.send(frame("too late"), Delivery::HIGH);

    let frames = read_all(outbox, client).await;

    let texts = texts(&frames);
    assert!(texts.len() <= sent && texts.iter().all(|text| text.len() == 10_000), "only whole frames");
    let (opcode, body) = frames.last().unwrap();
    assert_eq!((*opcode, &body[..2]), (8, &4408_u16.to_be_bytes()[..]));
}
