//! A terminal client of the community chat, and a guide to its protocol.
//!
//! ```text
//! cargo run --release --example chat -- --user ann
//! ```
//!
//! Without `--token` it asks the broker for one, which a broker in development gives to clients on its own machine. After a
//! lost connection it comes back with the id of the last message it saw, and gets what it missed.

use std::collections::HashMap;
use std::io::BufRead;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri};
use tokio_tungstenite::tungstenite::{Error, Message};

const HELP: &str = "/edit [ID] TEXT   change your last message, or the one with this id\n\
                    /delete [ID]      delete it\n\
                    /join ROOM        go to another room\n\
                    /who              list who is here\n\
                    /quit             leave; so does Ctrl-D";
/// The first and the longest pause before connecting again.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// Lines typed but not yet sent; typing waits beyond that.
const LINES_MAX: usize = 64;
/// Largest answer to the request for a token, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Chats in a terminal.
#[derive(Parser)]
struct Args {
    /// The chat's endpoint
    #[arg(long, default_value = "ws://127.0.0.1:3000/api/community/ws")]
    url: Uri,
    /// Your name, if the token does not say it
    #[arg(long, default_value = "guest")]
    user: String,
    /// The room to start in
    #[arg(long, default_value = "lobby")]
    room: String,
    /// A token, from `hotbay token --user NAME --key chat` or your own sign-in
    #[arg(long)]
    token: Option<String>,
}

