//! The client side of WebSocket, only as much as a load generator needs: frames are found where they lie in a buffer that all
//! connections share, and only a frame that was cut is copied.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::Outcome;
use crate::support::wire::{close_words, frame};

/// How long a server may take over anything that is expected of it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
const MASK: [u8; 4] = [0x6B, 0x1E, 0xD4, 0x92];

/// A connection.
pub(crate) struct Socket {
    stream: TcpStream,
    /// The beginning of a frame whose end has not come yet.
    carry: Vec<u8>,
    /// Frames to be written.
    out: Vec<u8>,
}

impl Socket {
    /// Connects to `path` (with its query) at `address`. It does not block from then on.
    pub(crate) fn connect(address: &str, path: &str) -> Outcome<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let end = loop {
            if let Some(at) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            let mut some = [0; 4_096];
            match stream.read(&mut some)? {
                0 => return Err("the server ended the connection during the handshake".into()),
                count => answer.extend_from_slice(&some[..count]),
            }
        };
        if !answer.starts_with(b"HTTP/1.1 101") {
            return Err(format!("not upgraded: {}", String::from_utf8_lossy(&answer)).into());
        }
        stream.set_nonblocking(true)?;
        Ok(Self { stream, carry: answer.split_off(end), out: Vec::new() })
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Adds a message to those that [`Socket::flush`] writes.
    pub(crate) fn push(&mut self, message: &[u8]) {
        push_frame(BINARY, message, &mut self.out);
    }

    /// Writes what waits, as far as the socket takes it.
    pub(crate) fn flush(&mut self) -> Outcome<()> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads once, and calls `each` with every whole message. Answers pings. True if anything came.
    pub(crate) fn read(&mut self, buffer: &mut [u8], mut each: impl FnMut(&[u8]) -> Outcome<()>) -> Outcome<bool> {
        let count = match self.stream.read(buffer) {
            Ok(0) => return Err("the server ended the connection".into()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.into()),
        };
        if self.carry.is_empty() {
            let whole = walk(&buffer[..count], &mut self.out, &mut each)?;
            self.carry.extend_from_slice(&buffer[whole..count]);
        } else {
            self.carry.extend_from_slice(&buffer[..count]);
            let whole = walk(&self.carry, &mut self.out, &mut each)?;
            self.carry.drain(..whole);
        }
        Ok(count > 0)
    }
}

/// Shows the whole messages and returns where the last frame ends.
fn walk(bytes: &[u8], out: &mut Vec<u8>, each: &mut impl FnMut(&[u8]) -> Outcome<()>) -> Outcome<usize> {
    let mut at = 0;
    while let Some((opcode, place)) = frame(&bytes[at..]) {
        let end = at + place.end;
        let payload = &bytes[at + place.start..end];
        match opcode {
            BINARY => each(payload)?,
            PING => push_frame(PONG, payload, out),
            CLOSE => return Err(format!("closed by the server: {}", close_words(payload)).into()),
            _ => return Err(format!("a frame with opcode {opcode}").into()),
        }
        at = end;
    }
    Ok(at)
}

fn push_frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            out.push(0x80 | 0x7E);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 0x7F);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}
