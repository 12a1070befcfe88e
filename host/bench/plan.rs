//! From options to what will be done: defaults filled in, everything within its bounds, texts parsed.

use std::time::Duration;

use super::BenchError;
use super::ledger::UNDER_WAY_MAX;
use super::scenario::{Protocol, Scenario};
use super::stamp::STAMP_BYTES;
use super::target::Target;
use super::template::Template;

/// Most connections.
const CONNECTIONS_MAX: u32 = 200_000;
/// Most publishes, or handshakes, per second at a fixed rate.
const RATE_MAX: u32 = 5_000_000;
/// Largest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Longest measurement, in seconds.
const SECONDS_MAX: f64 = 3_600.0;
/// Most handshakes under way.
const CONNECTING_MAX: u32 = 10_000;
/// Most addresses of this machine to connect from.
const SOURCE_ADDRESSES_MAX: u32 = 250;
/// Most tokens.
const TOKENS_MAX: usize = 200_000;
/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// What is asked for; `None` is the scenario's default.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "`hotbay bench --help` documents each")]
pub struct Options {
    pub scenario: Scenario,
    pub url: String,
    pub remote: bool,
    pub protocol: Protocol,
    pub tokens: Vec<String>,
    pub token_in: TokenIn,
    pub headers: Vec<String>,
    pub hello: Vec<String>,
    pub awaited: Vec<String>,
    pub publish: Option<String>,
    pub refusal: Option<String>,
    pub sender_excluded: bool,
    pub connections: Option<u32>,
    pub rooms: Option<u32>,
    pub members: Option<u32>,
    pub publishers: Option<u32>,
    pub window: Option<u32>,
    pub rate: Option<u32>,
    pub message_bytes: usize,
    pub seconds: f64,
    pub warm_up_seconds: f64,
    pub drain_seconds: f64,
    pub settle_seconds: f64,
    pub connect_seconds: f64,
    pub connecting: u32,
    pub source_addresses: u32,
    pub cpu: Option<usize>,
    pub pid: Option<u32>,
}

/// Where a token travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenIn {
    /// `Authorization: Bearer …`.
    Header,
    /// `?token=…`.
    Query,
}

/// What will be done.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) scenario: Scenario,
    pub(super) protocol: Protocol,
    pub(super) url: String,
    pub(super) target: Target,
    pub(super) wording: Wording,
    pub(super) connections: u32,
    /// Connection `i` is a member of room `i % rooms`.
    pub(super) rooms: u32,
    pub(super) publishers: u32,
    pub(super) window: u32,
    pub(super) rate: Option<u32>,
    pub(super) message_bytes: usize,
    pub(super) sender_excluded: bool,
    pub(super) times: Times,
    pub(super) connecting: u32,
    pub(super) source_addresses: u32,
    pub(super) cpu: Option<usize>,
    pub(super) pid: Option<u32>,
}

/// The texts of a protocol.
#[derive(Debug)]
pub(super) struct Wording {
    /// Path and query.
    pub(super) path: Template,
    pub(super) headers: Vec<Template>,
    /// What is sent after the upgrade, in turn, and what its answer contains before the next is sent.
    pub(super) hello: Vec<(Template, Option<Box<[u8]>>)>,
    pub(super) publish: Template,
    /// How a message begins that refuses something.
    pub(super) refusal: Option<Box<[u8]>>,
    /// Connection `i` has token `i % len`; never empty.
    pub(super) tokens: Vec<String>,
}

/// In nanoseconds.
#[derive(Debug)]
pub(super) struct Times {
    pub(super) connect: u64,
    pub(super) settle: u64,
    pub(super) warm_up: u64,
    pub(super) measure: u64,
    pub(super) drain: u64,
}