/// Why a connection ended.
enum End {
    /// The user left.
    Quit,
    /// Trying again would not help.
    Refused(String),
    /// The connection is gone. `was_open` if it got as far as the room.
    Lost { why: String, was_open: bool },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let mut lines = typed_lines();
    let mut chat = Chat {
        channel: channel_of(&args.room),
        last: HashMap::new(),
        mine: None,
        online: Vec::new(),
        typing: Vec::new(),
    };
    let mut pause = RETRY.0;
    loop {
        let why = match chat.run(&args, &mut lines).await {
            End::Quit => return ExitCode::SUCCESS,
            End::Refused(why) => {
                eprintln!("{why}");
                return ExitCode::FAILURE;
            }
            End::Lost { why, was_open } => {
                if was_open {
                    pause = RETRY.0;
                }
                why
            }
        };
        // A random part of a growing pause, so that clients which lost their broker together do not come back together.
        let wait = pause.mul_f64(rand::random_range(0.2..1.0));
        println!("* {why}; trying again in {:.1} s", wait.as_secs_f64());
        tokio::time::sleep(wait).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

/// Lines of stdin, read by a thread of their own; a blocked read then keeps nothing else from ending.
fn typed_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn channel_of(room: &str) -> String {
    if room.contains(':') { room.to_owned() } else { format!("room:{room}") }
}

/// What outlives a connection.
struct Chat {
    /// The room we are in.
    channel: String,
    /// The last message seen, by channel.
    last: HashMap<String, String>,
    /// My last message in this room.
    mine: Option<String>,
    /// Who is here.
    online: Vec<String>,
    /// Who is typing.
    typing: Vec<String>,
}

impl Chat {
    /// One connection, from its token to its end.
    async fn run(&mut self, args: &Args, lines: &mut mpsc::Receiver<String>) -> End {
        let lost = |why: String| End::Lost { why, was_open: false };
        let (token, user) = match &args.token {
            Some(token) => (token.clone(), user_of(token).unwrap_or_else(|| args.user.clone())),
            None => match demo_token(&args.url, &args.user).await {
                Ok(Ok(token)) => (token, args.user.clone()),
                Ok(Err(refused)) => return End::Refused(format!("no token: {refused}; give one with --token")),
                Err(error) => return lost(format!("no broker at {}: {error}", args.url)),
            },
        };
        let mut request = match args.url.clone().into_client_request() {
            Ok(request) => request,
            Err(error) => return End::Refused(format!("--url {}: {error}", args.url)),
        };
        let Ok(bearer) = HeaderValue::try_from(format!("Bearer {token}")) else {
            return End::Refused("--token: it has characters that no token has".to_owned());
        };
        request.headers_mut().insert("authorization", bearer);
        let mut socket = match tokio_tungstenite::connect_async(request).await {
            Ok((socket, _)) => socket,
            // 4xx: the token is not good enough, or the URL is wrong. The answer says which.
            Err(Error::Http(response)) if response.status().is_client_error() => {
                let body = response.body().as_deref().unwrap_or_default();
                let why: Value = serde_json::from_slice(body).unwrap_or_default();
                return End::Refused(format!(
                    "refused ({}): {}",
                    response.status(),
                    why["error"].as_str().unwrap_or("")
                ));
            }
            Err(Error::Url(error)) => return End::Refused(format!("--url {}: {error}", args.url)),
            Err(error) => return lost(format!("no connection to {}: {error}", args.url)),
        };

        let mut was_open = false;
        let mut outbox = vec![self.subscribe()];
        loop {
            for frame in outbox.drain(..) {
                if let Err(error) = socket.send(Message::text(frame.to_string())).await {
                    return End::Lost { why: format!("connection lost: {error}"), was_open };
                }
            }
            tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        let Ok(frame) = serde_json::from_str::<Value>(&text) else { continue };
                        was_open |= frame["type"] == "SUBSCRIBED";
                        outbox.extend(self.show(&frame, &user));
                    }
                    // 4401 asks for a new token, 4500 and above not to come back; anything else is worth another try.
                    Some(Ok(Message::Close(frame))) => {
                        let (code, why) = frame.map_or((1005, String::new()), |frame| (u16::from(frame.code), frame.reason.to_string()));
                        if (4500..5000).contains(&code) || code == 1008 || (code == 4401 && args.token.is_some()) {
                            return End::Refused(format!("closed by the broker: {why} ({code})"));
                        }
                        return End::Lost { why: format!("closed by the broker: {why} ({code})"), was_open };
                    }
                    // Pings are answered by the library.
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return End::Lost { why: format!("connection lost: {error}"), was_open },
                    None => return End::Lost { why: "connection lost".to_owned(), was_open },
                },
                line = lines.recv() => match line.as_deref().map(str::trim) {
                    None | Some("/quit") => {
                        socket.close(None).await.ok();
                        return End::Quit;
                    }
                    Some(line) => outbox.extend(self.typed(line)),
                },
            }
        }
    }

    /// Joins the room; after a lost connection with the last message seen, so that the answer has what was missed.
    fn subscribe(&self) -> Value {
        let payload = self.last.get(&self.channel).map_or(json!({}), |last| json!({ "since": last }));
        json!({ "type": "SUBSCRIBE", "channel": self.channel, "payload": payload })
    }

    /// Prints what came in. Answers what must be sent because of it.
    fn show(&mut self, frame: &Value, user: &str) -> Option<Value> {
        let (kind, payload) = (frame["type"].as_str().unwrap_or_default(), &frame["payload"]);
        if kind == "ERROR" {
            println!("! {}", text(&payload["message"]));
            return None;
        }
        if frame["channel"] != self.channel.as_str() {
            return None;
        }
        let who = text(&payload["userId"]);
        match kind {
            "SUBSCRIBED" => {
                self.online = list(&payload["online"]).iter().map(text).collect();
                // On a first visit the newest messages; after that everything since the last one seen.
                let messages = if payload["missed"].is_array() { &payload["missed"] } else { &payload["recent"] };
                println!("* {}: {} here", self.channel, payload["onlineCount"]);
                for message in list(messages) {
                    self.message(message, user);
                }
                if payload["gap"] == true {
                    println!("* some messages from while you were away are no longer kept");
                }
                // A long absence comes in parts.
                if payload["more"] == true {
                    self.last.insert(self.channel.clone(), text(&payload["next"]));
                    return Some(self.subscribe());
                }
            }
            "CHAT_MESSAGE" => self.message(payload, user),
            "MESSAGE_EDIT" => println!("  {who} edited {}: {}", text(&payload["id"]), text(&payload["content"])),
            "MESSAGE_DELETE" => println!("  {} was deleted", text(&payload["id"])),
            "TYPING" if payload["isTyping"] != true => self.typing.retain(|other| *other != who),
            // Repeated while it lasts, and told once.
            "TYPING" if self.typing.contains(&who) => {}
            "TYPING" => {
                println!("  {who} is typing…");
                self.typing.push(who);
            }
            "USER_JOINED" => {
                println!("* {who} joined ({} here)", payload["online"]);
                self.online.push(who);
            }
            "USER_LEFT" => {
                println!("* {who} left ({} here)", payload["online"]);
                self.online.retain(|other| *other != who);
            }
            _ => {}
        }
        None
    }

    fn message(&mut self, message: &Value, user: &str) {
        let (id, who) = (text(&message["id"]), text(&message["userId"]));
        println!("{id:>6}  {who}: {}", text(&message["content"]));
        self.typing.retain(|other| *other != who);
        if who == user {
            self.mine = Some(id.clone());
        }
        self.last.insert(self.channel.clone(), id);
    }

    /// What a typed line asks for.
    fn typed(&mut self, line: &str) -> Vec<Value> {
        let frame =
            |kind: &str, channel: &str, payload: Value| json!({ "type": kind, "channel": channel, "payload": payload });
        let (command, rest) = line.split_once(' ').map_or((line, ""), |(command, rest)| (command, rest.trim()));
        // `/edit 12 text` names a message; `/edit text` means my last one.
        let numbered = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let (id, content) = match rest.split_once(' ').unwrap_or((rest, "")) {
            (id, content) if numbered(id) => (Some(id.to_owned()), content),
            _ => (self.mine.clone(), rest),
        };
        match (command, id) {
            ("", _) => Vec::new(),
            ("/edit" | "/delete", None) => {
                complain("you have not written anything here yet: name a message by its number")
            }
            ("/edit", Some(_)) if content.is_empty() => complain("/edit [ID] TEXT"),
            ("/edit", Some(id)) => vec![frame("MESSAGE_EDIT", &self.channel, json!({ "id": id, "content": content }))],
            ("/delete", Some(id)) => vec![frame("MESSAGE_DELETE", &self.channel, json!({ "id": id }))],
            ("/join", _) if rest.is_empty() => complain("/join ROOM"),
            ("/join", _) => {
                let old = std::mem::replace(&mut self.channel, channel_of(rest));
                self.mine = None;
                vec![frame("UNSUBSCRIBE", &old, json!({})), self.subscribe()]
            }
            ("/who", _) => {
                println!("* here: {}", self.online.join(", "));
                Vec::new()
            }
            (command, _) if command.starts_with('/') => complain(HELP),
            _ => vec![frame("CHAT_MESSAGE", &self.channel, json!({ "content": line }))],
        }
    }
}

