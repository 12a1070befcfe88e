//! Accepts sockets and holds them to the node's limits, before and after the upgrade.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::limits::{HTTP_HEADER_BYTES_MAX, NodeLimits};
use crate::quota::Slot;
use crate::telemetry::{self, now_ms};

/// The other end of a request's socket: a client, or the last proxy before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// Accepts until the node stops. Sockets over a limit are closed at once.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: NodeLimits,
    census: Arc<Census>,
    mut stop: watch::Receiver<bool>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.http_header_ms_max))
        .max_buf_size(HTTP_HEADER_BYTES_MAX)
        .half_close(false);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: closing some is the only remedy, and takes a moment.
                tracing::warn!(%error, "a connection could not be accepted");
                metrics::counter!("hotbay_accept_errors_total").increment(1);
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(socket) = census.admit(stream, address, &limits) else {
            metrics::counter!("hotbay_connections_refused_total").increment(1);
            continue;
        };
        let router = router.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(address.ip()));
            router.clone().oneshot(request)
        });
        let connection = http.serve_connection(TokioIo::new(socket), service).with_upgrades();
        let mut stop = stop.clone();
        telemetry::spawn("http", async move {
            tokio::pin!(connection);
            let stopped = tokio::select! {
                biased;
                // Errors are the client's: it went away, or sent no HTTP.
                _ = connection.as_mut() => false,
                _ = stop.wait_for(|stop| *stop) => true,
            };
            if stopped {
                connection.as_mut().graceful_shutdown();
                drop(connection.await);
            }
        });
    }
}

/// Counts sockets by address.
#[derive(Default)]
pub struct Census {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    sockets: usize,
    addresses: HashMap<IpAddr, usize>,
}

impl Census {
    fn admit(self: &Arc<Self>, stream: TcpStream, address: SocketAddr, limits: &NodeLimits) -> Option<Socket> {
        let address = address.ip();
        {
            let mut counts = self.lock();
            if counts.sockets >= limits.connections_max {
                return None;
            }
            let from_address = counts.addresses.entry(address).or_default();
            if *from_address >= limits.connections_per_address_max {
                return None;
            }
            *from_address += 1;
            counts.sockets += 1;
        }
        metrics::gauge!("hotbay_sockets").increment(1.0);
        // Without it small frames wait for the client's acknowledgement (Nagle's algorithm).
        drop(stream.set_nodelay(true));
        let slot = SocketSlot { census: Arc::clone(self), address };
        Some(Socket { stream, slot })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection, counted until this is dropped.
pub(super) struct ConnectionSlot {
    /// On its tenant's account.
    pub(super) tenant: Slot,
    since_ms: u64,
}

impl ConnectionSlot {
    pub(super) fn new(tenant: Slot) -> Self {
        metrics::gauge!("hotbay_connections").increment(1.0);
        Self { tenant, since_ms: now_ms() }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        metrics::gauge!("hotbay_connections").decrement(1.0);
        let lasted_ms = now_ms().saturating_sub(self.since_ms);
        metrics::histogram!("hotbay_connection_seconds").record(lasted_ms as f64 / 1_000.0);
    }
}

/// A socket, counted until this is dropped.
pub(super) struct SocketSlot {
    census: Arc<Census>,
    address: IpAddr,
}

impl Drop for SocketSlot {
    fn drop(&mut self) {
        let mut counts = self.census.lock();
        counts.sockets -= 1;
        if let Some(count) = counts.addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.addresses.remove(&self.address);
            }
        }
        metrics::gauge!("hotbay_sockets").decrement(1.0);
    }
}

/// A socket while HTTP is spoken on it.
pub(super) struct Socket {
    stream: TcpStream,
    slot: SocketSlot,
}

impl Socket {
    /// The raw socket, and what counts it.
    pub(super) fn into_parts(self) -> (TcpStream, SocketSlot) {
        (self.stream, self.slot)
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
