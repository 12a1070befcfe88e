//! A whole measurement: connect, settle, warm up, measure, drain, report.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::BenchError;
use super::generator::{Generator, Publishing};
use super::pace::Pace;
use super::plan::{Options, Plan};
use super::procfs::{CpuTimes, Memory, Process, own_cpu_ns};
use super::report::Report;
use super::scenario::Scenario;
use super::tally::Counts;

/// Open files beside those of the connections.
const FILES_BESIDE: u64 = 32;
/// How often the generator looks whether anything is stuck.
const LOOK_NS: u64 = 250_000_000;
/// Without a delivery for so long, the server stalls.
const STALL_NS: u64 = 1_000_000_000;
/// A publish that not all received after so long is given up.
const PATIENCE_NS: u64 = 5_000_000_000;
/// Publishes in a row before what came in is read.
const PUBLISHES_IN_A_ROW: u32 = 64;

/// What a measurement gave, as it is known when it ends.
pub(super) struct Measured {
    /// From the first handshake to the last connection's joining.
    pub(super) connect_ns: u64,
    pub(super) measure_ns: u64,
    /// Within the measurement.
    pub(super) counts: Counts,
    pub(super) own_cpu_ns: u64,
    pub(super) late_ns_max: u64,
    pub(super) server: Option<ServerUse>,
}

/// What the server used.
#[derive(Debug, Default)]
pub(super) struct ServerUse {
    pub(super) connect_cpu_ns: u64,
    pub(super) measure_cpu_ns: u64,
    pub(super) before: Memory,
    pub(super) joined: Memory,
    pub(super) after: Memory,
    /// Connections between `before` and `joined`.
    pub(super) connections: u32,
}

/// Carries out a measurement. `progress` is told what is going on. Blocks; loads the machine.
///
/// # Errors
/// If nothing could be measured. What was lost while measuring is in the report.
pub fn run(options: Options, progress: &mut dyn FnMut(&str)) -> Result<Report, BenchError> {
    let plan = Plan::new(options)?;
    allow_files(u64::from(plan.connections) + FILES_BESIDE)?;
    if let Some(cpu) = plan.cpu {
        pin(cpu)?;
    }
    let process = plan.pid.map(Process);
    let mut generator = Generator::new(&plan)?;
    let mut server = process.map(|_| ServerUse::default());
    progress(&format!("connecting {} to {} …", plan.connections, plan.url));

    let cpu = process.map(Process::cpu).transpose()?;
    let own_cpu = own_cpu_ns();
    // What the first connections cost the server once must not be counted for each.
    let first = if plan.scenario == Scenario::Idle { plan.connections.div_ceil(10) } else { 0 };
    let mut connect_ns = connect(&mut generator, &plan, first)?;
    if let (Some(server), Some(process)) = (&mut server, process) {
        settle(&mut generator, if first > 0 { plan.times.settle } else { 0 })?;
        server.before = process.memory()?;
        server.connections = plan.connections - first;
    }
    connect_ns += connect(&mut generator, &plan, plan.connections)?;
    if let (Some(server), Some(process), Some(cpu)) = (&mut server, process, &cpu) {
        server.connect_cpu_ns = process.cpu()?.since(cpu);
    }
    let connect_own_cpu_ns = own_cpu_ns() - own_cpu;
    settle(&mut generator, plan.times.settle)?;
    if let (Some(server), Some(process)) = (&mut server, process) {
        server.joined = process.memory()?;
    }

    let mut measured = if plan.scenario.publishes() {
        progress(&format!("measuring for {:.1} s …", plan.times.measure as f64 / 1e9));
        let mut load = Load::new(&plan, generator.now_ns());
        load.run(&mut generator, process)?
    } else {
        let counts = generator.tally.counts;
        Measured {
            connect_ns,
            measure_ns: connect_ns,
            counts,
            own_cpu_ns: connect_own_cpu_ns,
            late_ns_max: 0,
            server: Some(ServerUse::default()),
        }
    };
    measured.connect_ns = connect_ns;
    measured.server = match (server, &measured.server, process.map(Process::memory)) {
        (Some(server), Some(load), Some(Ok(after))) => {
            Some(ServerUse { measure_cpu_ns: load.measure_cpu_ns, after, ..server })
        }
        // It was there when this began. Whatever became of it, the report says what was lost.
        _ => None,
    };
    Ok(Report::new(&plan, &generator.tally, &measured))
}

