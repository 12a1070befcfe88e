//! `kill -9` under load: no acknowledged message is lost, none is there twice, ids have no gaps, and whoever resumes gets the
//! complete history. The clients are the community chat's: they number their messages, take their own echo for the
//! acknowledgement, and send again, with the same `clientId`, what was not acknowledged.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Error;

use crate::history::{Message, Sent, check, check_subscriber};
use crate::support::broker::{Broker, Setup, token};
use crate::support::client::Client;
use crate::support::seed;

const ROUNDS: u64 = 8;
const ROOMS: usize = 4;
const SENDERS: usize = 3;
const SUBSCRIBERS: usize = 2;
/// Messages of one sender that wait for their acknowledgement.
const IN_FLIGHT: usize = 8;

/// When the broker is killed.
#[derive(Debug)]
enum Moment {
    /// After so many acknowledgements in this round.
    Acks(u64),
    /// After so many milliseconds, counted from before the clients reconnect.
    Ms(u64),
}

impl Moment {
    fn draw(rng: &mut StdRng) -> Self {
        if rng.random_bool(0.6) { Self::Acks(rng.random_range(1..1_500)) } else { Self::Ms(rng.random_range(0..400)) }
    }
}

async fn connect(address: &str, user: &str) -> Option<Client> {
    let token = token(user, json!({}), 3_600);
    match Client::try_connect(&format!("ws://{address}/api/community/ws?token={token}"), &[]).await {
        Ok(client) => Some(client),
        Err(error) => {
            assert!(!matches!(*error, Error::Http(_)), "{user} was refused: {error}");
            None
        }
    }
}

/// The next message as JSON, or nothing at the end of the connection.
async fn next(client: &mut Client) -> Option<Value> {
    let message = match client.next_or_close().await {
        Ok(message) => message,
        // A killed process says nothing; whoever is closed with a code was closed by a broker that lives.
        Err(close) => {
            assert!(close.is_none(), "closed by the broker: {close:?}");
            return None;
        }
    };
    let message: Value = serde_json::from_str(message.to_text().expect("text")).expect("JSON");
    assert_ne!(message["type"], "ERROR", "{message}");
    Some(message)
}

fn read(payload: &Value) -> Message {
    let text = |name: &str| payload[name].as_str().unwrap_or_else(|| panic!("no {name}: {payload}")).to_owned();
    let id = text("id").parse().expect("a number");
    Message { id, user: text("userId"), client_id: text("clientId"), content: text("content") }
}

struct Sender {
    room: String,
    rng: StdRng,
    record: Sent,
    /// Oldest first.
    unacked: Vec<String>,
}

impl Sender {
    fn new(room: &str, number: usize, seed: u64) -> Self {
        let record = Sent { user: format!("{}-sender-{number}", room.replace(':', "-")), ..Sent::default() };
        Self { room: room.to_owned(), rng: StdRng::seed_from_u64(seed), record, unacked: Vec::new() }
    }

    /// A connection's life: sends again what is not acknowledged, then more, until the connection ends; or, with
    /// `finish`, until all is acknowledged.
    async fn live(&mut self, address: &str, acks: &watch::Sender<u64>, finish: bool) -> Option<()> {
        let mut client = connect(address, &self.record.user).await?;
        if !client.try_send(json!({"type": "SUBSCRIBE", "channel": self.room})).await {
            return None;
        }
        while next(&mut client).await?["type"] != "SUBSCRIBED" {}
        for client_id in self.unacked.clone() {
            self.send(&mut client, &client_id).await?;
        }
        loop {
            while !finish && self.unacked.len() < IN_FLIGHT {
                let client_id = format!("m{}", self.record.contents.len());
                let padding: String =
                    (0..self.rng.random_range(0..200)).map(|_| self.rng.random_range('a'..='\u{3c9}')).collect();
                self.record.contents.insert(client_id.clone(), format!("{client_id} \"{padding}\" \u{1f980}"));
                self.unacked.push(client_id.clone());
                self.send(&mut client, &client_id).await?;
            }
            if self.unacked.is_empty() {
                client.close().await;
                return Some(());
            }
            let message = next(&mut client).await?;
            if message["type"] == "CHAT_MESSAGE" && message["payload"]["userId"] == *self.record.user {
                let echo = read(&message["payload"]);
                assert_eq!(
                    self.record.contents.get(&echo.client_id),
                    Some(&echo.content),
                    "the echo of {}",
                    echo.client_id
                );
                if let Some(index) = self.unacked.iter().position(|client_id| *client_id == echo.client_id) {
                    self.unacked.remove(index);
                    self.record.acked.insert(echo.client_id, echo.id);
                    acks.send_modify(|acks| *acks += 1);
                }
            }
        }
    }

    async fn send(&mut self, client: &mut Client, client_id: &str) -> Option<()> {
        let payload = json!({"content": self.record.contents[client_id], "clientId": client_id});
        let message = json!({"type": "CHAT_MESSAGE", "channel": self.room, "payload": payload});
        client.try_send(message).await.then_some(())
    }
}

struct Subscriber {
    room: String,
    user: String,
    received: BTreeMap<u64, Message>,
}

impl Subscriber {
    fn new(room: &str, user: &str) -> Self {
        Self { room: room.to_owned(), user: format!("{}-{user}", room.replace(':', "-")), received: BTreeMap::new() }
    }

