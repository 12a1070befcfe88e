//! From bytes to messages: tungstenite's protocol machine, fed from one scratch buffer per thread, so that an idle
//! connection holds next to no buffer.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;

use bytes::Bytes;
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tungstenite::Message;
use tungstenite::error::{CapacityError, Error, ProtocolError};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

use crate::connection::inflation::Inflation;
use crate::connection::scan::Scan;
use crate::limits::MountLimits;
use crate::protocol::close::Close;
use crate::protocol::deflate::SCRATCH_BYTES_MAX;
use crate::protocol::frame::Payload;

const SCRATCH_BYTES: usize = 64 << 10;
/// What the protocol machine keeps for a connection that is between messages.
const READ_BUFFER_BYTES: usize = 128;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
    /// What a compressed read becomes.
    static PLAIN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static MESSAGES: RefCell<VecDeque<Inbound>> = const { RefCell::new(VecDeque::new()) };
}

/// Reads what a socket has, at most this thread's buffer full, and hands it on; nothing at its end.
///
/// # Errors
/// `WouldBlock` if there is nothing.
pub(super) fn read_socket<T>(stream: &TcpStream, work: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut read = None;
        let result = stream.try_io(Interest::READABLE, || {
            let (count, _) = rustix::net::recv(stream, &mut **scratch, RecvFlags::empty())?;
            read = Some(count);
            // A buffer that is not full means that the socket is empty now, and epoll reports what comes next. So tokio forgets
            // that it is readable, unless it heard otherwise meanwhile, and need not ask the socket to find that out.
            let drained = 0 < count && count < scratch.len();
            if drained { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match read {
            Some(count) => Ok(work(&scratch[..count])),
            None => Err(result.err().unwrap_or_else(|| io::ErrorKind::WouldBlock.into())),
        }
    })
}

/// Lends this thread's queue for the messages of one read; it is empty at first.
pub(super) fn with_messages<T>(work: impl FnOnce(&mut VecDeque<Inbound>) -> T) -> T {
    MESSAGES.with_borrow_mut(|messages| {
        // A panic in an earlier read must not hand one client's messages to the next.
        messages.clear();
        work(messages)
    })
}

/// What came in.
pub(super) enum Inbound {
    /// A whole message.
    Message(Payload),
    /// The same, and it was counted and is within the client's rates.
    Admitted(Payload),
    /// The same, and it is over them.
    OverRate(Payload),
    /// The client closed, or broke the protocol: answer with this code and end.
    Close(Close),
}

/// Reads one connection's frames.
pub(super) struct Reader {
    machine: WebSocketContext,
    scan: Scan,
    /// Where the client may compress.
    inflation: Option<Box<Inflation>>,
    ended: bool,
}

impl Reader {
    pub(super) fn new(limits: &MountLimits, compressed: bool) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(64 << 10)
            .max_message_size(Some(limits.message_bytes_max))
            .max_frame_size(Some(limits.message_bytes_max));
        let machine = WebSocketContext::new(Role::Server, Some(config));
        let inflation = compressed.then(|| Box::new(Inflation::new(limits)));
        Self { machine, scan: Scan::new(limits), inflation, ended: false }
    }

    /// Takes bytes in and puts out the messages they complete; returns what the protocol itself answers (pongs).
    pub(super) fn read(&mut self, bytes: &[u8], into: &mut VecDeque<Inbound>) -> Bytes {
        if self.ended {
            return Bytes::new();
        }
        let Some(mut inflation) = self.inflation.take() else {
            let excess = self.scan.follow(bytes).err();
            let within = excess.map_or(bytes, |excess| &bytes[..excess.before]);
            return self.feed(within, excess.map(|excess| excess.close), into);
        };
        PLAIN.with_borrow_mut(|plain| {
            plain.clear();
            let close = inflation.follow(&mut self.scan, bytes, plain).err();
            self.inflation = Some(inflation);
            let replies = self.feed(plain, close, into);
            plain.shrink_to(SCRATCH_BYTES_MAX);
            replies
        })
    }

    /// Hands bytes to the protocol machine, and ends after them if there is a reason.
    fn feed(&mut self, bytes: &[u8], close: Option<Close>, into: &mut VecDeque<Inbound>) -> Bytes {
        let mut wire = Wire { input: bytes, output: Vec::new() };
        loop {
            match self.step(&mut wire, into) {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(None) => break,
                ControlFlow::Break(Some(close)) => {
                    self.end(close, into);
                    break;
                }
            }
        }
        if !self.ended && self.machine.flush(&mut wire).is_err() {
            self.end(Close::NORMAL, into);
        }
        if !self.ended
            && let Some(close) = close
        {
            self.end(close, into);
        }
        wire.output.into()
    }

    /// One message. Breaks when the bytes are used up, and with a close at the end of the connection.
    fn step(&mut self, wire: &mut Wire<'_>, into: &mut VecDeque<Inbound>) -> ControlFlow<Option<Close>> {
        match self.machine.read(wire) {
            Ok(Message::Text(text)) => into.push_back(Inbound::Message(Payload::Text(text.into()))),
            Ok(Message::Binary(bytes)) => into.push_back(Inbound::Message(Payload::Binary(bytes))),
            Ok(Message::Close(frame)) => {
                let code = frame.map_or(1000, |frame| frame.code.into());
                return ControlFlow::Break(Some(Close { code, reason: "" }));
            }
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return ControlFlow::Break(None),
            Err(error) => return ControlFlow::Break(Some(close_of(&error))),
        }
        ControlFlow::Continue(())
    }

    fn end(&mut self, close: Close, into: &mut VecDeque<Inbound>) {
        self.ended = true;
        self.inflation = None;
        into.push_back(Inbound::Close(close));
    }

    /// Whether there is something to read before the socket is.
    pub(super) fn has_left(&self) -> bool {
        self.inflation.as_ref().is_some_and(|inflation| inflation.has_left())
    }

    /// What was read and had to wait; it is to be read again.
    pub(super) fn take_left(&mut self) -> Bytes {
        self.inflation.as_mut().map_or_else(Bytes::new, |inflation| inflation.take_left())
    }

    /// Whether a message has begun and not ended.
    pub(super) fn is_in_message(&self) -> bool {
        self.scan.is_in_message()
    }
}

/// The close code for what a client did wrong (RFC 6455 §7.4.1).
fn close_of(error: &Error) -> Close {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. } | CapacityError::TooManyHeaders) => Close::TOO_BIG,
        Error::Utf8(_) => Close { code: 1007, reason: "not UTF-8" },
        Error::Protocol(ProtocolError::UnmaskedFrameFromClient) => Close { code: 1002, reason: "unmasked frame" },
        Error::Protocol(_) => Close { code: 1002, reason: "protocol error" },
        _ => Close::NORMAL,
    }
}

/// Bytes in, bytes out; at the end of the input the machine is told to come back later.
struct Wire<'a> {
    input: &'a [u8],
    output: Vec<u8>,
}

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(buffer)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
