//! Reads `multipart/form-data` (RFC 7578, RFC 2046 section 5.1) piece by piece. It holds what came in one frame and, before a part, its
//! header: whatever is sent, and however, a body never takes more memory than that.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;

use crate::limits::UPLOAD_PAUSE_MS_MAX;

/// Longest boundary (RFC 2046).
const BOUNDARY_BYTES_MAX: usize = 70;
/// Longest header of a part, and longest text before the first one, in bytes.
const HEAD_BYTES_MAX: usize = 4 << 10;

/// Why a body is none, or not whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum MultipartError {
    /// Another content type.
    #[error("send the upload as multipart/form-data, for example with `hotbay plugin push` or `curl --form`")]
    NotMultipart,
    /// It ended in the midst of it.
    #[error("the upload broke off; send it again")]
    BrokenOff,
    /// Nothing came for too long.
    #[error("nothing of the upload came for {0:?}; send it again")]
    Stalled(Duration),
    /// Not the form of it.
    #[error("the upload is no multipart/form-data: {0}")]
    Malformed(&'static str),
    /// A part that is text and too long for it.
    #[error("the part {name:?} is over {bytes_max} bytes")]
    TooLong {
        /// Its name.
        name: String,
        /// The bound.
        bytes_max: usize,
    },
    /// A part that must be text.
    #[error("the part {0:?} is not UTF-8")]
    NotText(String),
}

/// The parts of a body, one after the other.
pub(super) struct Parts {
    body: Body,
    /// CR LF and two hyphens, then the boundary.
    delimiter: Vec<u8>,
    /// What came and was not looked at yet.
    buffer: BytesMut,
    /// Whether what comes next is content of a part.
    in_part: bool,
}

impl Parts {
    /// The parts of a request's body.
    pub(super) fn new(headers: &HeaderMap, body: Body) -> Result<Self, MultipartError> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let boundary = boundary(kind).ok_or(MultipartError::NotMultipart)?;
        let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
        // The first delimiter may stand at the very beginning, without the line break before it.
        Ok(Self { body, delimiter, buffer: BytesMut::from(&b"\r\n"[..]), in_part: true })
    }

    /// The name of the next part, what is left of the one before thrown away. `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<String>, MultipartError> {
        while self.piece().await?.is_some() {}
        // Behind the delimiter: two hyphens at the end of all, or a line break and the header of a part.
        while self.buffer.len() < 2 {
            self.fill().await?;
        }
        if self.buffer.starts_with(b"--") {
            return Ok(None);
        }
        let head = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break self.buffer.split_to(at + 4);
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(MultipartError::Malformed("the header of a part is too long"));
            }
            self.fill().await?;
        };
        self.in_part = true;
        let head =
            std::str::from_utf8(&head).map_err(|_| MultipartError::Malformed("the header of a part is no text"))?;
        name(head).map(Some).ok_or(MultipartError::Malformed("a part has no name"))
    }

    /// The next piece of the part; `None` at its end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, MultipartError> {
        if !self.in_part {
            return Ok(None);
        }
        loop {
            let (length, found) = content(&self.buffer, &self.delimiter);
            if length > 0 {
                return Ok(Some(self.buffer.split_to(length).freeze()));
            }
            if found {
                drop(self.buffer.split_to(self.delimiter.len()));
                self.in_part = false;
                return Ok(None);
            }
            self.fill().await?;
        }
    }

    /// The whole part as text.
    pub(super) async fn text(&mut self, name: &str, bytes_max: usize) -> Result<String, MultipartError> {
        let mut all = Vec::new();
        while let Some(piece) = self.piece().await? {
            if all.len() + piece.len() > bytes_max {
                return Err(MultipartError::TooLong { name: name.to_owned(), bytes_max });
            }
            all.extend_from_slice(&piece);
        }
        String::from_utf8(all).map_err(|_| MultipartError::NotText(name.to_owned()))
    }

    /// Throws away what is still to come, for so long: whoever is told in the midst of an upload that it is refused should get to read
    /// that.
    pub(super) async fn drain(mut self, time_max: Duration) {
        let drain = async { while let Some(Ok(_)) = self.body.frame().await {} };
        drop(tokio::time::timeout(time_max, drain).await);
    }

    async fn fill(&mut self) -> Result<(), MultipartError> {
        let pause = Duration::from_millis(UPLOAD_PAUSE_MS_MAX);
        loop {
            let frame = tokio::time::timeout(pause, self.body.frame()).await;
            let frame = frame.map_err(|_| MultipartError::Stalled(pause))?;
            let Some(Ok(frame)) = frame else { return Err(MultipartError::BrokenOff) };
            if let Ok(data) = frame.into_data()
                && !data.is_empty()
            {
                self.buffer.extend_from_slice(&data);
                return Ok(());
            }
        }
    }
}

/// How many bytes in front are content for certain, and whether the delimiter follows them. It may begin at the end and go on in what is
/// still to come.
fn content(buffer: &[u8], delimiter: &[u8]) -> (usize, bool) {
    let mut from = 0;
    while let Some(at) = buffer[from..].iter().position(|byte| *byte == b'\r').map(|at| from + at) {
        let rest = &buffer[at..];
        if rest.starts_with(delimiter) {
            return (at, true);
        }
        if delimiter.starts_with(rest) {
            return (at, false);
        }
        from = at + 1;
    }
    (buffer.len(), false)
}

