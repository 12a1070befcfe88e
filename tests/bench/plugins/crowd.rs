//! Channels full of people of whom one talks, at a fixed rate whatever the broker does (open loop): message `n` of a channel says
//! `<channel>:<n>`, and every member writes down when it came. Delays count from the time a message was due, so that a broker that stalls
//! is charged for every message it made wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::Outcome;
use crate::bench::socket::{self, Reader, Sender};
use crate::diary::{Diary, Heard};
use crate::support::broker::token;

const CONNECTING_AT_ONCE: usize = 32;
/// How long the last messages may take after nothing new is sent.
const DRAIN: Duration = Duration::from_secs(15);

/// When which message is due: the channels take turns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) start: Instant,
    /// Between two messages of any channels.
    pub(crate) step: Duration,
    pub(crate) channels: u32,
}

impl Pace {
    pub(crate) fn due(&self, channel: u32, number: u32) -> Instant {
        self.start + self.step * (number * self.channels + channel)
    }

    /// Between two messages of one channel.
    pub(crate) fn interval(&self) -> Duration {
        self.step * self.channels
    }
}

/// Connected members, channel after channel; the first one of each talks.
pub(crate) struct Crowd {
    members: Vec<Member>,
    channels: u32,
    size: u32,
}

struct Member {
    channel: u32,
    sender: Sender,
    reader: Reader,
}

impl Member {
    /// Connects, and waits until the join is settled.
    async fn join(address: &str, channel: u32, seat: u32) -> Outcome<Self> {
        let user = format!("u{channel}-{seat}");
        let path = format!("/ws?channel={channel}&token={}", token(&user, json!({}), 3_600));
        let (sender, mut reader) = socket::connect(address, &path).await?;
        // Some plugins answer, others send it on as it is.
        let settled = format!("joined {user}");
        sender.send(&format!("echo {settled}"))?;
        reader.until(|message| message.ends_with(settled.as_bytes())).await?;
        Ok(Self { channel, sender, reader })
    }
}

impl Crowd {
    /// Connects `channels` times `size` members.
    pub(crate) async fn join(address: &str, channels: u32, size: u32) -> Outcome<Self> {
        let mut members = Vec::with_capacity((channels * size) as usize);
        let mut joining = JoinSet::new();
        for (channel, seat) in (0..channels).flat_map(|channel| (0..size).map(move |seat| (channel, seat))) {
            if joining.len() == CONNECTING_AT_ONCE
                && let Some(joined) = joining.join_next().await
            {
                members.push(joined??);
            }
            let address = address.to_owned();
            joining.spawn(async move {
                let member = Member::join(&address, channel, seat).await?;
                Outcome::Ok((channel, seat, member))
            });
        }
        while let Some(joined) = joining.join_next().await {
            members.push(joined??);
        }
        members.sort_unstable_by_key(|(channel, seat, _)| (*channel, *seat));
        let members = members.into_iter().map(|(_, _, member)| member).collect();
        Ok(Self { members, channels, size })
    }

    fn talkers(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.iter_mut().step_by(self.size as usize)
    }

    /// Has the plugin of each channel obey a command that it answers with `ok`.
    pub(crate) async fn tell_all(&mut self, command: &str) -> Outcome<()> {
        for member in self.talkers() {
            member.sender.send(command)?;
            member.reader.until(|message| message == b"ok").await?;
        }
        Ok(())
    }

    /// Begins to talk. `text` is what message `n` of a channel begins with.
    pub(crate) fn talk(mut self, per_second: u32, text: fn(u32, u32) -> &'static str) -> Talk {
        let start = Instant::now() + Duration::from_millis(50);
        let pace = Pace { start, step: Duration::from_secs(1) / per_second, channels: self.channels };
        let senders: Vec<Sender> = self.talkers().map(|member| member.sender.clone()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let (told, sent) = oneshot::channel();
        let stopped = Arc::clone(&stop);
        // A thread of its own: the runtime's timers are too coarse. It ends when it is told to, or with the process.
        std::thread::spawn(move || told.send(send(pace, &senders, text, &stopped)).ok());
        let (phase, _) = watch::channel(Phase::Talking);
        let mut listening = JoinSet::new();
        for member in self.members {
            listening.spawn(listen(member, pace, phase.subscribe()));
        }
        Talk { pace, size: self.size, stop, sent, phase, listening }
    }
}

/// What the pacer did.
pub(crate) struct Sent {
    /// Messages of each channel.
    pub(crate) turns: u32,
    /// Those that could not be sent, because their socket was gone or full.
    pub(crate) unsent: u64,
    /// How late one was sent at most: the load's own fault, and charged to the broker.
    pub(crate) late_max: Duration,
}

/// Sends turn after turn until it is stopped.
fn send(pace: Pace, senders: &[Sender], text: fn(u32, u32) -> &'static str, stop: &AtomicBool) -> Sent {
    let padding = "x".repeat(80);
    let mut sent = Sent { turns: 0, unsent: 0, late_max: Duration::ZERO };
    while !stop.load(Ordering::Relaxed) {
        let number = sent.turns;
        for (sender, channel) in senders.iter().zip(0..) {
            let due = pace.due(channel, number);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            sent.late_max = sent.late_max.max(due.elapsed());
            let text = format!("{} {channel}:{number} {padding}", text(channel, number));
            sent.unsent += u64::from(sender.send(&text).is_err());
        }
        sent.turns += 1;
    }
    sent
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Talking,
    /// Nothing new comes: so many messages of each channel were sent.
    Draining(u32),
    /// The rest is lost.
    Over,
}

async fn listen(mut member: Member, pace: Pace, mut phase: watch::Receiver<Phase>) -> Diary {
    let mut diary = Diary::new(member.channel);
    loop {
        match *phase.borrow_and_update() {
            Phase::Draining(turns) if diary.has(turns) => return diary,
            Phase::Over => return diary,
            _ => {}
        }
        let look = |message: &[u8]| diary.hear(message, &pace);
        let read = tokio::select! {
            biased;
            changed = phase.changed() => if changed.is_ok() { continue } else { return diary },
            read = member.reader.messages(look) => read,
        };
        if let Err(error) = read {
            diary.closed = Some(error.to_string());
            return diary;
        }
    }
}

/// A crowd that talks.
pub(crate) struct Talk {
    pub(crate) pace: Pace,
    size: u32,
    stop: Arc<AtomicBool>,
    sent: oneshot::Receiver<Sent>,
    phase: watch::Sender<Phase>,
    listening: JoinSet<Diary>,
}

impl Talk {
    /// Stops it, waits until everybody has heard everything, and gives what each member heard.
    pub(crate) async fn finish(mut self) -> Outcome<Heard> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sent.await?;
        self.phase.send_replace(Phase::Draining(sent.turns));
        let mut diaries = Vec::with_capacity(self.listening.len());
        let drained = tokio::time::timeout(DRAIN, async {
            while let Some(diary) = self.listening.join_next().await {
                diaries.push(diary?);
            }
            Outcome::Ok(())
        });
        if drained.await.is_err() {
            self.phase.send_replace(Phase::Over);
            while let Some(diary) = self.listening.join_next().await {
                diaries.push(diary?);
            }
        }
        Ok(Heard { diaries, pace: self.pace, sent, size: self.size })
    }
}