impl Plan {
    pub(super) fn new(options: Options) -> Result<Self, BenchError> {
        let target = Target::find(&options.url, options.remote)?;
        let wording = Wording::new(&options, &target)?;
        let (connections, rooms) = seats(&options)?;
        let defaults = options.scenario.defaults();
        let publishers = options.publishers.unwrap_or(defaults.publishers).min(connections.div_ceil(rooms));
        within("--publishers", publishers, 1, CONNECTIONS_MAX)?;
        let window = within("--window", options.window.unwrap_or(defaults.window), 1, UNDER_WAY_MAX as u32)?;
        if u64::from(window) * u64::from(rooms) > UNDER_WAY_MAX as u64 {
            return Err(BenchError::Options {
                reason: format!("--window × rooms is {window} × {rooms}; at most {UNDER_WAY_MAX} can be under way"),
            });
        }
        let rate = options.rate.map(|rate| within("--rate", rate, 1, RATE_MAX)).transpose()?;
        let message_bytes = within("--bytes", options.message_bytes, STAMP_BYTES, MESSAGE_BYTES_MAX)?;
        let time = |option, seconds: f64, least| {
            let seconds = within(option, seconds, least, SECONDS_MAX)?;
            Ok(Duration::from_secs_f64(seconds).as_nanos() as u64)
        };
        let times = Times {
            connect: time("--connect-seconds", options.connect_seconds, 0.1)?,
            settle: time("--settle-seconds", options.settle_seconds, 0.0)?,
            warm_up: time("--warm-up-seconds", options.warm_up_seconds, 0.0)?,
            measure: time("--seconds", options.seconds, 0.1)?,
            drain: time("--drain-seconds", options.drain_seconds, 0.0)?,
        };
        let source_addresses = within("--source-addresses", options.source_addresses, 1, SOURCE_ADDRESSES_MAX)?;
        if source_addresses > 1 && !(target.address.is_ipv4() && target.address.ip().is_loopback()) {
            let reason =
                "--source-addresses are 127.0.0.1, 127.0.0.2, …: the server must be on 127.0.0.1 too".to_owned();
            return Err(BenchError::Options { reason });
        }
        Ok(Self {
            scenario: options.scenario,
            protocol: options.protocol,
            url: options.url,
            target,
            wording,
            connections,
            rooms,
            publishers,
            window,
            rate,
            message_bytes,
            sender_excluded: options.sender_excluded,
            times,
            connecting: within("--connecting", options.connecting, 1, CONNECTING_MAX)?,
            source_addresses,
            cpu: options.cpu,
            pid: options.pid,
        })
    }

    /// The members a room has, at most.
    pub(super) fn members(&self) -> u32 {
        self.connections.div_ceil(self.rooms)
    }
}

fn within<T: PartialOrd + Copy + std::fmt::Display>(
    option: &'static str,
    value: T,
    least: T,
    most: T,
) -> Result<T, BenchError> {
    // So that NaN is out of bounds as well.
    if value >= least && value <= most {
        Ok(value)
    } else {
        let (value, least, most) = (value.to_string(), least.to_string(), most.to_string());
        Err(BenchError::Bound { option, value, least, most })
    }
}

/// Connections and rooms.
fn seats(options: &Options) -> Result<(u32, u32), BenchError> {
    let defaults = options.scenario.defaults();
    if options.connections.is_some() && options.members.is_some() {
        let reason =
            "--connections and --members exclude each other: a room has connections / rooms members".to_owned();
        return Err(BenchError::Options { reason });
    }
    if options.scenario == Scenario::Echo {
        if options.members.is_some() || options.rooms.is_some() {
            let reason = "echo has no rooms: give --connections".to_owned();
            return Err(BenchError::Options { reason });
        }
        let connections = options.connections.unwrap_or(defaults.rooms);
        within("--connections", connections, 1, CONNECTIONS_MAX)?;
        return Ok((connections, connections));
    }
    let rooms = within("--rooms", options.rooms.unwrap_or(defaults.rooms), 1, CONNECTIONS_MAX)?;
    let members = within("--members", options.members.unwrap_or(defaults.members), 1, CONNECTIONS_MAX)?;
    let connections = options.connections.unwrap_or(rooms.saturating_mul(members));
    within("--connections", connections, 1, CONNECTIONS_MAX)?;
    Ok((connections, rooms.min(connections)))
}

