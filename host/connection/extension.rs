//! Which extensions a connection speaks (RFC 6455 §9.1): `permessage-deflate` (RFC 7692 §7.1) without context takeover, or none.

use std::borrow::Cow;

use http::header::SEC_WEBSOCKET_EXTENSIONS;
use http::{HeaderMap, HeaderValue};

/// What is agreed on. Both sides forget each message, so that one form of a frame fits every client and none costs memory.
const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
/// The same, for a client that asked for the window we always have.
const AGREED_WINDOW: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15";

/// The offers are not written as the grammar has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// An extension's name and parameters.
type Offer<'a> = (&'a str, Vec<(&'a str, Option<Cow<'a, str>>)>);

/// The answer to the first offer that can be honoured; `None` if there is none.
///
/// # Errors
/// If the header is malformed: then RFC 6455 §9.1 allows no connection.
pub(super) fn negotiate(headers: &HeaderMap) -> Result<Option<HeaderValue>, Malformed> {
    let mut agreed = None;
    for value in headers.get_all(SEC_WEBSOCKET_EXTENSIONS) {
        let mut text = Text(value.to_str().map_err(|_| Malformed)?);
        while let Some(offer) = text.offer()? {
            agreed = agreed.or_else(|| answer(&offer));
        }
    }
    Ok(agreed.map(HeaderValue::from_static))
}

/// The answer to one offer. A parameter that is unknown, has a wrong value, or comes twice makes it one that we must decline
/// (RFC 7692 §7.1).
fn answer((name, parameters): &Offer<'_>) -> Option<&'static str> {
    if *name != "permessage-deflate" {
        return None;
    }
    let mut answer = AGREED;
    for (index, (name, value)) in parameters.iter().enumerate() {
        if parameters[..index].iter().any(|(earlier, _)| earlier == name) {
            return None;
        }
        match (*name, value.as_deref()) {
            // With a value the client says that it needs no larger window than that; ours is large enough for all.
            ("server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits", None)
            | ("client_max_window_bits", Some("8" | "9" | "10" | "11" | "12" | "13" | "14" | "15")) => {}
            // A smaller window would mean to compress for this client alone.
            ("server_max_window_bits", Some("15")) => answer = AGREED_WINDOW,
            _ => return None,
        }
    }
    Some(answer)
}

/// What is left of the header's value.
struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    /// The next offer; `None` at the end. Empty elements of the list are passed over (RFC 9110 §5.6.1.2).
    fn offer(&mut self) -> Result<Option<Offer<'a>>, Malformed> {
        while self.take(',') {}
        if self.0.is_empty() {
            return Ok(None);
        }
        let name = self.token()?;
        let mut parameters = Vec::new();
        while self.take(';') {
            let name = self.token()?;
            let value = if self.take('=') { Some(self.value()?) } else { None };
            parameters.push((name, value));
        }
        if self.0.is_empty() || self.0.starts_with(',') { Ok(Some((name, parameters))) } else { Err(Malformed) }
    }

    /// Takes a sign, if it is next, and the blanks around it.
    fn take(&mut self, sign: char) -> bool {
        self.0 = self.0.trim_start_matches([' ', '\t']);
        let Some(rest) = self.0.strip_prefix(sign) else { return false };
        self.0 = rest.trim_start_matches([' ', '\t']);
        true
    }

    fn token(&mut self) -> Result<&'a str, Malformed> {
        let end = self.0.find(|c| !is_of_token(c)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        if token.is_empty() { Err(Malformed) } else { Ok(token) }
    }

    /// A token, or one in quotes.
    fn value(&mut self) -> Result<Cow<'a, str>, Malformed> {
        if !self.0.starts_with('"') {
            return self.token().map(Cow::Borrowed);
        }
        let mut value = String::new();
        let mut signs = self.0.char_indices().skip(1);
        while let Some((at, sign)) = signs.next() {
            match sign {
                '"' if value.is_empty() => break,
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return Ok(Cow::Owned(value));
                }
                '\\' => value.extend(signs.next().map(|(_, sign)| sign)),
                sign => value.push(sign),
            }
            if !value.ends_with(is_of_token) {
                break;
            }
        }
        Err(Malformed)
    }
}

/// Whether a character may be in a token (RFC 9110 §5.6.2).
fn is_of_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiated(values: &[&str]) -> Result<Option<String>, Malformed> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(SEC_WEBSOCKET_EXTENSIONS, value.parse().unwrap());
        }
        negotiate(&headers).map(|answer| answer.map(|answer| answer.to_str().unwrap().to_owned()))
    }

    #[test]
    fn what_can_be_honoured_is_agreed_on_without_context_takeover() {
        for offer in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits", // Chrome, Firefox, ws
            "permessage-deflate;client_max_window_bits=8",
            "permessage-deflate ; client_max_window_bits = \"10\" ; server_no_context_takeover",
            "permessage-deflate; client_max_window_bits=\"1\\0\"",
            "permessage-deflate; client_no_context_takeover;\tserver_no_context_takeover",
            ", ,permessage-deflate,",
            "x-webkit-deflate-frame, permessage-deflate",
            "foo; bar=\"baz\", permessage-deflate; client_max_window_bits",
        ] {
            assert_eq!(negotiated(&[offer]), Ok(Some(AGREED.to_owned())), "{offer}");
        }
        let window = "permessage-deflate; server_max_window_bits=15";
        assert_eq!(negotiated(&[window]), Ok(Some(AGREED_WINDOW.to_owned())));
    }

    #[test]
    fn what_cannot_be_honoured_is_declined() {
        for offer in [
            "",
            "permessage-bzip2",
            "Permessage-Deflate-Frame",
            "permessage-deflate; unknown",
            "permessage-deflate; unknown=1",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=14",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=015",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=08",
            "permessage-deflate; client_max_window_bits=+9",
            "permessage-deflate; server_no_context_takeover=true",
            "permessage-deflate; client_no_context_takeover=1",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        ] {
            assert_eq!(negotiated(&[offer]), Ok(None), "{offer}");
        }
        assert_eq!(negotiated(&[]), Ok(None));
    }

    /// RFC 7692 §5: the client's preferred offer comes first; one that is declined leaves the next.
    #[test]
    fn the_first_offer_that_can_be_honoured_counts_wherever_it_stands() {
        let fallback = "permessage-deflate; server_max_window_bits=10, permessage-deflate";
        assert_eq!(negotiated(&[fallback]), Ok(Some(AGREED.to_owned())));
        let both = ["permessage-deflate; server_max_window_bits=10", "permessage-deflate; server_max_window_bits=15"];
        assert_eq!(negotiated(&both), Ok(Some(AGREED_WINDOW.to_owned())));
        let preferred = "permessage-deflate, permessage-deflate; server_max_window_bits=15";
        assert_eq!(negotiated(&[preferred]), Ok(Some(AGREED.to_owned())));
    }

    #[test]
    fn what_the_grammar_does_not_know_is_malformed_even_behind_a_good_offer() {
        for offer in [
            "permessage-deflate;",
            ";permessage-deflate",
            "permessage-deflate; =15",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=\"15",
            "permessage-deflate; server_max_window_bits=\"\"",
            "permessage-deflate; server_max_window_bits=\"1 5\"",
            "permessage-deflate; server_max_window_bits=\"15\\",
            "permessage-deflate server_no_context_takeover",
            "permessage-deflate, per message",
            "permessage-deflate, a/b",
        ] {
            assert_eq!(negotiated(&[offer]), Err(Malformed), "{offer}");
        }
        assert_eq!(negotiated(&["permessage-deflate", "\"deflate\""]), Err(Malformed));
    }
}
