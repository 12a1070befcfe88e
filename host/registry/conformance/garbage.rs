//! What clients send, and what they should not: messages from a seed. Some look like those of the systems the broker was made for, with
//! everything that can be wrong with them; the rest is anything a WebSocket or an HTTP request can carry.

use bytes::Bytes;

use crate::limits::MountLimits;
use crate::protocol::event::HttpRequest;
use crate::protocol::frame::Payload;
use crate::protocol::identity::Identity;
use crate::registry::scratch::next_random;

/// What the systems' messages are called.
const TYPES: [&str; 32] = [
    "ping",
    "pong",
    "PING",
    "PONG",
    "message",
    "custom_event",
    "idea_created",
    "filters",
    "subscribe",
    "unsubscribe",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "CHAT_MESSAGE",
    "TYPING",
    "MESSAGE_EDIT",
    "MESSAGE_DELETE",
    "USER_JOINED",
    "SYNC_REQUEST",
    "SYNC_UPDATE",
    "WIDGET_UPDATE",
    "WIDGET_DELETE",
    "WIDGET_BATCH",
    "LAYOUT_UPDATE",
    "LAYOUT_RESTORE",
    "CONFLICT_RESOLVED",
    "yjs-update",
    "yjs-state-request",
    "yjs-state-response",
    "booking_updated",
    "join",
    "leave",
    "vote",
];
/// What their fields are called.
const KEYS: [&str; 40] = [
    "type",
    "id",
    "data",
    "payload",
    "channel",
    "content",
    "userId",
    "timestamp",
    "correlationId",
    "clientId",
    "isTyping",
    "since",
    "widgetId",
    "baseVersion",
    "version",
    "operations",
    "operationId",
    "layout",
    "conflictId",
    "resolution",
    "filters",
    "eventTypes",
    "sources",
    "priority",
    "users",
    "replay",
    "eventType",
    "source",
    "event",
    "error",
    "message",
    "name",
    "text",
    "value",
    "x",
    "y",
    "score",
    "option",
    "",
    "__proto__",
];
/// Texts that are often handled wrongly.
const TEXTS: [&str; 26] = [
    "",
    " ",
    "a",
    "hello there",
    "room:conformance",
    "tenant:conformance",
    "ideas",
    "low",
    "critical",
    "client",
    "merge",
    "null",
    "true",
    "0",
    "-1",
    "1e999",
    "NaN",
    "../../etc",
    "<script>alert(1)</script>",
    "'; DROP TABLE x; --",
    "\0",
    "\u{FEFF}bom",
    "e\u{301}\u{202E}rtl",
    "\u{10FFFF}\u{FFFF}",
    "👩‍👩‍👧‍👦",
    "2024-02-30T25:61:61Z",
];
/// JSON that is not quite, or barely.
const ODDITIES: [&str; 30] = [
    "{}",
    "[]",
    "null",
    "true",
    "0",
    "\"\"",
    "{",
    "}",
    "[",
    "\"",
    "{\"type\"",
    "{\"type\":",
    "{\"type\":}",
    "{\"type\":1}",
    "{\"type\":null}",
    "{\"type\":[]}",
    "{\"type\":{}}",
    "{\"type\":\"ping\",\"type\":\"pong\"}",
    "{\"type\":\"ping\"}{\"type\":\"ping\"}",
    "{\"type\":\"ping\",}",
    "{'type':'ping'}",
    "{\"type\":\"\\ud800\"}",
    "{\"type\":\"\\ud83d\\ude00\"}",
    "{\"type\":\"\\u0000\"}",
    "{\"type\":\"ping\",\"id\":1e400}",
    "{\"id\":123456789012345678901234567890}",
    "{\"id\":-0}",
    "{\"id\":1.7976931348623157e308}",
    "\u{FEFF}{\"type\":\"ping\"}",
    "NaN",
];
/// Messages as the systems have them; `$` stands for the channel.
const WELL_FORMED: [&str; 22] = [
    r#"{"type":"SUBSCRIBE","channel":"$","payload":{},"id":"1"}"#,
    r#"{"type":"SUBSCRIBE","channel":"$"}"#,
    r#"{"type":"UNSUBSCRIBE","channel":"$","id":2}"#,
    r#"{"type":"CHAT_MESSAGE","channel":"$","payload":{"content":"hello","clientId":"c1"},"id":"3"}"#,
    r#"{"type":"TYPING","channel":"$","payload":{"isTyping":true}}"#,
    r#"{"type":"MESSAGE_EDIT","channel":"$","payload":{"id":"1","content":"hello again"}}"#,
    r#"{"type":"MESSAGE_DELETE","channel":"$","payload":{"id":"1"}}"#,
    r#"{"type":"PING","id":"m1","timestamp":"2026-01-01T00:00:00.000Z","userId":"ann","payload":{}}"#,
    r#"{"type":"ping","timestamp":1700000000000}"#,
    r#"{"type":"WIDGET_UPDATE","id":"m2","userId":"ann","payload":{"widgetId":"w1","data":{"title":"a","value":1}}}"#,
    r#"{"type":"WIDGET_UPDATE","id":"m3","userId":"ann","payload":{"widgetId":"w1","data":{"title":"b"},"baseVersion":1}}"#,
    r#"{"type":"WIDGET_DELETE","id":"m4","userId":"ann","payload":{"widgetId":"w1"}}"#,
    r#"{"type":"LAYOUT_UPDATE","id":"m5","userId":"ann","payload":{"layout":{"w1":[0,0]}}}"#,
    r#"{"type":"SYNC_REQUEST","id":"m6","userId":"ann","payload":{}}"#,
    r#"{"type":"filters","filters":{"eventTypes":["idea_created"],"priority":["high"]}}"#,
    r#"{"type":"subscribe","channel":"ideas","eventTypes":["idea_created"],"replay":5}"#,
    r#"{"type":"unsubscribe","channel":"ideas"}"#,
    r#"{"type":"idea_created","data":{"title":"x"},"priority":"high"}"#,
    r#"{"type":"yjs-state-request"}"#,
    r#"{"type":"yjs-update","data":[0,0]}"#,
    r#"{"type":"message","text":"hello","channel":"$"}"#,
    r#"{"type":"join","channel":"$"}"#,
];
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"];
const PATHS: [&str; 10] = ["/", "/health", "/stats", "/status", "/history", "/x", "//", "/..", "/%00", "/a/b/c"];

