//! A WebSocket client that expects things.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// How long anything that is expected may take. Generous: it only matters when a test fails.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A connected client.
pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    subprotocol: Option<String>,
}

impl Client {
    /// Connects; panics if it is refused.
    pub async fn connect(url: &str) -> Self {
        Self::try_connect(url, &[]).await.unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    /// Connects with extra headers.
    pub async fn try_connect(url: &str, headers: &[(&'static str, &str)]) -> Result<Self, Box<tungstenite::Error>> {
        let mut request = url.into_client_request().map_err(Box::new)?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        let connect = tokio_tungstenite::connect_async(request);
        let (socket, answer) =
            tokio::time::timeout(DEADLINE, connect).await.expect("an answer in time").map_err(Box::new)?;
        let subprotocol = answer.headers().get("sec-websocket-protocol");
        let subprotocol = subprotocol.and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Self { socket, subprotocol })
    }

    /// A client on a connection that is upgraded already.
    pub async fn over(stream: TcpStream) -> Self {
        let socket = WebSocketStream::from_raw_socket(MaybeTlsStream::Plain(stream), Role::Client, None).await;
        Self { socket, subprotocol: None }
    }

    /// The HTTP status an upgrade is refused with.
    pub async fn refused_status(url: &str, headers: &[(&'static str, &str)]) -> u16 {
        match Self::try_connect(url, headers).await {
            Err(error) => match *error {
                tungstenite::Error::Http(response) => response.status().as_u16(),
                error => panic!("{url}: {error}"),
            },
            Ok(_) => panic!("{url}: accepted"),
        }
    }

    /// The subprotocol the broker chose.
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// Sends JSON if the connection still takes it.
    pub async fn try_send(&mut self, message: Value) -> bool {
        let send = self.socket.send(Message::text(message.to_string()));
        tokio::time::timeout(DEADLINE, send).await.expect("room in time").is_ok()
    }

    /// Sends JSON.
    pub async fn send(&mut self, message: Value) {
        self.send_text(&message.to_string()).await;
    }

    /// Sends text.
    pub async fn send_text(&mut self, text: &str) {
        self.send_message(Message::text(text)).await;
    }

    /// Sends any message.
    pub async fn send_message(&mut self, message: Message) {
        tokio::time::timeout(DEADLINE, self.socket.send(message)).await.expect("room in time").expect("a connection");
    }

    /// The next text or binary message; panics at the end of the connection.
    pub async fn next(&mut self) -> Message {
        match self.next_or_close().await {
            Ok(message) => message,
            Err(close) => panic!("closed: {close:?}"),
        }
    }

    /// The next message, or how the connection ended.
    pub async fn next_or_close(&mut self) -> Result<Message, Option<CloseFrame>> {
        loop {
            match tokio::time::timeout(DEADLINE, self.socket.next()).await.expect("a message in time") {
                Some(Ok(Message::Close(frame))) => return Err(frame),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return Ok(message),
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// The next message, as JSON.
    pub async fn json(&mut self) -> Value {
        let message = self.next().await;
        let text = message.to_text().expect("text");
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The next message as text.
    pub async fn text(&mut self) -> String {
        self.next().await.to_text().expect("text").to_owned()
    }

    /// Reads on until a JSON message fits; returns it.
    pub async fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.json().await;
            if fits(&message) {
                return message;
            }
        }
    }

    /// The next JSON message of a `type`; others before it are passed over.
    pub async fn until_type(&mut self, kind: &str) -> Value {
        self.until(|message| message["type"] == kind).await
    }

    /// Code and reason of the close, after whatever messages come before it; `None` if it ended without.
    pub async fn closed(&mut self) -> Option<(u16, String)> {
        loop {
            if let Err(close) = self.next_or_close().await {
                return close.map(|close| (close.code.into(), close.reason.to_string()));
            }
        }
    }

    /// The code alone.
    pub async fn close_code(&mut self) -> Option<u16> {
        self.closed().await.map(|(code, _)| code)
    }

    /// Sends this so many times, or until the connection ends.
    pub async fn flood(&mut self, message: &Value, times: usize) {
        self.flood_text(&message.to_string(), times).await;
    }

    /// The same with text.
    pub async fn flood_text(&mut self, text: &str, times: usize) {
        for _ in 0..times {
            let sent = tokio::time::timeout(DEADLINE, self.socket.send(Message::text(text))).await;
            if sent.expect("room in time").is_err() {
                break;
            }
        }
    }

    /// Proves that nothing came in so far: sends a message whose answer is known, and checks that the next message is that
    /// answer.
    pub async fn nothing_before(&mut self, question: Value, is_answer: impl Fn(&Value) -> bool) {
        self.send(question).await;
        let answer = self.json().await;
        assert!(is_answer(&answer), "something came before: {answer}");
    }

    /// Closes cleanly.
    pub async fn close(mut self) {
        drop(tokio::time::timeout(DEADLINE, self.socket.close(None)).await);
    }

    /// The socket itself, for tests that write and read at the same time.
    pub fn into_socket(self) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
        self.socket
    }

    /// The raw socket, for tests of the wire.
    pub fn socket(&mut self) -> &mut WebSocketStream<MaybeTlsStream<TcpStream>> {
        &mut self.socket
    }
}
