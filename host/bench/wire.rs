//! What the generator writes, and the answer to its handshake (RFC 6455 §4 and §5).

/// Longest answer to a handshake.
const ANSWER_BYTES_MAX: usize = 16 << 10;
/// The key and what must be answered to it, from the example of RFC 6455 §1.3. A key need not be random for a test.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const MASK: [u8; 4] = [0x5A, 0xC3, 0x17, 0x88];

/// Opcode of a text message.
pub(super) const TEXT: u8 = 0x1;
/// Opcode of a close.
pub(super) const CLOSE: u8 = 0x8;
/// Opcode of a ping.
pub(super) const PING: u8 = 0x9;
/// Opcode of a pong.
pub(super) const PONG: u8 = 0xA;

/// Appends a whole, masked frame.
pub(super) fn push_frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            out.push(0x80 | 0x7E);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 0x7F);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    let start = out.len();
    out.extend_from_slice(payload);
    for four in out[start..].chunks_mut(4) {
        for (byte, mask) in four.iter_mut().zip(MASK) {
            *byte ^= mask;
        }
    }
}

/// A request to upgrade.
pub(super) fn request(host: &str, target: &str, headers: &[String]) -> String {
    let extra: String = headers.iter().flat_map(|header| [header.as_str(), "\r\n"]).collect();
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{extra}\r\n"
    )
}

/// What a server answered to the handshake.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Not all of it yet.
    Partial,
    /// Upgraded; frames begin here.
    Upgraded(usize),
    /// No: the status line, and the first line of the body if it came along.
    Refused(String),
}

/// Reads an answer.
pub(super) fn answer(bytes: &[u8]) -> Answer {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() < ANSWER_BYTES_MAX {
            Answer::Partial
        } else {
            Answer::Refused(format!("no end of its headers within {ANSWER_BYTES_MAX} bytes"))
        };
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let Some(status) = status.strip_prefix("HTTP/1.1 ").or_else(|| status.strip_prefix("HTTP/1.0 ")) else {
        return Answer::Refused(format!("not HTTP: {:?}", status.chars().take(60).collect::<String>()));
    };
    if !status.starts_with("101") {
        let body = String::from_utf8_lossy(&bytes[end + 4..]);
        let body: String = body.lines().next().unwrap_or_default().chars().take(200).collect();
        let between = if body.is_empty() { "" } else { ": " };
        return Answer::Refused(format!("HTTP {}{between}{body}", status.trim()));
    }
    let accept = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("sec-websocket-accept"));
    match accept {
        Some((_, value)) if value.trim() == ACCEPT => Answer::Upgraded(end + 4),
        Some(_) => Answer::Refused("HTTP 101 with a wrong Sec-WebSocket-Accept".to_owned()),
        None => Answer::Refused("HTTP 101 without Sec-WebSocket-Accept".to_owned()),
    }
}

/// The words of a close frame.
pub(super) fn close_words(payload: &[u8]) -> String {
    match payload.split_first_chunk() {
        Some((code, reason)) => {
            format!("close code {} {}", u16::from_be_bytes(*code), String::from_utf8_lossy(reason))
        }
        None => "a close without a code".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_masked_and_have_the_right_length() {
        for (len, header) in [(0, 6), (125, 6), (126, 8), (65_535, 8), (65_536, 14)] {
            let mut out = vec![7];
            push_frame(TEXT, &vec![b'a'; len], &mut out);
            assert_eq!(out.len(), 1 + header + len);
            assert_eq!((out[1], out[2] & 0x80), (0x81, 0x80));
            assert!(out[1 + header..].iter().zip(MASK.iter().cycle()).all(|(byte, mask)| byte ^ mask == b'a'));
        }
    }

    #[test]
    fn answers_are_told_apart() {
        let upgraded = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nsec-websocket-ACCEPT:  s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        for end in 0..upgraded.len() {
            assert_eq!(answer(&upgraded.as_bytes()[..end]), Answer::Partial);
        }
        assert_eq!(answer(format!("{upgraded}\u{1}").as_bytes()), Answer::Upgraded(upgraded.len()));
        for (text, words) in [
            (
                "HTTP/1.1 401 Unauthorized\r\n\r\n{\"error\":\"token\"}\nmore",
                "HTTP 401 Unauthorized: {\"error\":\"token\"}",
            ),
            ("HTTP/1.1 404 Not Found\r\n\r\n", "HTTP 404 Not Found"),
            ("HTTP/1.1 101 Ok\r\nSec-WebSocket-Accept: x\r\n\r\n", "HTTP 101 with a wrong Sec-WebSocket-Accept"),
            ("HTTP/1.1 101 Ok\r\n\r\n", "HTTP 101 without Sec-WebSocket-Accept"),
            ("SSH-2.0-x\r\n\r\n", "not HTTP: \"SSH-2.0-x\""),
        ] {
            assert_eq!(answer(text.as_bytes()), Answer::Refused(words.to_owned()));
        }
        assert!(matches!(answer(&vec![b'a'; ANSWER_BYTES_MAX]), Answer::Refused(_)));
    }

    #[test]
    fn a_request_is_one_block() {
        let text = request("127.0.0.1:80", "/x?room=r1", &["Authorization: Bearer t".to_owned()]);
        assert!(text.starts_with("GET /x?room=r1 HTTP/1.1\r\nHost: 127.0.0.1:80\r\n"));
        assert!(text.ends_with("\r\nAuthorization: Bearer t\r\n\r\n"));
        assert_eq!(text.matches("\r\n\r\n").count(), 1);
    }
}