/// Makes messages. The same seed makes the same ones.
pub(super) struct Garbage {
    seed: u64,
    channel: String,
    message_bytes_max: usize,
    body_bytes_max: usize,
    /// What was made before, to be damaged.
    last: Option<Payload>,
}

impl Garbage {
    pub(super) fn new(seed: u64, channel: &str, limits: &MountLimits) -> Self {
        Self {
            seed,
            channel: channel.to_owned(),
            message_bytes_max: limits.message_bytes_max,
            body_bytes_max: limits.request_bytes_max,
            last: None,
        }
    }

    /// A number below this one.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        next_random(&mut self.seed) % bound.max(1)
    }

    /// Whether something happens that happens so often in a hundred times.
    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.below(from.len() as u64) as usize]
    }

    /// A message.
    pub(super) fn payload(&mut self) -> Payload {
        let payload = match self.below(100) {
            0..16 => self.well_formed(),
            16..36 => Payload::text(self.system()),
            36..46 => Payload::text(self.json(0)),
            46..56 => Payload::text(self.pick(&ODDITIES)),
            56..64 => Payload::text(self.text()),
            64..72 => self.binary(64),
            72..76 => self.yjs(),
            76..78 => Payload::text(""),
            78..80 => Payload::Binary(Bytes::new()),
            80..82 => self.huge(),
            82..85 => Payload::text(self.deep()),
            _ => self.damaged(),
        };
        let payload = self.cut(payload);
        self.last = Some(payload.clone());
        payload
    }

    /// An HTTP request.
    pub(super) fn request(&mut self, identity: Option<Identity>) -> HttpRequest {
        let method = self.pick(&METHODS).to_owned();
        let path = if self.percent(80) { self.pick(&PATHS).to_owned() } else { format!("/{}", self.pick(&TYPES)) };
        let pairs = |garbage: &mut Self| -> Vec<(String, String)> {
            let pairs = garbage.below(4);
            (0..pairs).map(|_| (garbage.pick(&KEYS).to_lowercase(), garbage.pick(&TEXTS).to_owned())).collect()
        };
        let (query, headers) = (pairs(self), pairs(self));
        let mut body = if self.percent(50) { Bytes::new() } else { self.payload().bytes().clone() };
        body.truncate(self.body_bytes_max);
        HttpRequest { method, path, query, headers, body, identity }
    }

    /// A message as one of the systems has it.
    pub(super) fn well_formed(&mut self) -> Payload {
        let text = self.pick(&WELL_FORMED).replace('$', &self.channel);
        self.cut(Payload::text(text))
    }

    /// The like of one of the systems' messages.
    fn system(&mut self) -> String {
        let mut fields = vec![format!("\"type\":\"{}\"", self.pick(&TYPES))];
        for _ in 0..self.below(5) {
            fields.push(format!("{}:{}", quoted(self.pick(&KEYS)), self.json(1)));
        }
        format!("{{{}}}", fields.join(","))
    }

    fn json(&mut self, depth: u32) -> String {
        let scalar_only = depth >= 4;
        match self.below(if scalar_only { 8 } else { 12 }) {
            0 => "null".to_owned(),
            1 => if self.percent(50) { "true" } else { "false" }.to_owned(),
            2 => next_random(&mut self.seed).cast_signed().to_string(),
            3 => self.below(10).to_string(),
            4 => f64::from_bits(next_random(&mut self.seed)).to_string().replace("inf", "1e999").replace("NaN", "0.1"),
            5..8 => quoted(self.pick(&TEXTS)),
            8 | 9 => {
                let items: Vec<String> = (0..self.below(5)).map(|_| self.json(depth + 1)).collect();
                format!("[{}]", items.join(","))
            }
            _ => {
                let count = self.below(5);
                let fields = (0..count).map(|_| format!("{}:{}", quoted(self.pick(&KEYS)), self.json(depth + 1)));
                format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
            }
        }
    }

    fn text(&mut self) -> String {
        let parts = 1 + self.below(8);
        (0..parts)
            .map(|_| match self.below(3) {
                0 => self.pick(&TEXTS).to_owned(),
                1 => char::from_u32(self.below(0x11_0000) as u32).unwrap_or('?').to_string(),
                _ => char::from(self.below(128) as u8).to_string(),
            })
            .collect()
    }

    fn binary(&mut self, bytes_max: u64) -> Payload {
        let bytes = self.below(bytes_max);
        Payload::Binary((0..bytes).map(|_| next_random(&mut self.seed) as u8).collect())
    }

    /// The beginning of a message of the protocol of Yjs, and something after it.
    fn yjs(&mut self) -> Payload {
        let mut bytes = vec![self.below(4) as u8, self.below(3) as u8, self.below(16) as u8];
        bytes.extend_from_slice(self.binary(16).bytes());
        Payload::Binary(bytes.into())
    }

    /// As large as a mount lets it through.
    fn huge(&mut self) -> Payload {
        let bytes = self.message_bytes_max;
        match self.below(4) {
            0 => Payload::text("x".repeat(bytes)),
            1 => Payload::Binary(vec![0xFF; bytes].into()),
            2 => Payload::text(format!(
                "{{\"type\":\"CHAT_MESSAGE\",\"payload\":{{\"content\":\"{}\"}}}}",
                "é".repeat(bytes / 2)
            )),
            _ => Payload::text(format!("{{\"type\":\"yjs-update\",\"data\":[{}1]}}", "255,".repeat(bytes / 4))),
        }
    }

    /// Deeper than a parser that calls itself should go.
    fn deep(&mut self) -> String {
        let depth = 1 + self.below(self.message_bytes_max as u64 / 8) as usize;
        let (open, close) = if self.percent(50) { ("[", "]") } else { ("{\"a\":", "}") };
        let end = if self.percent(50) { close.repeat(depth) } else { String::new() };
        format!("{}1{end}", open.repeat(depth))
    }

    /// What was made last, with a few bytes changed, or cut. Text stays text.
    fn damaged(&mut self) -> Payload {
        let Some(last) = self.last.clone().filter(|last| !last.is_empty()) else { return Payload::text("x") };
        let mut bytes = last.bytes().to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len() as u64) as usize;
            bytes[at] = next_random(&mut self.seed) as u8;
        }
        if self.percent(50) {
            bytes.truncate(self.below(bytes.len() as u64) as usize);
        }
        match last {
            Payload::Text(_) => Payload::text(String::from_utf8_lossy(&bytes)),
            Payload::Binary(_) => Payload::Binary(bytes.into()),
        }
    }

    /// No larger than the mount lets it through.
    fn cut(&self, payload: Payload) -> Payload {
        let bytes_max = self.message_bytes_max;
        match payload {
            Payload::Text(text) if text.len() > bytes_max => {
                let text = String::from_utf8_lossy(&text);
                let end = (0..=bytes_max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
                Payload::text(&text[..end])
            }
            Payload::Binary(mut bytes) => {
                bytes.truncate(bytes_max);
                Payload::Binary(bytes)
            }
            payload @ Payload::Text(_) => payload,
        }
    }
}

