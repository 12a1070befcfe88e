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
        "{{{placeholder}}} is no placeholder; there are {{user}}, {{claim.NAME}}, {{query.NAME}}, {{path.NAME}}, and alternatives like {{query.NAME|user}}"
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
    if source == "user" {
        return Ok(Source::User);
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
