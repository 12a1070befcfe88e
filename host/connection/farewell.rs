//! The end of a connection: its client gets what it is still owed, and no more time than that takes.

use std::net::Shutdown;
use std::task::Poll;
use std::time::Duration;

use socket2::SockRef;

use crate::connection::reader;
use crate::outbox::{Outbox, Progress};

/// How long a closed connection has to take what it is still owed; with [`LINGER`], less than a broker that stops waits.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long a closed connection is still read, so that the client gets the close frame before the socket ends.
const LINGER: Duration = Duration::from_secs(2);

/// Writes what is left, ends the sending half, and reads for a little while, so that the kernel does not throw the last
/// frames away because the client was still sending. Each has its time: a client that never reads cannot stay.
pub(super) async fn linger(outbox: &Outbox) {
    let write = std::future::poll_fn(|cx| match outbox.poll_progress(cx) {
        Progress::Done | Progress::Idle | Progress::Shed | Progress::Dismissed(_) => Poll::Ready(()),
        Progress::Blocked | Progress::Closing => Poll::Pending,
    });
    if tokio::time::timeout(FAREWELL, write).await.is_err()
        || outbox.closed_with().is_none()
        || SockRef::from(outbox.stream()).shutdown(Shutdown::Write).is_err()
    {
        return;
    }
    let read = async {
        loop {
            let ready = std::future::poll_fn(|cx| outbox.stream().poll_read_ready(cx)).await;
            let read = reader::read_socket(outbox.stream(), <[u8]>::len);
            match (ready, read) {
                (Ok(()), Ok(count)) if count > 0 => {}
                (Ok(()), Err(e)) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                _ => return,
            }
        }
    };
    drop(tokio::time::timeout(LINGER, read).await);
}