/// A JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Law: a run can be repeated from its seed, and no message is one that the broker would not let through.
    #[test]
    fn messages_follow_from_their_seed_and_could_have_come_in() {
        for message_bytes_max in [0, 1, 100, 64 << 10] {
            let limits = MountLimits { message_bytes_max, request_bytes_max: 10, ..MountLimits::default() };
            let (mut one, mut other) = (Garbage::new(7, "room:1", &limits), Garbage::new(7, "room:1", &limits));
            let mut largest = 0;
            for _ in 0..2_000 {
                let payload = one.payload();
                assert_eq!(payload, other.payload());
                assert!(payload.as_text().is_none_or(|text| text.is_ok()), "text is UTF-8");
                largest = largest.max(payload.len());
                let http = one.request(None);
                assert!(http.body.len() <= 10 && http.path.starts_with('/'));
                other.request(None);
            }
            assert_eq!(largest, message_bytes_max);
        }
    }

    #[test]
    fn there_is_something_of_everything() {
        let mut garbage = Garbage::new(1, "room:1", &MountLimits::default());
        let made: Vec<Payload> = (0..1_000).map(|_| garbage.payload()).collect();
        let json = |payload: &Payload| serde_json::from_slice::<serde_json::Value>(payload.bytes()).ok();
        let typed = made.iter().filter_map(json).filter(|json| json["type"].is_string()).count();
        assert!(typed > 200, "{typed} look like a system's");
        assert!(made.iter().filter(|payload| matches!(payload, Payload::Binary(_))).count() > 50);
        assert!(made.iter().filter(|payload| payload.is_empty()).count() > 10);
        assert!(made.iter().filter(|payload| payload.bytes().starts_with(b"[[[[[[")).count() > 3);
    }
}