fn complain(what: &str) -> Vec<Value> {
    println!("{what}");
    Vec::new()
}

/// Text of others, without the control characters that would move the cursor or change colours.
fn text(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    text.chars().filter(|c| !c.is_control() || *c == '\n').collect::<String>().replace('\n', "\n        ")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The user a token names. The broker verifies it; here it only says which messages are ours.
fn user_of(token: &str) -> Option<String> {
    use base64::Engine as _;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    ["sub", "id", "userId"].iter().find_map(|name| claims[*name].as_str()).map(str::to_owned)
}

/// Asks a broker in development for a token: plain HTTP, small enough to write by hand. The inner error is its refusal.
async fn demo_token(url: &Uri, user: &str) -> std::io::Result<Result<String, String>> {
    let address = format!("{}:{}", url.host().unwrap_or_default(), url.port_u16().unwrap_or(80));
    let user = percent_encoding::utf8_percent_encode(user, percent_encoding::NON_ALPHANUMERIC);
    let mut stream = TcpStream::connect(&address).await?;
    let request =
        format!("GET /demo/token?key=chat&user={user} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let refused = || body["error"].as_str().unwrap_or("the broker gives out none").to_owned();
    Ok(body["token"].as_str().map(str::to_owned).ok_or_else(refused))
}
