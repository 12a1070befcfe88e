//! One connection of the generator: its socket, and how far it has come.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use socket2::{Domain, Protocol, Socket, Type};

use super::frames::Walker;

/// Most bytes that may wait for a server that does not read.
const OUT_BYTES_MAX: usize = 4 << 20;

/// One connection.
#[derive(Default)]
pub(super) struct Link {
    pub(super) socket: Option<TcpStream>,
    pub(super) phase: Phase,
    pub(super) room: u32,
    /// When it was to be opened.
    pub(super) due_ns: u64,
    /// How many of the protocol's first messages are done.
    pub(super) greeted: u8,
    pub(super) walker: Walker,
    /// The answer to the handshake, as far as it came.
    pub(super) answer: Vec<u8>,
    /// Bytes to be written, of which `written` are.
    pub(super) out: Vec<u8>,
    written: usize,
    /// Whether it stands in the list of those to be flushed.
    pub(super) unflushed: bool,
    /// Whether the socket was full, so that epoll tells when it is not.
    pub(super) awaits_room: bool,
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// Not opened.
    #[default]
    Closed,
    /// TCP.
    Connecting,
    /// HTTP.
    Upgrading,
    /// The protocol's first messages.
    Greeting,
    /// A member.
    Joined,
    /// It was there once.
    Lost,
}

/// What became of what waited.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    All,
    Some,
}

impl Link {
    /// A connection to come, to a room.
    pub(super) fn to(room: u32) -> Self {
        Self { room, ..Self::default() }
    }

    /// Begins to connect. `source` is a number for the address on this machine to connect from, if there are several.
    pub(super) fn open(&mut self, address: SocketAddr, source: Option<u32>) -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = source {
            let own = Ipv4Addr::new(127, 0, 0, 1 + source as u8);
            socket.bind(&SocketAddr::new(IpAddr::V4(own), 0).into())?;
        }
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        self.socket = Some(socket.into());
        self.phase = Phase::Connecting;
        Ok(())
    }

    /// Reads what is there; `None` if nothing is. 0 is the end.
    #[inline]
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(socket) = &mut self.socket else { return Ok(None) };
        match socket.read(buffer) {
            Ok(count) => Ok(Some(count)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes what waits, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> io::Result<Flushed> {
        let Some(socket) = &mut self.socket else { return Ok(Flushed::All) };
        while self.written < self.out.len() {
            match socket.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Flushed::Some),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.written = 0;
        if self.out.capacity() > OUT_BYTES_MAX {
            self.out = Vec::new();
        } else {
            self.out.clear();
        }
        Ok(Flushed::All)
    }

    /// Whether so much already waits that nothing more should be sent.
    pub(super) fn is_full(&self) -> bool {
        self.out.len() - self.written > OUT_BYTES_MAX
    }

    /// Closes it for good.
    pub(super) fn lose(&mut self) {
        *self = Self { phase: Phase::Lost, room: self.room, unflushed: self.unflushed, ..Self::default() };
    }
}
