//! Channel-name templates: how a mount turns who connects, and where, into the name of a channel.
//!
//! A template is a channel name in which whole parts (what stands between two `:`) may be placeholders, for example
//! `owner:{claim.ownerId}`. A value fills exactly one part and is checked like any part of a name, so no claim, query
//! key or path segment can add a separator, an empty part or anything else that would lead to another channel. Two
//! values never share a part, because then two different pairs of values could make the same name.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use crate::limits::CHANNEL_NAME_BYTES_MAX;
use crate::protocol::name::{ChannelPattern, NameError, check_part};

/// A parsed template. Displays as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: Box<str>,
    parts: Box<[Part]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    /// The first of these that has a value fills the part.
    Placeholder(Box<[Source]>),
}

/// Where a placeholder's value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// `{user}`: the id of the authenticated user.
    User,
    /// `{tenant}`: whose channel it will be.
    Tenant,
    /// `{claim.NAME}`: a claim of the verified token; strings and integers.
    Claim(Box<str>),
    /// `{query.NAME}`: a query parameter of the request.
    Query(Box<str>),
    /// `{path.NAME}`: a `{NAME}` segment of the mount's path.
    Path(Box<str>),
}

/// Gives the values of one request.
pub trait Values {
    /// The value of a source, or `None` if this request has none. Values are not trusted: [`Template::fill`] checks them.
    fn value(&self, source: &Source) -> Option<Cow<'_, str>>;
}

/// Why a template cannot be parsed or filled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A literal part, or a value, is not part of a name.
    #[error("{what} cannot be part of a channel name: {error}")]
    Name {
        /// The part or the source, as in the template.
        what: String,
        /// What is wrong with it.
        error: NameError,
    },
    /// Braces that do not enclose a whole part.
    #[error(
        "{part:?} mixes text and a placeholder; a placeholder stands for a whole part, like in owner:{{claim.ownerId}}"
    )]
    Mixed {
        /// The part.
        part: String,
    },
    /// A placeholder that is none.
    #[error(
        "{{{placeholder}}} is no placeholder; there are {{user}}, {{tenant}}, {{claim.NAME}}, {{query.NAME}}, {{path.NAME}}, and alternatives like {{query.NAME|user}}"
    )]
    Placeholder {
        /// What stands between the braces.
        placeholder: String,
    },
    /// The request has no value for a placeholder.
    #[error("there is no value for {{{placeholder}}}")]
    Missing {
        /// What stands between the braces.
        placeholder: String,
    },
    /// The filled name is longer than a name may be.
    #[error("the channel name would be longer than {CHANNEL_NAME_BYTES_MAX} bytes")]
    TooLong,
}

impl TemplateError {
    /// Whether another token would solve it: a claim or the user's id was missing or is no part of a name.
    pub fn is_of_identity(&self) -> bool {
        let culprit = match self {
            Self::Name { what, .. } => what,
            Self::Missing { placeholder } => placeholder,
            Self::Mixed { .. } | Self::Placeholder { .. } | Self::TooLong => return false,
        };
        culprit.contains("claim.") || culprit.contains("user")
    }
}

impl Template {
    /// Parses a template such as `room:lobby`, `owner:{claim.ownerId}` or `dashboard:{query.dashboardId|user}`.
    ///
    /// # Errors
    /// If a literal part is not part of a name, or a placeholder is none.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.len() > CHANNEL_NAME_BYTES_MAX {
            return Err(TemplateError::TooLong);
        }
        let parts = text.split(':').map(parse_part).collect::<Result<_, _>>()?;
        Ok(Self { text: text.into(), parts })
    }

    /// The name of the channel for these values.
    ///
    /// # Errors
    /// If a value is missing, is not part of a name, or the name gets too long.
    pub fn fill(&self, values: &impl Values) -> Result<String, TemplateError> {
        let mut name = String::with_capacity(self.text.len());
        for (index, part) in self.parts.iter().enumerate() {
            if index > 0 {
                name.push(':');
            }
            match part {
                Part::Literal(text) => name.push_str(text),
                Part::Placeholder(sources) => name.push_str(&pick(sources, values)?),
            }
        }
        if name.len() > CHANNEL_NAME_BYTES_MAX { Err(TemplateError::TooLong) } else { Ok(name) }
    }

    /// The sources the template may ask for, in order, alternatives too.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.parts.iter().flat_map(|part| match part {
            Part::Literal(_) => &[],
            Part::Placeholder(sources) => &**sources,
        })
    }

    /// The smallest pattern that matches every name this template can make.
    ///
    /// # Errors
    /// Never for a parsed template: what comes before the first placeholder was checked part by part.
    pub fn pattern(&self) -> Result<ChannelPattern, NameError> {
        ChannelPattern::parse(&self.pattern_text())
    }

    /// [`Template::pattern`] as it is written in `channels`, for example `owner:*`.
    pub fn pattern_text(&self) -> String {
        let mut text = String::with_capacity(self.text.len());
        for part in &self.parts {
            if !text.is_empty() {
                text.push(':');
            }
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Placeholder(_) => {
                    text.push('*');
                    break;
                }
            }
        }
        text
    }
}

