//! Between the host's types and those of the WIT package. What goes into a plugin is lent to the call, so that nothing is
//! copied but into the plugin's memory.

use crate::plugin::bindings::exports::hotbay::channel::handler as wit;
use crate::plugin::bindings::hotbay::channel::types;
use crate::plugin::fault::Fault;
use crate::protocol::event::{Event, LeaveReason, Source};
use crate::protocol::frame::Payload;
use crate::protocol::identity::Identity;
use crate::protocol::refusal::{Refusal, RefusalCode};

/// The lists of pairs of an HTTP request, as a call lends them.
pub(super) struct Pairs<'a> {
    query: Vec<(&'a str, &'a str)>,
    headers: Vec<(&'a str, &'a str)>,
}

/// Those of an event, if it is a request.
pub(super) fn pairs_of(event: &Event) -> Option<Pairs<'_>> {
    fn lend(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
        pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
    match event {
        Event::Request { http, .. } => Some(Pairs { query: lend(&http.query), headers: lend(&http.headers) }),
        _ => None,
    }
}

/// An event; `pairs` has those of the requests of the batch, in order.
pub(super) fn event<'a>(
    event: &'a Event,
    pairs: &mut impl Iterator<Item = &'a Pairs<'a>>,
) -> Result<wit::Event<'a>, Fault> {
    Ok(match event {
        Event::Join { member, identity, frame } => wit::Event::Join(wit::Joined {
            member: member.0,
            identity: lend_identity(identity),
            frame: frame.as_ref().map(lend).transpose()?,
        }),
        Event::Leave { member, identity, why, frame } => wit::Event::Leave(wit::Left {
            member: member.0,
            user: identity.user(),
            why: match why {
                LeaveReason::Asked => wit::LeaveReason::Asked,
                LeaveReason::Disconnected => wit::LeaveReason::Disconnected,
                LeaveReason::Closed => wit::LeaveReason::Closed,
            },
            frame: frame.as_ref().map(lend).transpose()?,
        }),
        Event::Message { member, identity, payload } => {
            wit::Event::Message(wit::Message { member: member.0, user: identity.user(), payload: lend(payload)? })
        }
        Event::Timer { name, .. } => wit::Event::Timer(name),
        Event::Publish { source, payload, .. } => wit::Event::Publish(wit::Publication {
            source: match source {
                Source::Api(key) => wit::Source::Api(key),
                Source::Channel(name) => wit::Source::Channel(name),
            },
            payload: lend(payload)?,
        }),
        Event::Request { request, http } => {
            let pairs = pairs.next().ok_or_else(|| Fault::refused("a request without its lists"))?;
            wit::Event::Request(wit::HttpRequest {
                id: request.0,
                method: &http.method,
                path: &http.path,
                query: &pairs.query,
                headers: &pairs.headers,
                body: &http.body,
                identity: http.identity.as_ref().map(lend_identity),
            })
        }
    })
}

/// A payload for a plugin.
pub(super) fn lend(payload: &Payload) -> Result<types::PayloadParam<'_>, Fault> {
    Ok(match payload {
        Payload::Text(bytes) => types::PayloadParam::Text(
            std::str::from_utf8(bytes).map_err(|e| Fault::refused(format!("a text payload: {e}")))?,
        ),
        Payload::Binary(bytes) => types::PayloadParam::Binary(bytes),
    })
}

/// A payload of a plugin.
pub(super) fn payload(payload: types::PayloadResult) -> Payload {
    match payload {
        types::PayloadResult::Text(text) => Payload::Text(text.into()),
        types::PayloadResult::Binary(bytes) => Payload::Binary(bytes.into()),
    }
}

/// An identity, lent to a call.
pub(super) fn lend_identity(identity: &Identity) -> types::IdentityParam<'_> {
    types::IdentityParam {
        user: identity.user(),
        role: identity.role(),
        claims: identity.claims(),
        endpoint: identity.endpoint(),
    }
}

/// An identity, for the answer of an import.
pub(super) fn give_identity(identity: &Identity) -> types::IdentityResult {
    types::IdentityResult {
        user: identity.user().to_owned(),
        role: identity.role().to_owned(),
        claims: identity.claims().to_owned(),
        endpoint: identity.endpoint().to_owned(),
    }
}

/// A plugin's refusal.
pub(super) fn refusal(refusal: types::RefusalResult) -> Refusal {
    let code = match refusal.code {
        types::RefusalCode::BadRequest => RefusalCode::BadRequest,
        types::RefusalCode::Forbidden => RefusalCode::Forbidden,
        types::RefusalCode::NotFound => RefusalCode::NotFound,
        types::RefusalCode::NotJoined => RefusalCode::NotJoined,
        types::RefusalCode::TooLarge => RefusalCode::TooLarge,
        types::RefusalCode::RateLimited => RefusalCode::RateLimited,
        types::RefusalCode::Conflict => RefusalCode::Conflict,
        types::RefusalCode::Unavailable => RefusalCode::Unavailable,
        types::RefusalCode::Fault => RefusalCode::Fault,
        types::RefusalCode::Lost => RefusalCode::Lost,
        types::RefusalCode::Closing => RefusalCode::Closing,
    };
    Refusal::new(code, refusal.message)
}

/// A refusal, lent to a plugin.
pub(super) fn lend_refusal(refusal: &Refusal) -> types::RefusalParam<'_> {
    let code = match refusal.code {
        RefusalCode::BadRequest => types::RefusalCode::BadRequest,
        RefusalCode::Forbidden => types::RefusalCode::Forbidden,
        RefusalCode::NotFound => types::RefusalCode::NotFound,
        RefusalCode::NotJoined => types::RefusalCode::NotJoined,
        RefusalCode::TooLarge => types::RefusalCode::TooLarge,
        RefusalCode::RateLimited => types::RefusalCode::RateLimited,
        RefusalCode::Conflict => types::RefusalCode::Conflict,
        RefusalCode::Unavailable => types::RefusalCode::Unavailable,
        RefusalCode::Fault => types::RefusalCode::Fault,
        RefusalCode::Lost => types::RefusalCode::Lost,
        RefusalCode::Closing => types::RefusalCode::Closing,
    };
    types::RefusalParam { code, message: &refusal.message }
}