/// Opens connections until so many have joined; returns how long it took.
fn connect(generator: &mut Generator<'_>, plan: &Plan, wanted: u32) -> Result<u64, BenchError> {
    let start_ns = generator.now_ns();
    let end_ns = start_ns + plan.times.connect;
    let mut pace = plan.rate.filter(|_| plan.scenario == Scenario::Connect).map(|rate| Pace::new(start_ns, rate));
    while generator.joined < wanted {
        let now_ns = generator.now_ns();
        if now_ns >= end_ns {
            return Err(slow(generator, plan));
        }
        while generator.opened < wanted && generator.opened - generator.joined < plan.connecting {
            let due_ns = match &mut pace {
                Some(pace) => match pace.take(now_ns) {
                    Some(due_ns) => due_ns,
                    None => break,
                },
                None => generator.now_ns(),
            };
            generator.open_next(due_ns)?;
        }
        let full = generator.opened == wanted || generator.opened - generator.joined >= plan.connecting;
        let next_ns = if full { end_ns } else { pace.map_or(now_ns, |pace| pace.due_ns()) };
        generator.step(next_ns.min(end_ns))?;
        if generator.tally.counts.lost > 0 {
            let reason = generator.tally.first_loss.clone().unwrap_or_default();
            return Err(BenchError::Join { reason, before: generator.joined as usize });
        }
    }
    Ok(generator.now_ns() - start_ns)
}

fn slow(generator: &Generator<'_>, plan: &Plan) -> BenchError {
    let reason = match generator.straggler() {
        Some((index, waits)) => format!("connection {index} still waits for {waits}"),
        None => "raise --connect-seconds or --rate".to_owned(),
    };
    BenchError::Slow {
        joined: generator.joined as usize,
        wanted: plan.connections as usize,
        seconds: plan.times.connect as f64 / 1e9,
        reason,
    }
}

/// Lets the server come to rest.
fn settle(generator: &mut Generator<'_>, time_ns: u64) -> Result<(), BenchError> {
    let end_ns = generator.now_ns() + time_ns;
    while generator.now_ns() < end_ns {
        generator.step(end_ns)?;
    }
    Ok(())
}

/// Publishing, and what is noted when measuring begins.
struct Load<'p> {
    plan: &'p Plan,
    pace: Option<Pace>,
    measure_ns: u64,
    end_ns: u64,
    /// Rooms whose windows may have room.
    finished: Vec<u32>,
    /// Rooms that could not publish.
    held: Vec<u32>,
    look_ns: u64,
    progress: (u64, u64),
    begun: Option<Begun>,
}

struct Begun {
    at_ns: u64,
    counts: Counts,
    own_cpu_ns: u64,
    cpu: Option<CpuTimes>,
}

impl<'p> Load<'p> {
    fn new(plan: &'p Plan, now_ns: u64) -> Self {
        let measure_ns = now_ns + plan.times.warm_up;
        Self {
            plan,
            pace: plan.rate.map(|rate| Pace::new(now_ns, rate)),
            measure_ns,
            end_ns: measure_ns + plan.times.measure,
            finished: Vec::new(),
            held: (0..plan.rooms).collect(),
            look_ns: now_ns + LOOK_NS,
            progress: (0, now_ns),
            begun: None,
        }
    }

    fn run(&mut self, generator: &mut Generator<'_>, process: Option<Process>) -> Result<Measured, BenchError> {
        let begun = loop {
            let now_ns = generator.now_ns();
            if now_ns >= self.end_ns
                && let Some(begun) = self.begun.take()
            {
                break begun;
            }
            if self.begun.is_none() && now_ns >= self.measure_ns {
                self.begun = Some(self.begin(generator, process));
            }
            if now_ns >= self.look_ns {
                self.look(generator, now_ns);
            }
            generator.take_finished(&mut self.finished);
            let next_ns = match self.pace.take() {
                Some(mut pace) => {
                    self.publish_due(generator, &mut pace);
                    self.finished.clear();
                    let due_ns = pace.due_ns();
                    self.pace = Some(pace);
                    due_ns
                }
                None => self.refill(generator, now_ns),
            };
            let boundary_ns = if self.begun.is_some() { self.end_ns } else { self.measure_ns };
            generator.step(next_ns.min(boundary_ns).min(self.look_ns))?;
        };
        let counts = generator.tally.counts;
        let measured = Measured {
            connect_ns: 0,
            measure_ns: generator.now_ns() - begun.at_ns,
            counts: difference(&counts, &begun.counts),
            own_cpu_ns: own_cpu_ns() - begun.own_cpu_ns,
            late_ns_max: self.pace.as_mut().map_or(0, Pace::take_late_ns_max),
            server: match (process, begun.cpu) {
                (Some(process), Some(cpu)) => {
                    let used = process.cpu().map(|now| now.since(&cpu));
                    used.ok().map(|measure_cpu_ns| ServerUse { measure_cpu_ns, ..ServerUse::default() })
                }
                _ => None,
            },
        };
        self.drain(generator)?;
        Ok(measured)
    }

