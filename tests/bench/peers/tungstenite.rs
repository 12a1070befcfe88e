//! A room server on tokio-tungstenite, as one would write it: a task per connection, a bounded queue per member, a message
//! cloned (it shares its bytes) into each. A writer takes all that waits before it flushes. Speaks what `ws.mjs` speaks.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

/// Messages that may wait for a member; one who is slower is dropped.
const QUEUE: usize = 1_024;
/// By default each connection has a buffer of 128 KiB.
const READ_BUFFER_BYTES: usize = 1 << 10;

type Socket = WebSocketStream<TcpStream>;
type Room = Arc<Mutex<Vec<(u64, Sender<Message>)>>>;
type Rooms = Arc<Mutex<HashMap<String, Room>>>;

/// Serves until it is killed.
pub(crate) fn serve() -> io::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on http://{}", listener.local_addr()?);
        let rooms = Rooms::default();
        for id in 0.. {
            let (stream, _) = listener.accept().await?;
            let rooms = Arc::clone(&rooms);
            #[expect(clippy::disallowed_methods, reason = "this server's tasks are not the broker's")]
            tokio::spawn(async move {
                // However it ends, the connection is over.
                drop(connection(id, stream, rooms).await);
            });
        }
        Ok(())
    })
}

async fn connection(id: u64, stream: TcpStream, rooms: Rooms) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    let mut uri = None;
    #[expect(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
    let note = |request: &Request, response: Response| {
        uri = Some(request.uri().clone());
        Ok(response)
    };
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
    let socket = accept_hdr_async_with_config(stream, note, Some(config)).await?;
    let uri = uri.unwrap_or_default();
    if uri.path() == "/echo" {
        return echo(socket).await;
    }
    let name = uri.query().and_then(|query| query.strip_prefix("room=")).unwrap_or_default();
    let room = Arc::clone(lock(&rooms).entry(name.to_owned()).or_default());
    let (sender, queue) = channel(QUEUE);
    lock(&room).push((id, sender));
    let done = member(socket, queue, &room).await;
    lock(&room).retain(|(member, _)| *member != id);
    done
}

async fn member(mut socket: Socket, mut queue: Receiver<Message>, room: &Room) -> Result<(), Error> {
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(message)) if message.is_text() || message.is_binary() => {
                    lock(room).retain(|(_, sender)| sender.try_send(message.clone()).is_ok());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            message = queue.recv() => {
                let Some(message) = message else { return Ok(()) };
                socket.feed(message).await?;
                while let Ok(message) = queue.try_recv() {
                    socket.feed(message).await?;
                }
                socket.flush().await?;
            }
        }
    }
}

async fn echo(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
