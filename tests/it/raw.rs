//! A socket without a WebSocket library, for clients that do wrong what a library would do right.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::broker::Broker;
use crate::support::client::DEADLINE;

/// Opcodes with the bit that says that the message ends here (RFC 6455 §5.2).
pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8A;

/// A TCP connection to the broker.
pub(crate) struct Raw {
    stream: TcpStream,
    input: Vec<u8>,
}

/// The request of a handshake; `extra` are whole header lines.
pub(crate) fn handshake(path: &str, extra: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
    )
}

/// The header of a masked frame with a payload of this length.
pub(crate) fn header(first: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(0x80 | length as u8),
        126..=0xFFFF => {
            bytes.push(0xFE);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0xFF);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    // A mask of zeros leaves the payload as it is.
    bytes.extend([0; 4]);
    bytes
}

/// A masked frame.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [header(first, payload.len()), payload.to_vec()].concat()
}

impl Raw {
    /// Connects and says nothing.
    pub(crate) async fn open(broker: &Broker) -> Self {
        let stream = TcpStream::connect(broker.address()).await.expect("a connection");
        Self { stream, input: Vec::new() }
    }

    /// Connects with a small receive buffer, so that who does not read is soon a slow reader.
    pub(crate) async fn open_narrow(broker: &Broker) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(16 << 10).expect("a small buffer");
        let stream = socket.connect(broker.address().parse().expect("an address")).await.expect("a connection");
        Self { stream, input: Vec::new() }
    }

    /// Connects to `/ws` of [`Setup::fixture`](crate::support::broker::Setup::fixture).
    pub(crate) async fn join(broker: &Broker, channel: &str) -> Self {
        let mut raw = Self::open(broker).await;
        raw.upgrade(&fixture_path(broker, "raw", channel)).await;
        raw
    }

    /// Asks for an upgrade that is granted.
    pub(crate) async fn upgrade(&mut self, path: &str) {
        self.write(handshake(path, "").as_bytes()).await;
        let head = self.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }

    /// Writes; panics if the broker has ended the connection.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        assert!(self.try_write(bytes).await, "the connection has ended");
    }

    /// Writes; false if the broker has ended the connection.
    pub(crate) async fn try_write(&mut self, bytes: &[u8]) -> bool {
        timeout(DEADLINE, self.stream.write_all(bytes)).await.expect("room in time").is_ok()
    }

    /// Sends a text message.
    pub(crate) async fn say(&mut self, text: &str) {
        self.write(&frame(TEXT, text.as_bytes())).await;
    }

    /// Reads more; false at the end of the connection, however it ends.
    async fn read(&mut self) -> bool {
        let read = timeout(DEADLINE, self.stream.read_buf(&mut self.input)).await.expect("something in time");
        read.is_ok_and(|count| count > 0)
    }

    /// What there is to read without waiting longer than a moment. `None` at the end of the connection.
    pub(crate) async fn poll(&mut self) -> Option<usize> {
        let moment = std::time::Duration::from_millis(5);
        match timeout(moment, self.stream.read_buf(&mut self.input)).await {
            Err(_) => Some(0),
            Ok(Ok(0) | Err(_)) => None,
            Ok(Ok(count)) => Some(count),
        }
    }

    /// The head of an HTTP answer; empty if the connection ends without one.
    pub(crate) async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.input.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = self.input.drain(..end + 4).collect();
                return String::from_utf8(head).expect("text");
            }
            if !self.read().await {
                return String::new();
            }
        }
    }

    /// The HTTP status of the answer; 0 if the connection ends without one.
    pub(crate) async fn status(&mut self) -> u16 {
        let head = self.head().await;
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// The next frame, as its first byte and payload; `None` at the end of the connection.
    pub(crate) async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((first, payload, length)) = parse(&self.input) {
                self.input.drain(..length);
                return Some((first, payload));
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// The next text; control frames before it are passed over.
    pub(crate) async fn text(&mut self) -> String {
        loop {
            match self.frame().await {
                Some((TEXT, payload)) => return String::from_utf8(payload).expect("UTF-8"),
                Some((PING | PONG, _)) => {}
                other => panic!("no text but {other:?}"),
            }
        }
    }

    /// The close code, after whatever comes before it; `None` if the connection ends without a close frame, 1005 (RFC 6455
    /// §7.1.5) if there is no code in it.
    pub(crate) async fn close_code(&mut self) -> Option<u16> {
        loop {
            let (first, payload) = self.frame().await?;
            if first == CLOSE {
                return Some(payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code)));
            }
        }
    }
}

/// The path of a connection to the fixture.
pub(crate) fn fixture_path(broker: &Broker, user: &str, channel: &str) -> String {
    format!("/ws?channel={channel}&token={}", broker.token(user, serde_json::json!({})))
}

/// A whole frame of the broker, which masks nothing: first byte, payload, bytes taken.
fn parse(input: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let (&first, &second) = (input.first()?, input.get(1)?);
    assert_eq!(second & 0x80, 0, "a server must not mask");
    let (from, length) = match second {
        126 => (4, usize::from(u16::from_be_bytes(*input.get(2..)?.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*input.get(2..)?.first_chunk()?) as usize),
        short => (2, usize::from(short)),
    };
    Some((first, input.get(from..from + length)?.to_vec(), from + length))
}