fn boundary(kind: &str) -> Option<&str> {
    let (form, parameters) = kind.split_once(';')?;
    if !form.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.trim().split_once('=')?;
        name.eq_ignore_ascii_case("boundary").then(|| value.trim_matches('"'))
    })?;
    (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()).then_some(boundary)
}

/// What `Content-Disposition: form-data; name="…"` names.
fn name(head: &str) -> Option<String> {
    let disposition = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    let name = disposition.split(';').find_map(|parameter| parameter.trim().strip_prefix("name="))?;
    Some(name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use futures_util::stream::{self, StreamExt as _};

    use super::*;

    const BODY: &str = "--x y\r\nContent-Disposition: form-data; name=\"manifest\"\r\n\r\nname = 1\r\n--x\r\n\r\n--x y\r\n\
        content-disposition: form-data; filename=\"a;b.wasm\"; name=\"component\"\r\nContent-Type: application/wasm\r\n\r\n\
        \r\n\r\r\n--x \r\n--x y--\r\n";

    fn parts(frames: Vec<Bytes>) -> Parts {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("multipart/form-data; boundary=\"x y\""));
        let body = Body::from_stream(stream::iter(frames.into_iter().map(Ok::<_, std::io::Error>)));
        Parts::new(&headers, body).unwrap()
    }

    async fn all(mut parts: Parts) -> Result<Vec<(String, String)>, MultipartError> {
        let mut found = Vec::new();
        while let Some(name) = parts.next().await? {
            let text = parts.text(&name, 100).await?;
            found.push((name, text));
        }
        Ok(found)
    }

    /// Goal: however a body is cut into frames, its parts are the same, also where what looks like a delimiter is none.
    #[tokio::test]
    async fn parts_are_found_wherever_the_body_is_cut() {
        let expected = vec![
            ("manifest".to_owned(), "name = 1\r\n--x\r\n".to_owned()),
            ("component".to_owned(), "\r\n\r\r\n--x ".to_owned()),
        ];
        for cut in 0..BODY.len() {
            let frames = [&BODY[..cut], &BODY[cut..]].map(|frame| Bytes::from(frame.to_owned()));
            assert_eq!(all(parts(frames.to_vec())).await, Ok(expected.clone()), "cut at {cut}");
        }
        let single = BODY.bytes().map(|byte| Bytes::from(vec![byte])).collect();
        assert_eq!(all(parts(single)).await, Ok(expected));
    }

    /// Goal: a body that ends anywhere before its end is not taken for whole.
    #[tokio::test]
    async fn a_body_that_breaks_off_is_refused() {
        let end = BODY.len() - "--\r\n".len();
        for length in 0..=end {
            let cut = parts(vec![Bytes::from(BODY[..length].to_owned())]);
            assert_eq!(all(cut).await, Err(MultipartError::BrokenOff), "{length}");
        }
    }

    #[tokio::test]
    async fn what_is_no_form_is_refused() {
        let of = |text: &str| all(parts(vec![Bytes::from(text.to_owned())]));
        let nameless = of("--x y\r\nContent-Type: text/plain\r\n\r\na\r\n--x y--").await;
        assert_eq!(nameless, Err(MultipartError::Malformed("a part has no name")));
        let endless = of(&format!("--x y\r\nA: {}", "b".repeat(HEAD_BYTES_MAX))).await;
        assert_eq!(endless, Err(MultipartError::Malformed("the header of a part is too long")));
        let long =
            of(&format!("--x y\r\nContent-Disposition: form-data; name=\"m\"\r\n\r\n{}\r\n--x y--", "a".repeat(101)))
                .await;
        assert_eq!(long, Err(MultipartError::TooLong { name: "m".to_owned(), bytes_max: 100 }));
        for kind in
            ["", "text/plain", "multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=a"]
        {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", kind.parse().unwrap());
            assert_eq!(Parts::new(&headers, Body::empty()).err(), Some(MultipartError::NotMultipart), "{kind}");
        }
    }

    /// Goal: whoever sends nothing does not stay.
    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_given_up() {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("multipart/form-data; boundary=a"));
        let begun = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"--a\r\n"))]).chain(stream::pending());
        let mut parts = Parts::new(&headers, Body::from_stream(begun)).unwrap();
        assert!(matches!(parts.next().await, Err(MultipartError::Stalled(_))));
    }

    /// Goal: a large part passes through in pieces, of which no two are held at once.
    #[tokio::test]
    async fn a_large_part_is_never_held_whole() {
        let head = Bytes::from_static(b"--x y\r\nContent-Disposition: form-data; name=\"component\"\r\n\r\n");
        let piece = Bytes::from(vec![b'\r'; 16 << 10]);
        let frames = [vec![head], vec![piece; 1_000], vec![Bytes::from_static(b"\r\n--x y--")]].concat();
        let mut parts = parts(frames);
        assert_eq!(parts.next().await.unwrap().as_deref(), Some("component"));
        let mut bytes = 0;
        while let Some(piece) = parts.piece().await.unwrap() {
            bytes += piece.len();
            assert!(parts.buffer.len() < 64 << 10);
        }
        assert_eq!((bytes, parts.next().await), (1_000 * (16 << 10), Ok(None)));
    }
}
