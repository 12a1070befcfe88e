//! Between the clients and the broker: passes every byte on, and shows what goes over the wire. The broker knows nothing of it, so that a
//! plugin is worked on with the broker as it is.

use std::borrow::Cow;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::tap::{Seen, Tap};
use super::terminal::Terminal;
use crate::telemetry;

/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 1_000;
/// Bytes passed on at once.
const PIECE_BYTES: usize = 16 << 10;
/// How long a connection may last after the broker ended it.
const LINGER: Duration = Duration::from_secs(2);
/// After a connection could not be taken.
const PAUSE: Duration = Duration::from_millis(100);
/// Characters of a message that are shown.
const SHOWN_CHARS_MAX: usize = 160;
/// Bytes of a binary message that are shown.
const SHOWN_BYTES_MAX: usize = 16;

/// Where clients connect.
pub(super) struct Wire {
    stop: oneshot::Sender<()>,
    accepting: JoinHandle<()>,
}

impl Wire {
    /// Passes what comes in on to the broker.
    pub(super) fn open(listener: TcpListener, broker: SocketAddr, terminal: Arc<Terminal>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let accepting = telemetry::spawn("wire", async move {
            // Nothing is ever sent: the last connection that ends closes it.
            let (alive, mut all_ended) = mpsc::channel::<Infallible>(1);
            tokio::select! {
                biased;
                _ = stopped => {}
                () = accept(&listener, broker, &terminal, &alive) => {}
            }
            drop((listener, alive));
            drop(tokio::time::timeout(LINGER, all_ended.recv()).await);
        });
        Self { stop, accepting }
    }

    /// Ends it, after the broker.
    pub(super) async fn end(self) {
        self.stop.send(()).ok();
        drop(self.accepting.await);
    }
}

async fn accept(
    listener: &TcpListener,
    broker: SocketAddr,
    terminal: &Arc<Terminal>,
    alive: &mpsc::Sender<Infallible>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut number = 0_u64;
    loop {
        let Ok(turn) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        number += 1;
        let (watched, alive) = (Watched::new(number, Arc::clone(terminal)), alive.clone());
        drop(telemetry::spawn("watched connection", async move {
            match TcpStream::connect(broker).await {
                // An end of one side is one of the other.
                Ok(broker) => drop(pass_on(client, broker, &watched).await),
                Err(error) => watched.show(&format!("the broker does not answer: {error}")),
            }
            watched.ended();
            drop((turn, alive));
        }));
    }
}

/// Passes both ways on, until both have ended.
async fn pass_on(client: TcpStream, broker: TcpStream, watched: &Watched) -> io::Result<()> {
    // What comes in pieces goes out in pieces.
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_broker, mut to_broker) = broker.into_split();
    let inward = pass(&mut from_client, &mut to_broker, |seen| watched.inward(seen), is_upgrade_asked);
    let outward = pass(&mut from_broker, &mut to_client, |seen| watched.outward(seen), is_upgrade_granted);
    tokio::pin!(inward, outward);
    tokio::select! {
        done = &mut outward => {
            done?;
            // The client may still be writing: closed at once, it might not read what it was sent last.
            tokio::time::timeout(LINGER, inward).await.unwrap_or(Ok(()))
        }
        done = &mut inward => {
            done?;
            outward.await
        }
    }
}

async fn pass(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    tell: impl Fn(Seen),
    is_upgrade: fn(&str) -> bool,
) -> io::Result<()> {
    let (mut piece, mut tap) = (vec![0; PIECE_BYTES], Tap::new());
    loop {
        let read = from.read(&mut piece).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        // Before it goes on, so that a message is shown before its answer.
        tap.read(&piece[..read], is_upgrade, &tell);
        to.write_all(&piece[..read]).await?;
    }
}

fn is_upgrade_asked(head: &str) -> bool {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.any(|(name, value)| name.eq_ignore_ascii_case("upgrade") && value.trim().eq_ignore_ascii_case("websocket"))
}

fn is_upgrade_granted(head: &str) -> bool {
    status(head) == "101"
}

/// The status of an answer.
fn status(head: &str) -> &str {
    head.split_ascii_whitespace().nth(1).unwrap_or_default()
}

/// A connection, as it is shown.
struct Watched {
    number: u64,
    terminal: Arc<Terminal>,
    asked: Mutex<Asked>,
}

/// What its client asked for.
#[derive(Default)]
struct Asked {
    method: String,
    path: String,
    user: String,
    is_upgraded: bool,
}