fn parse_part(part: &str) -> Result<Part, TemplateError> {
    if let Some(placeholder) = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'))
        && !placeholder.contains(['{', '}'])
    {
        let sources =
            placeholder.split('|').map(|source| parse_source(source, placeholder)).collect::<Result<_, _>>()?;
        return Ok(Part::Placeholder(sources));
    }
    if part.contains(['{', '}']) {
        return Err(TemplateError::Mixed { part: part.to_owned() });
    }
    check_part("channel", part).map_err(|error| TemplateError::Name { what: format!("{part:?}"), error })?;
    Ok(Part::Literal(part.into()))
}

fn parse_source(source: &str, placeholder: &str) -> Result<Source, TemplateError> {
    match source {
        "user" => return Ok(Source::User),
        "tenant" => return Ok(Source::Tenant),
        _ => {}
    }
    match source.split_once('.') {
        Some((_, "")) | None => Err(TemplateError::Placeholder { placeholder: placeholder.to_owned() }),
        Some(("claim", name)) => Ok(Source::Claim(name.into())),
        Some(("query", name)) => Ok(Source::Query(name.into())),
        Some(("path", name)) => Ok(Source::Path(name.into())),
        Some(_) => Err(TemplateError::Placeholder { placeholder: placeholder.to_owned() }),
    }
}

