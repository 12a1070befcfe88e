//! The members of a document, on one thread and one epoll. Those who type keep a number of updates under way; one is finished
//! when all others have it.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hotbay::bench::procfs::Process;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;

use crate::Outcome;
use crate::ledger::Ledger;
use crate::protocol::{Dialect, Incoming};
use crate::server::Server;
use crate::socket::{DEADLINE, Socket};
use crate::typing::Typing;

const BUFFER_BYTES: usize = 256 << 10;
const EVENTS_MAX: usize = 256;
/// Time for what servers say after the document.
const SETTLE: Duration = Duration::from_millis(200);

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// What a run showed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) deliveries_per_second: f64,
    /// CPU time of the server for each delivery.
    pub(crate) cpu_us: f64,
    /// Deliveries for each message that brought any: how much was merged.
    pub(crate) merged: f64,
    /// Share of its core that the server used, and the generator of its.
    pub(crate) server_share: f64,
    pub(crate) generator_share: f64,
    pub(crate) seconds: f64,
}

/// See the module.
pub(crate) struct Load<'a> {
    dialect: Dialect,
    typings: &'a [Typing],
    /// Updates each typer keeps under way.
    window: usize,
    members: Vec<Socket>,
    ledger: Ledger<'a>,
    epoll: OwnedFd,
    events: Vec<Event>,
    buffer: Box<[u8]>,
}

impl<'a> Load<'a> {
    /// Connects so many members; the first ones type.
    pub(crate) fn connect(server: &Server, members: usize, typings: &'a [Typing], window: usize) -> Outcome<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let ledger = Ledger::new(typings, members);
        let mut sockets = Vec::with_capacity(members);
        for index in 0..members {
            let (socket, document) = join(server)?;
            ledger.check_document(&document)?;
            epoll::add(&epoll, socket.stream(), EventData::new_u64(index as u64), EventFlags::IN)?;
            sockets.push(socket);
        }
        Ok(Self {
            dialect: server.peer().dialect(),
            typings,
            window,
            members: sockets,
            ledger,
            epoll,
            events: Vec::with_capacity(EVENTS_MAX),
            buffer: vec![0; BUFFER_BYTES].into(),
        })
    }

    /// Types until the time is over, then waits until everybody has everything; only then does the clock stop.
    pub(crate) fn run(&mut self, server: &Server, times: Times) -> Outcome<Figures> {
        let (process, own) = (Process(server.pid()), Process(std::process::id()));
        self.pass(SETTLE, false)?;
        self.pass(times.warm_up, true)?;
        let (cpu, own_cpu) = (process.cpu()?, own.cpu()?);
        let (deliveries, messages) = (self.ledger.deliveries, self.ledger.messages);
        let begin = Instant::now();
        self.pass(times.measured, true)?;
        self.drain()?;
        let elapsed = begin.elapsed();
        let (cpu, own_cpu) = (process.cpu()?.since(&cpu), own.cpu()?.since(&own_cpu));
        let deliveries = (self.ledger.deliveries - deliveries) as f64;
        Ok(Figures {
            deliveries_per_second: deliveries / elapsed.as_secs_f64(),
            cpu_us: cpu as f64 / 1_000.0 / deliveries,
            merged: deliveries / (self.ledger.messages - messages) as f64,
            server_share: cpu as f64 / elapsed.as_nanos() as f64,
            generator_share: own_cpu as f64 / elapsed.as_nanos() as f64,
            seconds: elapsed.as_secs_f64(),
        })
    }

    /// Who has what.
    pub(crate) fn ledger(&self) -> &Ledger<'a> {
        &self.ledger
    }

    fn pass(&mut self, time: Duration, types: bool) -> Outcome<()> {
        let begin = Instant::now();
        while begin.elapsed() < time && !self.ledger.is_exhausted() {
            if types {
                self.send();
            }
            self.step()?;
        }
        Ok(())
    }

    fn drain(&mut self) -> Outcome<()> {
        let begin = Instant::now();
        while !self.ledger.is_even() {
            if begin.elapsed() > DEADLINE {
                self.ledger.check()?;
            }
            self.step()?;
        }
        Ok(())
    }

    fn send(&mut self) {
        for (typer, typing) in self.typings.iter().enumerate() {
            let until = typing.len().min(self.ledger.finished[typer] + self.window);
            for index in self.ledger.sent[typer]..until {
                self.members[typer].push(&self.dialect.update(typing.update(index)));
            }
            self.ledger.sent[typer] = until;
        }
    }

    /// Writes what waits, then reads what came.
    fn step(&mut self) -> Outcome<()> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        for typer in &mut self.members[..self.typings.len()] {
            typer.flush()?;
        }
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &self.events {
            let index = event.data.u64() as usize;
            let member = &mut self.members[index];
            let (dialect, ledger) = (self.dialect, &mut self.ledger);
            let mut asked = false;
            member.read(&mut self.buffer, |message| match dialect.read(message) {
                Some(Incoming::Update(update)) => ledger.receive(index, update),
                Some(Incoming::Question) => {
                    asked = true;
                    Ok(())
                }
                Some(Incoming::Refused(why)) => Err(format!("member {index} was refused: {why}").into()),
                Some(Incoming::Document(_) | Incoming::Other) => Ok(()),
                None => Err(format!("member {index} got a malformed message").into()),
            })?;
            if asked {
                member.push(&dialect.nothing_to_add());
            }
            member.flush()?;
        }
        Ok(())
    }
}

/// A new member, and the document as it got it.
pub(crate) fn join(server: &Server) -> Outcome<(Socket, Vec<u8>)> {
    let dialect = server.peer().dialect();
    let mut socket = Socket::connect(server.address(), server.path())?;
    for greeting in dialect.greetings() {
        socket.push(&greeting);
    }
    let begin = Instant::now();
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut document, mut questions) = (None, 0);
    while document.is_none() {
        socket.flush()?;
        let came = socket.read(&mut buffer, |message| {
            match dialect.read(message).ok_or("a new member got a malformed message")? {
                Incoming::Document(update) => document = Some(update.to_vec()),
                Incoming::Question => questions += 1,
                Incoming::Refused(why) => return Err(format!("a new member was refused: {why}").into()),
                Incoming::Update(_) | Incoming::Other => {}
            }
            Ok(())
        })?;
        for _ in 0..std::mem::take(&mut questions) {
            socket.push(&dialect.nothing_to_add());
        }
        if begin.elapsed() > DEADLINE {
            return Err("a new member did not get the document".into());
        }
        if !came {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    socket.flush()?;
    Ok((socket, document.unwrap_or_default()))
}