    /// Resumes after the last message it has, and collects until the connection ends; or, with `finish`, until it has been
    /// told that there is no more.
    async fn live(&mut self, address: &str, finish: bool) -> Option<()> {
        let mut client = connect(address, &self.user).await?;
        let room = self.room.clone();
        let subscribe = |since: u64| json!({"type": "SUBSCRIBE", "channel": room, "payload": {"since": since}});
        let last = self.received.keys().next_back().copied().unwrap_or(0);
        if !client.try_send(subscribe(last)).await {
            return None;
        }
        // The last message that came by itself: those that follow come without gaps.
        let mut live: Option<u64> = None;
        let mut complete = false;
        loop {
            let message = next(&mut client).await?;
            let payload = &message["payload"];
            match message["type"].as_str().expect("a type") {
                "SUBSCRIBED" => {
                    for missed in payload["missed"].as_array().expect("`missed`") {
                        self.keep(read(missed));
                    }
                    assert_ne!(payload["gap"], true, "nothing was trimmed: {payload}");
                    if payload["more"] == true {
                        let next = payload["next"].as_str().and_then(|next| next.parse().ok()).expect("`next`");
                        if !client.try_send(subscribe(next)).await {
                            return None;
                        }
                    } else {
                        complete = true;
                        self.assert_complete();
                        if finish {
                            client.close().await;
                            return Some(());
                        }
                    }
                }
                "CHAT_MESSAGE" => {
                    let message = read(payload);
                    let expected = live.map_or(message.id, |live| live + 1);
                    assert_eq!(message.id, expected, "a gap while connected");
                    live = Some(message.id);
                    self.keep(message);
                    if complete {
                        self.assert_complete();
                    }
                }
                _ => {}
            }
        }
    }

    fn keep(&mut self, message: Message) {
        if let Some(before) = self.received.get(&message.id) {
            assert_eq!(*before, message, "a message changed");
        }
        self.received.insert(message.id, message);
    }

    /// From 1 to the last one there is no gap.
    fn assert_complete(&self) {
        let last = self.received.keys().next_back().copied().unwrap_or(0);
        assert_eq!(self.received.len() as u64, last, "{} resumed with a gap", self.user);
    }
}

struct Room {
    senders: Vec<Sender>,
    subscribers: Vec<Subscriber>,
}

fn setup() -> Setup {
    // The load is as high as it gets; the limit on messages is tested elsewhere.
    Setup::example().replace("{ per_second = 50, burst = 100 }", "{ per_second = 1_000_000, burst = 1_000_000 }")
}

/// All clients live until the broker is killed.
async fn round(broker: &mut Broker, rooms: &mut [Room], moment: Moment) {
    let address = broker.address().to_owned();
    let (acks, mut acked) = watch::channel(0_u64);
    let killed = Cell::new(false);
    let kill = async {
        match moment {
            Moment::Acks(count) => drop(acked.wait_for(|acks| *acks >= count).await.expect("acknowledgements")),
            Moment::Ms(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
        broker.kill();
        killed.set(true);
    };
    let mut senders = Vec::new();
    let mut subscribers = Vec::new();
    for room in rooms {
        senders.extend(room.senders.iter_mut().map(|sender| sender.live(&address, &acks, false)));
        subscribers.extend(room.subscribers.iter_mut().map(|subscriber| subscriber.live(&address, false)));
    }
    let lives = async {
        futures_util::future::join(join_all(senders), join_all(subscribers)).await;
        assert!(killed.get(), "every connection ended before the broker was killed");
    };
    tokio::join!(kill, lives);
}

/// Law: what was acknowledged survives, exactly once; what was not may be sent again; whoever resumes misses nothing.
#[tokio::test]
async fn no_acknowledged_message_is_lost_and_none_comes_twice_when_the_broker_is_killed() {
    let rounds =
        std::env::vars().find(|(name, _)| name == "HOTBAY_CRASH_ROUNDS").and_then(|(_, rounds)| rounds.parse().ok());
    let rounds: u64 = rounds.unwrap_or(ROUNDS);
    let mut rng = StdRng::seed_from_u64(seed());
    let mut rooms: Vec<Room> = (0..ROOMS)
        .map(|room| {
            let name = format!("room:{room}");
            let senders = (0..SENDERS).map(|number| Sender::new(&name, number, rng.random())).collect();
            let subscribers =
                (0..SUBSCRIBERS).map(|number| Subscriber::new(&name, &format!("reader-{number}"))).collect();
            Room { senders, subscribers }
        })
        .collect();
    let mut broker = setup().start();

    for number in 0..rounds {
        let moment = Moment::draw(&mut rng);
        println!("round {number}: killed after {moment:?}");
        round(&mut broker, &mut rooms, moment).await;
        broker.start();
    }

    let address = broker.address().to_owned();
    let (acks, _) = watch::channel(0);
    let mut total = 0;
    for (room, number) in rooms.iter_mut().zip(0..) {
        join_all(room.senders.iter_mut().map(|sender| sender.live(&address, &acks, true))).await;
        let mut reader = Subscriber::new(&format!("room:{number}"), "checker");
        reader.live(&address, true).await.expect("the history");
        let history: Vec<Message> = reader.received.into_values().collect();
        let senders: Vec<Sent> = room.senders.iter().map(|sender| sender.record.clone()).collect();
        assert!(room.senders.iter().all(|sender| sender.unacked.is_empty()), "all is acknowledged in the end");
        check(&history, &senders).unwrap_or_else(|violation| panic!("room:{number}: {violation:?}"));
        for subscriber in &mut room.subscribers {
            subscriber.live(&address, true).await.expect("the rest");
            let complete = check_subscriber(&history, &subscriber.received);
            complete.unwrap_or_else(|violation| panic!("{}: {violation:?}", subscriber.user));
        }
        total += history.len();
    }
    println!("{total} messages, {rounds} crashes");
    assert!(total as u64 > rounds, "hardly anything was sent");
}