impl Watched {
    fn new(number: u64, terminal: Arc<Terminal>) -> Self {
        Self { number, terminal, asked: Mutex::default() }
    }

    fn inward(&self, seen: Seen) {
        match seen {
            Seen::Head(head) => {
                let mut words = head.split_ascii_whitespace();
                let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                // The rest of the query may hold what is secret.
                let (path, query) = target.split_once('?').unwrap_or((target, ""));
                let user = query.split('&').find_map(|pair| pair.strip_prefix("user=")).unwrap_or_default();
                let user = percent_decode_str(user).decode_utf8_lossy().into_owned();
                let (method, path) = (method.to_owned(), cut(path, SHOWN_CHARS_MAX).into_owned());
                *self.asked() = Asked { method, path, user, is_upgraded: false };
            }
            seen => self.show_message("in ", &seen),
        }
    }

    fn outward(&self, seen: Seen) {
        match seen {
            Seen::Head(head) => {
                let mut asked = self.asked();
                asked.is_upgraded = is_upgrade_granted(&head);
                let Asked { method, path, is_upgraded, .. } = &*asked;
                let words = match is_upgraded {
                    true => format!("connected to {path}"),
                    false => format!("{method} {path}: {}", status(&head)),
                };
                drop(asked);
                self.show(&words);
            }
            seen => self.show_message("out", &seen),
        }
    }

    fn show_message(&self, way: &str, seen: &Seen) {
        self.terminal.wire(|| format!("{} {way}  {}", self.name(), shown(seen)));
    }

    fn show(&self, words: &str) {
        self.terminal.wire(|| format!("{} {words}", self.name()));
    }

    fn ended(&self) {
        if self.asked().is_upgraded {
            self.show("disconnected");
        }
    }

    /// Its number, and who it says it is.
    fn name(&self) -> String {
        let asked = self.asked();
        if asked.user.is_empty() { format!("#{}", self.number) } else { format!("#{} {}", self.number, asked.user) }
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message on one line, abbreviated.
fn shown(seen: &Seen) -> String {
    match seen {
        Seen::Head(head) => cut(head, SHOWN_CHARS_MAX).replace(['\r', '\n'], " "),
        Seen::Message { is_text: true, begin, bytes } => {
            let text = String::from_utf8_lossy(begin);
            let cut = cut(&text, SHOWN_CHARS_MAX);
            let line = cut.replace(['\r', '\n'], " ");
            if (cut.len() as u64) < *bytes { format!("{line}… ({bytes} bytes)") } else { line }
        }
        Seen::Message { is_text: false, begin, bytes } => {
            let begin = &begin[..begin.len().min(SHOWN_BYTES_MAX)];
            let more = if (begin.len() as u64) < *bytes { "…" } else { "" };
            format!("{}{more} (binary, {bytes} bytes)", hex::encode(begin))
        }
        Seen::Close(None) => "close".to_owned(),
        Seen::Close(Some((code, reason))) => format!("close {code} {reason}").trim_end().to_owned(),
    }
}

/// So many characters.
fn cut(text: &str, chars_max: usize) -> Cow<'_, str> {
    text.char_indices().nth(chars_max).map_or(text.into(), |(end, _)| text[..end].into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_shown_on_one_short_line() {
        let text = |text: &str, bytes| Seen::Message { is_text: true, begin: text.into(), bytes };
        let long = "é".repeat(200);
        for (seen, line) in [
            (text("{\"a\":\n1}", 8), "{\"a\": 1}".to_owned()),
            (text(&long, 400), format!("{}… (400 bytes)", "é".repeat(SHOWN_CHARS_MAX))),
            (Seen::Message { is_text: false, begin: vec![1, 255], bytes: 2 }, "01ff (binary, 2 bytes)".to_owned()),
            (
                Seen::Message { is_text: false, begin: vec![0; 20], bytes: 20 },
                format!("{}… (binary, 20 bytes)", "0".repeat(32)),
            ),
            (Seen::Close(Some((4408, "slow".to_owned()))), "close 4408 slow".to_owned()),
            (Seen::Close(Some((1000, String::new()))), "close 1000".to_owned()),
        ] {
            assert_eq!(shown(&seen), line);
        }
    }

    #[test]
    fn upgrades_are_told_from_other_requests() {
        assert!(is_upgrade_asked("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket"));
        assert!(!is_upgrade_asked("GET /upgrade:websocket HTTP/1.1\r\nHost: x"));
        assert!(is_upgrade_granted("HTTP/1.1 101 Switching Protocols") && !is_upgrade_granted("HTTP/1.1 200 OK"));
    }
}