impl Wording {
    fn new(options: &Options, target: &Target) -> Result<Self, BenchError> {
        let custom = !options.hello.is_empty() || !options.awaited.is_empty() || options.publish.is_some();
        if custom && options.protocol != Protocol::Custom {
            let reason = "--hello, --await and --publish are for --protocol custom".to_owned();
            return Err(BenchError::Options { reason });
        }
        let echo = options.scenario == Scenario::Echo;
        let mut target = target.clone();
        let mut hello: Vec<(&str, Option<&str>)> = Vec::new();
        let mut refusal = options.refusal.as_deref();
        let mut parameter = None;
        let publish = match options.protocol {
            Protocol::Raw => {
                if options.scenario == Scenario::Durable {
                    let reason = "durable needs a server that stores: give --protocol chat, or custom".to_owned();
                    return Err(BenchError::Options { reason });
                }
                if !echo {
                    parameter = Some("room={room}");
                } else if target.path == "/" {
                    "/echo".clone_into(&mut target.path);
                }
                "{ts}{pad}"
            }
            Protocol::Chat => {
                if target.path == "/" {
                    "/api/community/ws".clone_into(&mut target.path);
                }
                refusal = refusal.or(Some(r#"{"type":"ERROR""#));
                if echo {
                    r#"{"type":"PING","id":"{ts}","payload":{"pad":"{pad}"}}"#
                } else {
                    hello = vec![(r#"{"type":"SUBSCRIBE","channel":"room:{room}"}"#, Some(r#""SUBSCRIBED""#))];
                    r#"{"type":"CHAT_MESSAGE","channel":"room:{room}","payload":{"content":"{ts}{pad}"}}"#
                }
            }
            Protocol::Custom => {
                let awaited = options.awaited.iter().map(|text| Some(text.as_str())).chain(std::iter::repeat(None));
                hello = options.hello.iter().map(String::as_str).zip(awaited).collect();
                if options.awaited.len() > options.hello.len() {
                    let reason = "each --await belongs to the --hello before it: there are more of them".to_owned();
                    return Err(BenchError::Options { reason });
                }
                options.publish.as_deref().unwrap_or("{ts}{pad}")
            }
        };
        let publish = Template::parse("--publish", publish)?;
        if !publish.has_stamp() && options.scenario.publishes() {
            let reason = "--publish must have {ts}: by it a delivery is recognised, and its latency known".to_owned();
            return Err(BenchError::Options { reason });
        }
        let mut headers = options.headers.clone();
        let mut path = target.with_query(parameter);
        if !options.tokens.is_empty() {
            match options.token_in {
                TokenIn::Header => headers.push("Authorization: Bearer {token}".to_owned()),
                TokenIn::Query => path = format!("{path}{}token={{token}}", if path.contains('?') { '&' } else { '?' }),
            }
        }
        let headers = headers.iter().map(|header| parse_header(header)).collect::<Result<_, _>>()?;
        let hello = hello.into_iter().map(|(text, awaited)| {
            let awaited = awaited.map(|awaited| awaited.as_bytes().into());
            Ok((Template::parse("--hello", text)?, awaited))
        });
        Ok(Self {
            path: Template::parse("--url", &path)?,
            headers,
            hello: hello.collect::<Result<_, BenchError>>()?,
            publish,
            refusal: refusal.map(|refusal| refusal.as_bytes().into()),
            tokens: tokens(&options.tokens)?,
        })
    }
}

fn parse_header(text: &str) -> Result<Template, BenchError> {
    let name = text.split_once(':').map(|(name, _)| name.trim()).filter(|name| !name.is_empty());
    if name.is_none() || text.contains(['\r', '\n']) {
        return Err(BenchError::Options {
            reason: format!("--header {text:?}: write it as 'Name: value', in one line"),
        });
    }
    Template::parse("--header", text)
}

fn tokens(tokens: &[String]) -> Result<Vec<String>, BenchError> {
    within("--tokens", tokens.len(), 0, TOKENS_MAX)?;
    for token in tokens {
        within("--token, in bytes,", token.len(), 1, TOKEN_BYTES_MAX)?;
        if token.bytes().any(|byte| !byte.is_ascii_graphic()) {
            let reason = "--token: a token has neither spaces nor line breaks".to_owned();
            return Err(BenchError::Options { reason });
        }
    }
    Ok(if tokens.is_empty() { vec![String::new()] } else { tokens.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::stamp::Stamp;
    use crate::bench::template::Values;

    fn options(scenario: Scenario, protocol: Protocol) -> Options {
        Options {
            scenario,
            url: "ws://127.0.0.1:1".to_owned(),
            remote: false,
            protocol,
            tokens: Vec::new(),
            token_in: TokenIn::Header,
            headers: Vec::new(),
            hello: Vec::new(),
            awaited: Vec::new(),
            publish: None,
            refusal: None,
            sender_excluded: false,
            connections: None,
            rooms: None,
            members: None,
            publishers: None,
            window: None,
            rate: None,
            message_bytes: 128,
            seconds: 1.0,
            warm_up_seconds: 0.0,
            drain_seconds: 1.0,
            settle_seconds: 0.0,
            connect_seconds: 1.0,
            connecting: 1,
            source_addresses: 1,
            cpu: None,
            pid: None,
        }
    }

    fn path(options: Options) -> String {
        let plan = Plan::new(options).unwrap();
        let stamp = Stamp { due_ns: 0, slot: 0 };
        plan.wording.path.text(&Values { room: 3, conn: 0, seq: 0, stamp, token: "t", bytes: 0 })
    }

    #[test]
    fn defaults_are_the_scenarios() {
        let plan = Plan::new(options(Scenario::FanOut, Protocol::Raw)).unwrap();
        assert_eq!((plan.connections, plan.rooms, plan.publishers, plan.window), (1_000, 1, 8, 32));
        let plan = Plan::new(Options { connections: Some(7), ..options(Scenario::Echo, Protocol::Raw) }).unwrap();
        assert_eq!((plan.connections, plan.rooms, plan.publishers, plan.window), (7, 7, 1, 1));
        let plan = Plan::new(Options { connections: Some(7), ..options(Scenario::Idle, Protocol::Raw) }).unwrap();
        assert_eq!((plan.connections, plan.rooms), (7, 7), "no room without members");
    }

    #[test]
    fn each_protocol_has_its_paths() {
        assert_eq!(path(options(Scenario::FanOut, Protocol::Raw)), "/?room=r3");
        assert_eq!(path(options(Scenario::Echo, Protocol::Raw)), "/echo");
        assert_eq!(path(options(Scenario::Durable, Protocol::Chat)), "/api/community/ws");
        let mut with_token = options(Scenario::FanOut, Protocol::Raw);
        with_token.url = "ws://127.0.0.1:1/relay?a=b".to_owned();
        with_token.tokens = vec!["t".to_owned()];
        with_token.token_in = TokenIn::Query;
        assert_eq!(path(with_token.clone()), "/relay?a=b&room=r3&token=t");
        with_token.scenario = Scenario::Echo;
        assert_eq!(path(with_token), "/relay?a=b&token=t");
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let good = || options(Scenario::Rooms, Protocol::Raw);
        for (bad, word) in [
            (Options { rooms: Some(0), ..good() }, "--rooms = 0"),
            (Options { members: Some(1_000), ..good() }, "--connections = 1000000"),
            (Options { window: Some(1_000), ..good() }, "--window"),
            (Options { rate: Some(0), ..good() }, "--rate = 0"),
            (Options { seconds: f64::NAN, ..good() }, "--seconds = NaN"),
            (Options { seconds: f64::INFINITY, ..good() }, "--seconds"),
            (Options { message_bytes: 2, ..good() }, "--bytes = 2"),
            (Options { connecting: 0, ..good() }, "--connecting"),
            (Options { connections: Some(5), members: Some(5), ..good() }, "--members"),
            (Options { hello: vec!["x".to_owned()], ..good() }, "--protocol custom"),
            (Options { headers: vec!["no header".to_owned()], ..good() }, "--header"),
            (Options { tokens: vec!["a b".to_owned()], ..good() }, "--token"),
            (options(Scenario::Durable, Protocol::Raw), "--protocol chat"),
            (Options { rooms: Some(1), ..options(Scenario::Echo, Protocol::Raw) }, "--connections"),
            (Options { publish: Some("x".to_owned()), ..options(Scenario::Rooms, Protocol::Custom) }, "{ts}"),
            (Options { awaited: vec!["x".to_owned()], ..options(Scenario::Rooms, Protocol::Custom) }, "--await"),
        ] {
            let error = Plan::new(bad).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(word), "{word}: {error}");
        }
    }
}
