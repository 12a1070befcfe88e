//! Who gets what, read from real sockets.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::protocol::burst::BurstBuilder;
use crate::protocol::deflate::{Compression, inflate};
use crate::protocol::event::MemberId;
use crate::protocol::frame::{Audience, Delivery, Payload, RSV1, frame_len, header_len};
use crate::protocol::identity::Identity;

struct Room {
    listener: TcpListener,
    roster: Roster,
    clients: Vec<TcpStream>,
}

impl Room {
    /// A room of members 0, 1, 2 …; member `n` belongs to user `u{n % 2}`, and those with odd numbers negotiated compression.
    async fn of(count: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut room = Self { listener, roster: Roster::default(), clients: Vec::new() };
        for number in 0..count {
            let recipient = room.connect(number).await;
            assert!(room.roster.insert(recipient));
        }
        room
    }

    /// A connection that is no member yet.
    async fn connect(&mut self, number: u64) -> Recipient {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = self.listener.accept().await.unwrap();
        self.clients.push(client);
        let identity = Identity::new("default", &format!("u{}", number % 2), "", "{}", None);
        let compression = (number % 2 == 1).then(Compression::default);
        let outbox = Outbox::new(server, 1 << 20).compressing(compression);
        Recipient { member: MemberId(number), identity, outbox: Arc::new(outbox) }
    }

    /// What every client got, once all outboxes are gone: payloads of one letter.
    async fn received(self, plan: Plan) -> Vec<String> {
        let letters = |bytes: Vec<u8>| bytes.chunks(3).map(|frame| char::from(frame[2])).collect();
        self.received_bytes(plan).await.into_iter().map(letters).collect()
    }

    async fn received_bytes(mut self, plan: Plan) -> Vec<Vec<u8>> {
        plan.send().await;
        self.roster = Roster::default();
        let mut all = Vec::new();
        for mut client in self.clients {
            let mut bytes = Vec::new();
            client.read_to_end(&mut bytes).await.unwrap();
            all.push(bytes);
        }
        all
    }
}

