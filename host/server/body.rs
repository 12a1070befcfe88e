//! Bodies of requests: read within bounds of size, of time, and of what all of them together may take, so that strangers who send
//! slowly cannot fill the memory.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::http::{Method, StatusCode};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::MountLimits;

/// What all bodies together may take, one permit for each byte.
pub struct Bodies {
    room: Arc<Semaphore>,
    bytes_max: usize,
}

/// The room a body takes, until it is dropped.
pub(super) struct Room(#[expect(dead_code, reason = "held, not used")] Option<OwnedSemaphorePermit>);

impl Bodies {
    /// Room for so many bytes (`request_bodies_bytes_max`).
    pub fn new(bytes_max: usize) -> Self {
        let bytes_max = bytes_max.min(u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        Self { room: Arc::new(Semaphore::new(bytes_max)), bytes_max }
    }

    /// Reads a body; its room is to be held until something else counts its bytes.
    ///
    /// # Errors
    /// Status and words of the refusal, if it is over a bound, breaks off, or comes with a method that has none.
    pub(super) async fn read(
        &self,
        method: &Method,
        body: Body,
        limits: &MountLimits,
    ) -> Result<(Bytes, Room), (StatusCode, String)> {
        let announced = body.size_hint().upper().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        if announced == Some(0) {
            return Ok((Bytes::new(), Room(None)));
        }
        // RFC 9110, section 9.3.1: content of a GET has no meaning.
        if *method == Method::GET || *method == Method::HEAD {
            return Err((StatusCode::BAD_REQUEST, format!("a {method} request has no body here")));
        }
        let (bytes_max, time) = (limits.request_bytes_max, Duration::from_millis(limits.request_ms_max));
        let large = || {
            (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is over {bytes_max} bytes (request_bytes_max), or broke off"),
            )
        };
        let bytes = announced.unwrap_or(bytes_max);
        if bytes > bytes_max {
            return Err(large());
        }
        let permits = bytes.min(self.bytes_max) as u32;
        let room = Arc::clone(&self.room).try_acquire_many_owned(permits).map_err(|_| {
            let message = "too many bodies of requests are on the way (request_bodies_bytes_max); try again";
            (StatusCode::SERVICE_UNAVAILABLE, message.to_owned())
        })?;
        match tokio::time::timeout(time, to_bytes(body, bytes_max)).await {
            Ok(Ok(body)) => Ok((body, Room(Some(room)))),
            Ok(Err(_)) => Err(large()),
            Err(_) => {
                let message = format!("the body took longer than {time:?} (request_ms_max)");
                Err((StatusCode::REQUEST_TIMEOUT, message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn limits() -> MountLimits {
        MountLimits { request_bytes_max: 1_000, request_ms_max: 50, ..MountLimits::default() }
    }

    /// A body whose end nobody knows, and that never comes.
    fn endless() -> Body {
        Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>())
    }

    async fn status(bodies: &Bodies, method: Method, body: Body) -> u16 {
        let read = bodies.read(&method, body, &limits()).await;
        read.map_or_else(|(status, _)| status.as_u16(), |(body, _)| body.len() as u16)
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_have_a_size_and_a_time() {
        let bodies = Bodies::new(10_000);
        assert_eq!(status(&bodies, Method::POST, Body::from(vec![0; 150])).await, 150);
        assert_eq!(status(&bodies, Method::POST, Body::empty()).await, 0);
        assert_eq!(status(&bodies, Method::POST, Body::from(vec![0; 1_001])).await, 413);
        assert_eq!(status(&bodies, Method::POST, endless()).await, 408);
        assert_eq!(status(&bodies, Method::GET, Body::from("x")).await, 400);
        assert_eq!(status(&bodies, Method::GET, Body::empty()).await, 0);
    }

    /// Law: whoever sends slowly takes room that has an end; others are told, and it comes back.
    #[tokio::test(start_paused = true)]
    async fn what_is_being_read_takes_room_until_it_is_let_go() {
        let bodies = Bodies::new(2_500);
        let slow = async || status(&bodies, Method::POST, endless()).await;
        let (one, other, third) = tokio::join!(slow(), slow(), slow());
        assert_eq!((one, other, third), (408, 408, 503), "each may become 1,000 bytes");

        let (_, held) = bodies.read(&Method::POST, Body::from(vec![0; 1_000]), &limits()).await.expect("room again");
        let (_, more) = bodies.read(&Method::POST, Body::from(vec![0; 1_000]), &limits()).await.expect("room for two");
        assert_eq!(status(&bodies, Method::POST, Body::from(vec![0; 501])).await, 503);
        drop((held, more));
        assert_eq!(status(&bodies, Method::POST, Body::from(vec![0; 501])).await, 501);
    }
}