    fn begin(&mut self, generator: &mut Generator<'_>, process: Option<Process>) -> Begun {
        if let Some(pace) = &mut self.pace {
            pace.take_late_ns_max();
        }
        let at_ns = generator.now_ns();
        generator.tally.record_from_ns = at_ns;
        let cpu = process.and_then(|process| process.cpu().ok());
        Begun { at_ns, counts: generator.tally.counts, own_cpu_ns: own_cpu_ns(), cpu }
    }

    /// Open loop: everything that is due, the rooms taking turns.
    fn publish_due(&self, generator: &mut Generator<'_>, pace: &mut Pace) {
        for _ in 0..PUBLISHES_IN_A_ROW {
            let now_ns = generator.now_ns();
            let room = (pace.done() % u64::from(self.plan.rooms)) as u32;
            if pace.due_ns() > now_ns || generator.publish(room, pace.due_ns()) == Publishing::Full {
                return;
            }
            pace.take(now_ns);
        }
    }

    /// Closed loop: every window is full. Returns when to try again.
    fn refill(&mut self, generator: &mut Generator<'_>, now_ns: u64) -> u64 {
        self.finished.append(&mut self.held);
        for room in self.finished.drain(..) {
            if generator.refill(room) == Publishing::Full {
                self.held.push(room);
            }
        }
        if self.held.is_empty() { u64::MAX } else { now_ns + 1_000_000 }
    }

    /// Notices stalls, and gives up what will not come.
    fn look(&mut self, generator: &mut Generator<'_>, now_ns: u64) {
        self.look_ns = now_ns + LOOK_NS;
        let delivered = generator.tally.counts.delivered;
        if delivered != self.progress.0 || generator.tally.ledger.unfinished() == 0 {
            self.progress = (delivered, now_ns);
        } else if now_ns - self.progress.1 >= STALL_NS {
            generator.tally.counts.stalls += 1;
            self.progress.1 = now_ns;
        }
        generator.tally.give_up(now_ns.saturating_sub(PATIENCE_NS));
    }

    /// Waits for what is still under way; what does not come is missing.
    fn drain(&mut self, generator: &mut Generator<'_>) -> Result<(), BenchError> {
        let end_ns = generator.now_ns() + self.plan.times.drain;
        while generator.tally.ledger.unfinished() > 0 && generator.now_ns() < end_ns {
            generator.step(end_ns)?;
        }
        generator.tally.give_up(u64::MAX);
        Ok(())
    }
}

fn difference(now: &Counts, then: &Counts) -> Counts {
    Counts {
        published: now.published - then.published,
        finished: now.finished - then.finished,
        delivered: now.delivered - then.delivered,
        reads: now.reads - then.reads,
        ..*now
    }
}

/// Raises the soft limit of open files, as far as the hard one allows.
fn allow_files(needed: u64) -> Result<(), BenchError> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if let Some(allowed) = limit.maximum.filter(|maximum| *maximum < needed) {
        return Err(BenchError::OpenFiles { needed, allowed });
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum: limit.maximum })
        .map_err(|e| BenchError::System { what: "raising the limit of open files", reason: e.to_string() })
}

/// Pins this thread to a core.
fn pin(cpu: usize) -> Result<(), BenchError> {
    let allowed = sched_getaffinity(None).unwrap_or_default();
    let words = || {
        let cores: Vec<String> =
            (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).map(|c| c.to_string()).collect();
        cores.join(", ")
    };
    if cpu >= CpuSet::MAX_CPU || !allowed.is_set(cpu) {
        return Err(BenchError::Cpu { cpu, reason: "not one of its cores".to_owned(), allowed: words() });
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|e| BenchError::Cpu { cpu, reason: e.to_string(), allowed: words() })
}
