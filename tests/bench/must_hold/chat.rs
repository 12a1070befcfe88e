//! Members of community chat, and the two ways they talk: at a fixed rate whatever the broker does (open loop), and each
//! sending its next message when the broker acknowledged the one before (closed loop).
//!
//! A message is acknowledged when its sender gets it back as `CHAT_MESSAGE`: then it is on disk.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hotbay::bench::procfs::Process;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::bench::socket::{self, Reader, Sender, find};
use crate::support::broker::{Broker, Setup, token};

/// Characters of a message's text.
pub(crate) const CONTENT_BYTES: usize = 100;

/// The configuration of `make run`, without its rate limit.
pub(crate) fn setup() -> Setup {
    unlimited(Setup::example())
}

/// Raises the rate limit of the chat out of the way.
pub(crate) fn unlimited(setup: Setup) -> Setup {
    let rate = "mount.community.limits.rate_per_connection";
    setup.set(&format!("{rate}.per_second"), 1_000_000).set(&format!("{rate}.burst"), 1_000_000)
}

/// One connection, joined to at least one room.
pub(crate) struct Member {
    user: String,
    room: String,
    number: u64,
    pub(crate) sender: Sender,
    pub(crate) reader: Reader,
}

impl Member {
    /// Connects a user and joins a room.
    pub(crate) async fn join(address: &str, user: &str, room: &str) -> Outcome<Self> {
        let token = token(user, json!({}), 3_600);
        let (sender, reader) = socket::connect(address, &format!("/api/community/ws?token={token}")).await?;
        let mut member = Self { user: user.to_owned(), room: String::new(), number: 0, sender, reader };
        member.join_also(room).await?;
        Ok(member)
    }

