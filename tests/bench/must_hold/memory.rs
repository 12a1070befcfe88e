//! Memory of the broker's own, without the kernel's: resident memory of the process before and after something was added
//! many times, divided. What is not measured is held constant:
//!
//! - *connection*: a fixed set of awake rooms; only connections are added, each joined to one of them. Includes its place in
//!   the room's member list and in the plugin's memory.
//! - *awake channel*: a fixed set of connections; only rooms are added, each with one member and one message in its log.
//! - *asleep*: rooms are added in waves that go to sleep before the next one comes. First as many waves as it takes until the
//!   process stops growing for what so many channels need while they are awake together: the allocator keeps that for the
//!   next wave, however many channels sleep. Then with the member gone, then with the member staying.

use std::time::{Duration, Instant};

use hotbay::bench::procfs::Process;
use tokio::task::JoinSet;

use crate::bench::settled::settled_memory_bytes;
use crate::bench::socket;
use crate::chat::{self, Member};
use crate::support::broker::{Broker, Setup};
use crate::{Load, Outcome};

const CONNECTING_AT_ONCE: usize = 32;
/// Connections that the rooms of a measurement of channels share.
const TALKERS: usize = 10;

/// Bytes per idle joined connection. With `auto_join`, each also has its own sleeping `user:` channel, as `make run` does.
pub(crate) async fn per_connection(load: &Load, auto_join: bool) -> Outcome<f64> {
    let (rooms, warm_up, count) = if load.quick { (10, 100, 300) } else { (50, 500, 5_000) };
    let mut setup = awake(chat::setup());
    if !auto_join {
        setup = setup.set("mount.community.auto_join", "[]");
    }
    let broker = load.start(setup)?;
    let process = Process(broker.pid());
    let mut members = connect(&broker, 0..warm_up, rooms).await?;
    drain(&mut members).await?;
    let before = settled_memory_bytes(process).await?;
    members.append(&mut connect(&broker, warm_up..warm_up + count, rooms).await?);
    drain(&mut members).await?;
    let after = settled_memory_bytes(process).await?;
    Ok((after as f64 - before as f64) / count as f64)
}

/// Bytes per awake channel with one member and one message.
pub(crate) async fn per_awake_channel(load: &Load) -> Outcome<f64> {
    let (warm_up, count) = if load.quick { (20, 100) } else { (100, 1_000) };
    let broker = load.start(awake(chat::setup()).set("mount.community.limits.channels_per_connection_max", 10_000))?;
    let process = Process(broker.pid());
    let mut members = connect(&broker, 0..TALKERS, TALKERS).await?;
    members = talk_in(members, "warm", warm_up).await?;
    let before = settled_memory_bytes(process).await?;
    members = talk_in(members, "awake", count).await?;
    let after = settled_memory_bytes(process).await?;
    drop(members);
    Ok((after as f64 - before as f64) / f64::from(count))
}

/// Bytes per sleeping channel: with its member staying, and after it left.
pub(crate) async fn per_sleeping_channel(load: &Load) -> Outcome<(f64, f64)> {
    let (wave, warm_up, measured) = if load.quick { (100, 1, 1) } else { (2_000, 4, 8) };
    let setup = chat::setup()
        .set("mount.community.limits.idle_ms", 300)
        .set("mount.community.limits.channels_per_connection_max", 100_000);
    let broker = load.start(setup)?;
    let process = Process(broker.pid());
    let mut members = connect(&broker, 0..TALKERS, TALKERS).await?;
    let mut costs = [0.0; 2];
    for (cost, leaves) in costs.iter_mut().rev().zip([true, false]) {
        let mut before = 0;
        for number in 0..warm_up + measured {
            if number == warm_up {
                before = settled_memory_bytes(process).await?;
            }
            let name = format!("{}{number}", if leaves { "left" } else { "kept" });
            members = talk_in(members, &name, wave).await?;
            if leaves {
                members = leave(members, &name, wave).await?;
            }
            asleep(&broker).await?;
        }
        let after = settled_memory_bytes(process).await?;
        *cost = (after as f64 - before as f64) / f64::from(wave * measured);
    }
    Ok((costs[0], costs[1]))
}

fn awake(setup: Setup) -> Setup {
    setup.set("mount.community.limits.idle_ms", 3_600_000)
}

/// Connects users, each joined to one of the rooms.
async fn connect(broker: &Broker, users: std::ops::Range<usize>, rooms: usize) -> Outcome<Vec<Member>> {
    let mut members = Vec::with_capacity(users.len());
    let mut connecting = JoinSet::new();
    for user in users {
        if connecting.len() == CONNECTING_AT_ONCE
            && let Some(connected) = connecting.join_next().await
        {
            members.push(connected??);
        }
        let address = broker.address().to_owned();
        connecting
            .spawn(async move { Member::join(&address, &format!("u{user}"), &format!("room:{}", user % rooms)).await });
    }
    while let Some(connected) = connecting.join_next().await {
        members.push(connected??);
    }
    Ok(members)
}

async fn drain(members: &mut [Member]) -> Outcome<()> {
    let draining = members.iter_mut().map(|member| member.reader.drain());
    futures_util::future::join_all(draining).await.into_iter().collect()
}

/// Each room is joined by one of the members, who says something in it.
async fn talk_in(members: Vec<Member>, name: &str, rooms: u32) -> Outcome<Vec<Member>> {
    each_room(members, name, rooms, async |member, room| {
        member.join_also(room).await?;
        member.say().await
    })
    .await
}

async fn leave(members: Vec<Member>, name: &str, rooms: u32) -> Outcome<Vec<Member>> {
    each_room(members, name, rooms, async |member, room| member.leave(room).await).await
}

async fn each_room(
    mut members: Vec<Member>,
    name: &str,
    rooms: u32,
    act: impl AsyncFn(&mut Member, &str) -> Outcome<()>,
) -> Outcome<Vec<Member>> {
    let step = members.len();
    let acting = members.iter_mut().enumerate().map(async |(first, member)| {
        for number in (first..rooms as usize).step_by(step) {
            act(member, &format!("room:{name}-{number}")).await?;
        }
        Outcome::Ok(())
    });
    for result in futures_util::future::join_all(acting).await {
        result?;
    }
    Ok(members)
}

/// Waits until no channel is awake.
async fn asleep(broker: &Broker) -> Outcome<()> {
    let deadline = Instant::now() + socket::DEADLINE;
    while broker.metric("hotbay_channels_awake").await > 0.0 {
        if Instant::now() > deadline {
            return Err("the channels do not go to sleep".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
