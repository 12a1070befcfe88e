//! Bodies of requests: read within bounds of size, of time, and of what all of them together may take, so that those who send slowly
//! cannot fill the memory. What has come counts, not what was announced.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::{Method, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;

use crate::limits::MountLimits;
use crate::server::shares::{Share, Shares};

/// Bounds of one body, each with the name it is known by.
pub(super) struct Bounds {
    /// Bytes.
    pub(super) bytes_max: (usize, &'static str),
    /// Time, in milliseconds.
    pub(super) ms_max: (u64, &'static str),
}

impl Bounds {
    /// Those of a mount.
    pub(super) fn of(limits: &MountLimits) -> Self {
        let MountLimits { request_bytes_max, request_ms_max, .. } = limits;
        Self { bytes_max: (*request_bytes_max, "request_bytes_max"), ms_max: (*request_ms_max, "request_ms_max") }
    }

    fn too_large(&self) -> (StatusCode, String) {
        let (bytes_max, name) = self.bytes_max;
        (StatusCode::PAYLOAD_TOO_LARGE, format!("the body is over {bytes_max} bytes ({name})"))
    }
}

/// What all bodies together may take, in bytes.
pub struct Bodies(Arc<Shares>);

impl Bodies {
    /// Room for so many bytes (`request_bodies_bytes_max`).
    pub fn new(bytes_max: usize) -> Self {
        Self(Shares::new(bytes_max))
    }

    /// Reads a body of this caller. The room it takes is to be held until something else counts its bytes.
    ///
    /// # Errors
    /// Status and words of the refusal, if it is over a bound, breaks off, or comes with a method that has none.
    pub(super) async fn read(
        &self,
        caller: &str,
        method: &Method,
        body: Body,
        bounds: &Bounds,
    ) -> Result<(Bytes, Share), (StatusCode, String)> {
        let mut room = self.0.begin(caller);
        let announced = body.size_hint();
        if announced.upper() == Some(0) {
            return Ok((Bytes::new(), room));
        }
        // RFC 9110, section 9.3.1: content of a GET has no meaning.
        if *method == Method::GET || *method == Method::HEAD {
            return Err((StatusCode::BAD_REQUEST, format!("a {method} request has no body here")));
        }
        if announced.lower() > bounds.bytes_max.0 as u64 {
            return Err(bounds.too_large());
        }
        let (ms_max, name) = bounds.ms_max;
        let time = Duration::from_millis(ms_max);
        match tokio::time::timeout(time, collect(body, bounds, &mut room)).await {
            Ok(Ok(body)) => Ok((body, room)),
            Ok(Err(refusal)) => Err(refusal),
            Err(_) => {
                let message = format!("the body took longer than {time:?} ({name})");
                Err((StatusCode::REQUEST_TIMEOUT, message))
            }
        }
    }
}

async fn collect(mut body: Body, bounds: &Bounds, room: &mut Share) -> Result<Bytes, (StatusCode, String)> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| (StatusCode::BAD_REQUEST, "the body broke off".to_owned()))?;
        let Ok(data) = frame.into_data() else { continue }; // Trailers.
        if all.len() + data.len() > bounds.bytes_max.0 {
            return Err(bounds.too_large());
        }
        if !room.grow(data.len()) {
            let message = "too many bodies of requests are on the way (request_bodies_bytes_max); try again";
            return Err((StatusCode::SERVICE_UNAVAILABLE, message.to_owned()));
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

#[cfg(test)]
mod tests {
    use futures_util::stream::{self, StreamExt as _};

    use super::*;

    fn bounds() -> Bounds {
        Bounds::of(&MountLimits { request_bytes_max: 1_000, request_ms_max: 50, ..MountLimits::default() })
    }

    /// A body that begins with so many bytes and never ends.
    fn endless(bytes: usize) -> Body {
        let begin = stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![0; bytes]))]);
        Body::from_stream(begin.chain(stream::pending()))
    }

    async fn status(bodies: &Bodies, caller: &str, method: Method, body: Body) -> u16 {
        let read = bodies.read(caller, &method, body, &bounds()).await;
        read.map_or_else(|(status, _)| status.as_u16(), |(body, _)| body.len() as u16)
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_have_a_size_and_a_time() {
        let bodies = Bodies::new(10_000);
        let post = async |body| status(&bodies, "ann", Method::POST, body).await;
        assert_eq!(post(Body::from(vec![0; 150])).await, 150);
        assert_eq!(post(Body::empty()).await, 0);
        assert_eq!(post(Body::from(vec![0; 1_001])).await, 413);
        assert_eq!(post(endless(1_001)).await, 413, "not announced");
        assert_eq!(post(endless(10)).await, 408);
        let broken = stream::iter([Ok(Bytes::from("x")), Err(std::io::Error::other("gone"))]);
        assert_eq!(post(Body::from_stream(broken)).await, 400);
        assert_eq!(status(&bodies, "ann", Method::GET, Body::from("x")).await, 400);
        assert_eq!(status(&bodies, "ann", Method::GET, Body::empty()).await, 0);
    }

    /// Law: whoever sends slowly takes what came and no more, and a tenth at most; it comes back.
    #[tokio::test(start_paused = true)]
    async fn what_is_being_read_takes_room_until_it_is_let_go() {
        let bodies = Bodies::new(5_000);
        let slow = async |caller| status(&bodies, caller, Method::POST, endless(300)).await;
        let nothing = async || status(&bodies, "cleo", Method::POST, endless(0)).await;
        assert_eq!(tokio::join!(slow("ann"), slow("ann"), slow("bob"), nothing()), (408, 503, 408, 408));

        let mut held = Vec::new();
        for caller in ["a", "b", "c", "d", "e"] {
            held.push(bodies.read(caller, &Method::POST, Body::from(vec![0; 1_000]), &bounds()).await.expect("room"));
        }
        assert_eq!(status(&bodies, "f", Method::POST, Body::from("x")).await, 503);
        drop(held);
        assert_eq!(status(&bodies, "f", Method::POST, Body::from("x")).await, 1);
    }
}
