//! The client side of WebSocket, only as much as a load generator needs: one write per message, frames found where they lie
//! in a shared buffer, no task and no timer of its own. It must cost far less than the broker's side.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use super::wire::{close_words, frame};
use crate::Outcome;

/// How long anything that is expected may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 << 10]);
}

/// The sending half.
#[derive(Clone)]
pub(crate) struct Sender(Arc<TcpStream>);

/// The receiving half.
pub(crate) struct Reader {
    stream: Arc<TcpStream>,
    /// The beginning of a frame whose end has not come yet.
    carry: Vec<u8>,
}

/// Connects to `path` (with its query) at `address`.
pub(crate) async fn connect(address: &str, path: &str) -> Outcome<(Sender, Reader)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let stream = Arc::new(stream);
    write(&stream, request.as_bytes())?;
    let mut answer = Vec::new();
    let end = loop {
        if let Some(at) = find(&answer, b"\r\n\r\n") {
            break at + 4;
        }
        if read(&stream, |bytes| answer.extend_from_slice(bytes)).await? == 0 {
            return Err("the broker ended the connection during the handshake".into());
        }
    };
    if !answer.starts_with(b"HTTP/1.1 101") {
        return Err(format!("not upgraded: {}", String::from_utf8_lossy(&answer)).into());
    }
    let reader = Reader { stream: Arc::clone(&stream), carry: answer.split_off(end) };
    Ok((Sender(stream), reader))
}

impl Sender {
    /// Sends a text message with one write. Fails if the socket is full: the scenarios never have so much under way.
    pub(crate) fn send(&self, text: &str) -> Outcome<()> {
        let payload = text.as_bytes();
        let mut frame = Vec::with_capacity(payload.len() + 14);
        frame.push(0x81);
        match u16::try_from(payload.len()) {
            Ok(len) if len < 126 => frame.push(0x80 | len as u8),
            Ok(len) => {
                frame.push(0x80 | 0x7E);
                frame.extend(len.to_be_bytes());
            }
            Err(_) => return Err("a message for the bench is short".into()),
        }
        frame.extend(MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        write(&self.0, &frame)
    }
}

impl Reader {
    /// Waits for bytes and shows each whole text message in them. Cancel safe. Answers pings.
    pub(crate) async fn messages(&mut self, mut each: impl FnMut(&[u8])) -> Outcome<()> {
        let Self { stream, carry } = self;
        let mut result = Ok(());
        if !carry.is_empty() {
            let whole = show(stream, carry, &mut each)?;
            if whole > 0 {
                carry.drain(..whole);
                return Ok(());
            }
        }
        let count = read(stream, |bytes| {
            let from_carry = !carry.is_empty();
            if from_carry {
                carry.extend_from_slice(bytes);
            }
            let shown = show(stream, if from_carry { carry } else { bytes }, &mut each);
            match shown {
                Ok(whole) if from_carry => drop(carry.drain(..whole)),
                Ok(whole) => carry.extend_from_slice(&bytes[whole..]),
                Err(error) => result = Err(error),
            }
        })
        .await?;
        if count == 0 { Err("the broker ended the connection".into()) } else { result }
    }

    /// Reads on until a message fits, within [`DEADLINE`].
    pub(crate) async fn until(&mut self, fits: impl Fn(&[u8]) -> bool) -> Outcome<()> {
        let mut found = false;
        let reading = async {
            while !found {
                self.messages(|message| found |= fits(message)).await?;
            }
            Ok(())
        };
        tokio::time::timeout(DEADLINE, reading).await.map_err(|_| "an expected message did not come")?
    }

    /// Throws away what has come in by now.
    pub(crate) async fn drain(&mut self) -> Outcome<()> {
        let nothing = Duration::from_millis(1);
        while let Ok(read) = tokio::time::timeout(nothing, self.messages(|_| {})).await {
            read?;
        }
        Ok(())
    }
}

/// Shows the whole frames and returns where the last one ends.
fn show(stream: &TcpStream, bytes: &[u8], each: &mut impl FnMut(&[u8])) -> Outcome<usize> {
    let mut at = 0;
    while let Some((opcode, payload)) = frame(&bytes[at..]) {
        let end = at + payload.end;
        let payload = &bytes[at + payload.start..end];
        match opcode {
            0x8 => return Err(format!("closed by the broker: {}", close_words(payload)).into()),
            0x9 => write(stream, &[0x8A, 0x80, 0, 0, 0, 0])?,
            _ => each(payload),
        }
        at = end;
    }
    Ok(at)
}

async fn read(stream: &TcpStream, use_bytes: impl FnOnce(&[u8])) -> Outcome<usize> {
    loop {
        stream.readable().await?;
        let read = SCRATCH.with_borrow_mut(|scratch| stream.try_read(scratch));
        match read {
            Ok(count) => {
                SCRATCH.with_borrow(|scratch| use_bytes(&scratch[..count]));
                return Ok(count);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn write(stream: &TcpStream, bytes: &[u8]) -> Outcome<()> {
    let written = stream.try_write(bytes)?;
    if written < bytes.len() { Err("a socket is full".into()) } else { Ok(()) }
}

/// Where `part` begins in `bytes`.
pub(crate) fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