/// The first value there is. A value that is there but not part of a name is an error, not a reason to go on to the
/// next source: falling through would put a client that asked for one channel into another.
fn pick<'a>(sources: &[Source], values: &'a impl Values) -> Result<Cow<'a, str>, TemplateError> {
    for source in sources {
        if let Some(value) = values.value(source) {
            check_part("channel", &value)
                .map_err(|error| TemplateError::Name { what: format!("the value of {{{source}}}"), error })?;
            return Ok(value);
        }
    }
    let placeholder = sources.iter().map(ToString::to_string).collect::<Vec<_>>().join("|");
    Err(TemplateError::Missing { placeholder })
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("user"),
            Self::Tenant => f.write_str("tenant"),
            Self::Claim(name) => write!(f, "claim.{name}"),
            Self::Query(name) => write!(f, "query.{name}"),
            Self::Path(name) => write!(f, "path.{name}"),
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::protocol::name::ChannelName;

    #[derive(Default)]
    struct Fixed(HashMap<String, String>);

    impl Fixed {
        fn new<const N: usize>(values: [(&str, &str); N]) -> Self {
            Self(values.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
        }
    }

    impl Values for Fixed {
        fn value(&self, source: &Source) -> Option<Cow<'_, str>> {
            self.0.get(&source.to_string()).map(|value| Cow::Borrowed(value.as_str()))
        }
    }

    fn fill<const N: usize>(template: &str, values: [(&str, &str); N]) -> Result<String, TemplateError> {
        Template::parse(template)?.fill(&Fixed::new(values))
    }

    #[test]
    fn placeholders_are_filled_with_the_first_value_there_is() {
        assert_eq!(fill("room:lobby", []), Ok("room:lobby".to_owned()));
        assert_eq!(fill("owner:{claim.ownerId}", [("claim.ownerId", "o-1")]), Ok("owner:o-1".to_owned()));
        let dashboard = "dashboard:{query.dashboardId|user}";
        assert_eq!(fill(dashboard, [("user", "ada")]), Ok("dashboard:ada".to_owned()));
        assert_eq!(fill(dashboard, [("user", "ada"), ("query.dashboardId", "7")]), Ok("dashboard:7".to_owned()));
        assert_eq!(
            fill(dashboard, []),
            Err(TemplateError::Missing { placeholder: "query.dashboardId|user".to_owned() })
        );
        assert_eq!(fill("{path.a}:x:{user}", [("path.a", "p"), ("user", "u")]), Ok("p:x:u".to_owned()));
    }

    #[test]
    fn a_bad_value_does_not_fall_through_to_the_next_source() {
        for bad in ["", "a:b", "..", "x y"] {
            let filled = fill("dashboard:{query.dashboardId|user}", [("user", "ada"), ("query.dashboardId", bad)]);
            assert!(matches!(filled, Err(TemplateError::Name { .. })), "{bad:?}");
        }
    }

    #[test]
    fn templates_that_could_be_misread_are_refused() {
        for bad in [
            "",
            ":",
            "a:",
            "a::b",
            "..",
            "a b",
            "owner-{user}",
            "{user}{user}",
            "{user",
            "user}",
            "{}",
            "{usr}",
            "{claim}",
            "{claim.}",
            "{user|}",
            "{{user}}",
            "*",
            "room:*",
            "{env.HOME}",
        ] {
            assert!(Template::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Template::parse(&"x".repeat(CHANNEL_NAME_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn the_pattern_of_a_template_is_its_text_up_to_the_first_placeholder() {
        for (template, pattern) in
            [("status", "status"), ("a:b", "a:b"), ("owner:{user}", "owner:*"), ("{user}", "*"), ("a:{user}:b", "a:*")]
        {
            let template = Template::parse(template).unwrap();
            assert_eq!(template.pattern_text(), pattern);
            assert!(template.pattern().is_ok());
        }
    }

    #[test]
    fn a_name_cannot_get_too_long() {
        let long = "x".repeat(128);
        assert_eq!(fill("{user}:{claim.a}", [("user", &*long), ("claim.a", &*long)]), Err(TemplateError::TooLong));
    }

    /// A small generator (SplitMix64); the seed is printed with every failure.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
            let index = self.next() % from.len() as u64;
            &from[usize::try_from(index).unwrap()]
        }
    }

    /// FAULTS 21. Goal: no value makes a name that is not a channel, is outside the template's pattern, or has other
    /// parts than the template; and different values make different names.
    /// Method: values put together at random from characters and pieces that attack.
    #[test]
    fn no_value_leads_outside_its_template() {
        const PIECES: [&str; 26] = [
            "a", "Z", "7", "-", "_", ".", "..", "@", "|", "+", "~", ":", "::", "*", "{", "}", "{user}", "/", "../",
            "%3a", "\0", "\n", " ", "а", "：", "room",
        ];
        const TEMPLATES: [&str; 6] = [
            "owner:{user}",
            "{user}",
            "a:{user}:b",
            "{user}:{claim.c}",
            "dm:{user}:{claim.c}",
            "x:{query.q|user}:{claim.c}:y",
        ];
        for seed in 0..20_000 {
            let mut random = Random(seed);
            let template = Template::parse(random.pick::<&str>(&TEMPLATES)).unwrap();
            let mut value = || (0..random.next() % 4).map(|_| *random.pick(&PIECES)).collect::<String>();
            let (one, other) = ((value(), value()), (value(), value()));
            let filled = |(user, c): &(String, String)| {
                template.fill(&Fixed::new([("user", user.as_str()), ("claim.c", c.as_str())])).ok()
            };

            let name = filled(&one);

            if let Some(name) = &name {
                assert!(ChannelName::new("default", name).is_ok(), "seed {seed}: {name:?}");
                assert!(template.pattern().unwrap().matches(name), "seed {seed}: {name:?} outside {template}");
                let (parts, expected): (Vec<_>, Vec<_>) =
                    (name.split(':').collect(), template.text.split(':').collect());
                assert_eq!(parts.len(), expected.len(), "seed {seed}: {name:?}");
                for (part, expected) in parts.iter().zip(&expected) {
                    assert!(expected.starts_with('{') || part == expected, "seed {seed}: {name:?}");
                }
                let uses_both = template.sources().count() >= 2;
                if filled(&other).as_ref() == Some(name) {
                    assert!(
                        one.0 == other.0 && (!uses_both || one.1 == other.1),
                        "seed {seed}: {one:?} and {other:?} make {name:?}"
                    );
                }
            }
        }
    }
}