fn burst(frames: &[(u32, &'static str, Audience)]) -> Burst {
    let mut builder = BurstBuilder::default();
    for (event, text, audience) in frames {
        let payload = Payload::Text(Bytes::from_static(text.as_bytes()));
        builder.push(*event, &payload, audience.clone(), Delivery::HIGH);
    }
    builder.finish()
}

fn only(members: &[u64]) -> Audience {
    Audience::Only(members.iter().copied().map(MemberId).collect())
}

#[tokio::test]
async fn each_audience_gets_its_frames_in_the_order_of_the_effects() {
    let room = Room::of(4).await;
    let burst = burst(&[
        (0, "a", Audience::All),
        (0, "b", Audience::Except(MemberId(1))),
        (0, "c", only(&[1, 3, 99])),
        (0, "d", Audience::User("u0".into())),
        (0, "e", Audience::All),
    ]);

    let plan = plan(burst, &room.roster, &[]);

    assert_eq!(room.received(plan).await, ["abde", "ace", "abde", "abce"]);
}

/// The payloads a client got, and how many of them were compressed.
fn payloads(mut bytes: &[u8]) -> (Vec<String>, usize) {
    let (mut texts, mut compressed) = (Vec::new(), 0);
    while !bytes.is_empty() {
        let (frame, rest) = bytes.split_at(frame_len(bytes));
        let mut payload = frame[header_len(frame)..].to_vec();
        if frame[0] & RSV1 != 0 {
            let mut plain = Vec::new();
            inflate(&mut payload, 1 << 20, &mut plain).unwrap();
            payload = plain;
            compressed += 1;
        }
        texts.push(String::from_utf8(payload).unwrap());
        bytes = rest;
    }
    (texts, compressed)
}

/// Law: whoever negotiated compression gets the same frames in the same order as all others, the large ones compressed.
#[tokio::test]
async fn members_with_and_without_compression_get_the_same_frames() {
    let room = Room::of(6).await;
    let (large, small) = (|letter: &str| letter.repeat(1_000), |letter: &str| letter.to_owned());
    let mut builder = BurstBuilder::default();
    for (text, audience) in [
        (large("a"), Audience::All),
        (small("b"), Audience::Except(MemberId(1))),
        (large("c"), only(&[1, 2])),
        (large("d"), only(&[2])),
        (small("e"), only(&[3])),
        (large("f"), Audience::User("u1".into())),
        (large("g"), Audience::Except(MemberId(3))),
    ] {
        builder.push(0, &Payload::text(text), audience, Delivery::HIGH);
    }

    let plan = plan(builder.finish(), &room.roster, &[]);
    let received = room.received_bytes(plan).await;

    let expected = ["abg", "acfg", "abcdg", "abef", "abg", "abfg"];
    for ((bytes, letters), member) in received.iter().zip(expected).zip(0..) {
        let (texts, compressed) = payloads(bytes);
        let first: String = texts.iter().filter_map(|text| text.chars().next()).collect();
        assert_eq!(first, letters, "member {member}");
        let larges = texts.iter().filter(|text| text.len() == 1_000).count();
        assert_eq!(compressed, if member % 2 == 1 { larges } else { 0 }, "member {member}");
    }
}

#[tokio::test]
async fn who_joins_or_leaves_in_the_batch_gets_what_is_sent_while_it_is_a_member() {
    let mut room = Room::of(2).await;
    let joiner = room.connect(7).await;
    room.roster.insert(joiner.clone());
    let leaver = room.roster.remove(MemberId(0)).unwrap();
    let back = room.roster.find(MemberId(1)).unwrap().clone();
    let changes = [
        Change { recipient: joiner, from: Some(1), until: None },
        Change { recipient: leaver, from: None, until: Some(2) },
        Change { recipient: back, from: Some(2), until: Some(1) }, // left at 1, joined again at 2
    ];
    let burst = burst(&[
        (0, "a", Audience::All),
        (1, "b", Audience::All),
        (1, "c", only(&[7])),
        (2, "d", only(&[0])),
        (2, "e", Audience::All),
    ]);

    let plan = plan(burst, &room.roster, &changes);
    drop(changes);

    assert_eq!(room.received(plan).await, ["abd", "ae", "bce"]);
}

#[tokio::test]
async fn a_burst_goes_to_the_members_it_was_planned_for() {
    let mut room = Room::of(1).await;
    let burst = burst(&[(0, "a", Audience::All)]);

    let plan = plan(burst, &room.roster, &[]);
    let late = room.connect(1).await;
    room.roster.insert(late);

    assert_eq!(room.received(plan).await, ["a", ""]);
}

#[tokio::test]
async fn all_chunks_of_a_large_channel_are_served_and_nobody_twice() {
    let count = CHUNK_MEMBERS as u64 + 3;
    let room = Room::of(count).await;
    let last = MemberId(count - 1);
    let burst = burst(&[(0, "a", Audience::All), (0, "b", Audience::Except(last)), (0, "c", only(&[0, last.0]))]);

    let plan = plan(burst, &room.roster, &[]);

    let received = room.received(plan).await;
    assert_eq!(received[0], "abc");
    assert_eq!(received[count as usize - 1], "ac");
    assert!(received[1..count as usize - 1].iter().all(|text| text == "ab"));
}

#[tokio::test]
async fn removing_members_keeps_every_other_one_findable() {
    let mut room = Room::of(5).await;

    for gone in [0, 4, 2] {
        assert_eq!(room.roster.remove(MemberId(gone)).map(|recipient| recipient.member), Some(MemberId(gone)));
        assert!(room.roster.remove(MemberId(gone)).is_none());
        let found: Vec<_> = room.roster.iter().map(|recipient| recipient.member).collect();
        assert!(found.iter().all(|member| room.roster.find(*member).is_some_and(|found| found.member == *member)));
        assert_eq!(found.len(), room.roster.len());
    }
    assert_eq!(room.roster.len(), 2);
}