    /// Joins one more room, and talks there from now on.
    pub(crate) async fn join_also(&mut self, room: &str) -> Outcome<()> {
        room.clone_into(&mut self.room);
        self.sender.send(&format!(r#"{{"type":"SUBSCRIBE","channel":"{room}","payload":{{}}}}"#))?;
        self.reader.until(|message| message.starts_with(b"{\"type\":\"SUBSCRIBED\"")).await
    }

    /// Leaves the room.
    pub(crate) async fn leave(&mut self, room: &str) -> Outcome<()> {
        self.sender.send(&format!(r#"{{"type":"UNSUBSCRIBE","channel":"{room}","payload":{{}}}}"#))?;
        self.reader.until(|message| message.starts_with(b"{\"type\":\"UNSUBSCRIBED\"")).await
    }

    /// Says something, and waits for the acknowledgement.
    pub(crate) async fn say(&mut self) -> Outcome<()> {
        let text = self.next_text();
        self.sender.send(&text)?;
        self.reader.until(|message| message.starts_with(b"{\"type\":\"CHAT_MESSAGE\"")).await
    }

    fn next_text(&mut self) -> String {
        self.number += 1;
        let Self { user, room, number, .. } = self;
        let content = "x".repeat(CONTENT_BYTES);
        format!(
            r#"{{"type":"CHAT_MESSAGE","channel":"{room}","payload":{{"content":"{content}","clientId":"{user}-{number}"}}}}"#
        )
    }
}

/// Connects members, `rooms` rooms of `size`, in the order of the rooms.
pub(crate) async fn join_rooms(address: &str, rooms: usize, size: usize) -> Outcome<Vec<Member>> {
    let mut members = Vec::new();
    for room in 0..rooms {
        for seat in 0..size {
            members.push(Member::join(address, &format!("u{room}-{seat}"), &format!("room:{room}")).await?);
        }
    }
    for member in &mut members {
        member.reader.drain().await?;
    }
    Ok(members)
}

/// What a chat message's author is; `None` for other messages. An error message ends the run.
fn author(message: &[u8]) -> Outcome<Option<&[u8]>> {
    if !message.starts_with(b"{\"type\":\"CHAT_MESSAGE\"") {
        return if message.starts_with(b"{\"type\":\"ERROR\"") {
            Err(format!("refused: {}", String::from_utf8_lossy(message)).into())
        } else {
            Ok(None)
        };
    }
    let (_, rest) =
        find(message, b"\"userId\":\"").map(|at| message.split_at(at + 10)).ok_or("a message without author")?;
    Ok(rest.split(|byte| *byte == b'"').next())
}

/// Latencies of messages sent at a fixed rate, the members taking turns; counted from the time a message was due, so that a
/// broker that stalls is charged for every message it made wait. Gives the members back.
pub(crate) async fn open_loop(
    members: Vec<Member>,
    per_second: u32,
    time: Duration,
) -> Outcome<(Vec<Member>, Vec<Duration>)> {
    let turns = (f64::from(per_second) * time.as_secs_f64()) as usize / members.len();
    let mut tasks = JoinSet::new();
    let mut senders = Vec::new();
    for (seat, mut member) in members.into_iter().enumerate() {
        let due = Arc::new(Mutex::new(VecDeque::new()));
        let texts: Vec<String> = (0..turns).map(|_| member.next_text()).collect();
        senders.push((member.sender.clone(), texts, Arc::clone(&due)));
        tasks.spawn(async move {
            let mut latencies = Vec::with_capacity(turns);
            while latencies.len() < turns {
                let Member { user, reader, .. } = &mut member;
                let mut result = Ok(());
                let look = |message: &[u8]| match author(message) {
                    Ok(Some(author)) if author == user.as_bytes() => {
                        let due = due
                            .lock()
                            .ok()
                            .and_then(|mut due: std::sync::MutexGuard<'_, VecDeque<Instant>>| due.pop_front());
                        latencies.extend(due.map(|due| due.elapsed()));
                    }
                    Ok(_) => {}
                    Err(error) => result = Err(error),
                };
                tokio::time::timeout(time + socket::DEADLINE, reader.messages(look)).await??;
                result?;
            }
            Outcome::Ok((seat, member, latencies))
        });
    }
    // A thread of its own: the runtime's timers are too coarse.
    let interval = Duration::from_secs(1) / per_second;
    let pacer = std::thread::spawn(move || -> Outcome<()> {
        let start = Instant::now() + Duration::from_millis(20);
        let turns = (0..turns).flat_map(|turn| senders.iter().map(move |sender| (turn, sender)));
        for ((turn, (sender, texts, queue)), number) in turns.zip(0_u32..) {
            let due = start + interval * number;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            queue.lock().map_err(|_| "a reader failed")?.push_back(due);
            sender.send(&texts[turn])?;
        }
        Ok(())
    });
    let mut members = Vec::new();
    let mut latencies = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        let (seat, member, mut own) = ended??;
        members.push((seat, member));
        latencies.append(&mut own);
    }
    pacer.join().map_err(|_| "the pacer failed")??;
    members.sort_unstable_by_key(|(seat, _)| *seat);
    latencies.sort_unstable();
    Ok((members.into_iter().map(|(_, member)| member).collect(), latencies))
}

/// What a closed loop gave.
pub(crate) struct Throughput {
    pub(crate) acked: u64,
    pub(crate) delivered: u64,
    /// From the first message to the last acknowledgement.
    pub(crate) seconds: f64,
    pub(crate) broker_cpu_s: f64,
    pub(crate) generator_cpu_s: f64,
    /// Sorted.
    pub(crate) latencies: Vec<Duration>,
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    acked: AtomicU64,
    delivered: AtomicU64,
    last_ack_ns: AtomicU64,
    over: AtomicBool,
}

/// Every member that `window` gives one keeps as many messages under way. After `time` nothing new is sent; the clock stops
/// with the last acknowledgement, and the run fails unless every member got every message of its room of `size`.
pub(crate) async fn closed_loop(
    broker: &Broker,
    members: Vec<Member>,
    size: u64,
    time: Duration,
    window: impl Fn(usize) -> usize,
) -> Outcome<(Vec<Member>, Throughput)> {
    let (broker, generator) = (Process(broker.pid()), Process(std::process::id()));
    let counts = Arc::new(Counts::default());
    let (stop, _) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let cpu = (broker.cpu()?, generator.cpu()?);
    let start = Instant::now();
    for (seat, member) in members.into_iter().enumerate() {
        let talk = talk(member, window(seat), Arc::clone(&counts), stop.subscribe(), start);
        tasks.spawn(async move { talk.await.map(|(member, latencies)| (seat, member, latencies)) });
    }
    tokio::time::sleep(time).await;
    counts.over.store(true, Ordering::Relaxed);
    let deadline = Instant::now() + socket::DEADLINE;
    let (sent, acked, delivered) = loop {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let now = (read(&counts.sent), read(&counts.acked), read(&counts.delivered));
        if now.0 == now.1 && now.2 == now.0 * size {
            break now;
        }
        if Instant::now() > deadline || tasks.is_empty() {
            return Err(format!("of {} messages {} were acknowledged, with {} deliveries", now.0, now.1, now.2).into());
        }
        if let Some(failed) = tasks.try_join_next() {
            failed??;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let cpu = [broker.cpu()?.since(&cpu.0), generator.cpu()?.since(&cpu.1)].map(|ns| ns as f64 / 1e9);
    stop.send_replace(true);
    let mut members = Vec::new();
    let mut latencies = Vec::with_capacity(sent as usize);
    while let Some(ended) = tasks.join_next().await {
        let (seat, member, mut own) = ended??;
        members.push((seat, member));
        latencies.append(&mut own);
    }
    members.sort_unstable_by_key(|(seat, _)| *seat);
    latencies.sort_unstable();
    let throughput = Throughput {
        acked,
        delivered,
        seconds: Duration::from_nanos(counts.last_ack_ns.load(Ordering::Relaxed)).as_secs_f64(),
        broker_cpu_s: cpu[0],
        generator_cpu_s: cpu[1],
        latencies,
    };
    Ok((members.into_iter().map(|(_, member)| member).collect(), throughput))
}

async fn talk(
    mut member: Member,
    window: usize,
    counts: Arc<Counts>,
    mut stop: watch::Receiver<bool>,
    start: Instant,
) -> Outcome<(Member, Vec<Duration>)> {
    let mut under_way = VecDeque::new();
    let mut latencies = Vec::new();
    loop {
        while under_way.len() < window && !counts.over.load(Ordering::Relaxed) {
            let text = member.next_text();
            counts.sent.fetch_add(1, Ordering::Relaxed);
            under_way.push_back(Instant::now());
            member.sender.send(&text)?;
        }
        let Member { user, reader, .. } = &mut member;
        let mut result = Ok(());
        let look = |message: &[u8]| match author(message) {
            Ok(Some(author)) => {
                counts.delivered.fetch_add(1, Ordering::Relaxed);
                if author == user.as_bytes() {
                    counts.acked.fetch_add(1, Ordering::Relaxed);
                    latencies.extend(under_way.pop_front().map(|sent| sent.elapsed()));
                    counts.last_ack_ns.fetch_max(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
                }
            }
            Ok(None) => {}
            Err(error) => result = Err(error),
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return Ok((member, latencies)),
            read = reader.messages(look) => read?,
        }
        result?;
    }
}
