//! Paths of mounts: literal segments, and `{name}` segments that hold a value, like `/yjs/{draftId}`.

use std::fmt;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer, de};

/// A parsed path. Displays as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPath {
    text: Box<str>,
    segments: Box<[Segment]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    Value(Box<str>),
}

/// The paths of a mount: one, or several. Displays them with commas between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPaths(Box<[MountPath]>);

impl MountPaths {
    /// The paths in order; at least one.
    pub fn iter(&self) -> impl Iterator<Item = &MountPath> {
        self.0.iter()
    }

    /// The first whose values a path (the raw path of a URI) has.
    pub fn matches(&self, path: &str) -> Option<PathValues> {
        self.iter().find_map(|candidate| candidate.matches(path))
    }

    /// Whether one of them has a segment `{name}`.
    pub fn has_value(&self, name: &str) -> bool {
        self.iter().any(|path| path.has_value(name))
    }
}

impl From<MountPath> for MountPaths {
    fn from(path: MountPath) -> Self {
        Self(Box::new([path]))
    }
}

impl fmt::Display for MountPaths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.iter().map(|path| &*path.text).collect();
        f.write_str(&texts.join(", "))
    }
}

/// A string, or an array of them.
impl<'de> Deserialize<'de> for MountPaths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PathsVisitor;
        impl<'de> de::Visitor<'de> for PathsVisitor {
            type Value = MountPaths;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, or an array of paths")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                MountPath::parse(text).map(MountPaths::from).map_err(E::custom)
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut texts: A) -> Result<Self::Value, A::Error> {
                let mut paths = Vec::new();
                while let Some(path) = texts.next_element::<MountPath>()? {
                    paths.push(path);
                }
                if paths.is_empty() {
                    return Err(de::Error::custom("must not be empty"));
                }
                Ok(MountPaths(paths.into()))
            }
        }
        deserializer.deserialize_any(PathsVisitor)
    }
}

/// The values of a path's `{name}` segments in one request, percent-decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathValues(Vec<(Box<str>, String)>);

impl PathValues {
    /// The value of the segment `{name}`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| &**found == name).map(|(_, value)| value.as_str())
    }
}

/// Why a path is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with `/`.
    #[error("a path begins with '/'")]
    Relative,
    /// It ends with `/`, or has an empty segment, or one that is only dots.
    #[error("a path has no empty segments and none of only dots, and does not end with '/'")]
    EmptySegment,
    /// A segment has a character that URLs would encode, or braces that are not `{name}`.
    #[error("the segment {segment:?} may have only A-Z a-z 0-9 . _ ~ - or be a placeholder like {{draftId}}")]
    Segment {
        /// The segment.
        segment: String,
    },
    /// Two segments have the same name.
    #[error("{{{name}}} stands twice in the path")]
    Twice {
        /// The name.
        name: String,
    },
}

impl MountPath {
    /// Parses a path such as `/api/ws` or `/yjs/{draftId}`.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let rest = text.strip_prefix('/').ok_or(PathError::Relative)?;
        // The root alone has no segments.
        let segments = if rest.is_empty() {
            Box::default()
        } else {
            rest.split('/').map(parse_segment).collect::<Result<Box<[_]>, _>>()?
        };
        for (index, segment) in segments.iter().enumerate() {
            if let Segment::Value(name) = segment
                && segments[..index].contains(segment)
            {
                return Err(PathError::Twice { name: name.to_string() });
            }
        }
        Ok(Self { text: text.into(), segments })
    }

    /// The values of the path's placeholders if `path` (the raw path of a URI) is this one. A `/` at its end
    /// makes no difference.
    pub fn matches(&self, path: &str) -> Option<PathValues> {
        self.matches_start(path).and_then(|(values, rest)| (rest == "/").then_some(values))
    }

    /// Like [`MountPath::matches`], for this path and all below it; also what is below it, beginning with `/`
    /// (`/` alone for the path itself).
    pub fn matches_start<'p>(&self, path: &'p str) -> Option<(PathValues, &'p str)> {
        let mut rest = path;
        let mut values = PathValues::default();
        for segment in &self.segments {
            rest = rest.strip_prefix('/')?;
            let end = rest.find('/').unwrap_or(rest.len());
            let found = &rest[..end];
            rest = &rest[end..];
            match segment {
                Segment::Literal(text) if **text == *found => {}
                Segment::Literal(_) => return None,
                Segment::Value(_) if found.is_empty() => return None,
                Segment::Value(name) => {
                    values.0.push((name.clone(), percent_decode_str(found).decode_utf8_lossy().into_owned()));
                }
            }
        }
        Some((values, if rest.is_empty() { "/" } else { rest }))
    }

    /// Whether the path has a segment `{name}`.
    pub fn has_value(&self, name: &str) -> bool {
        self.segments.iter().any(|segment| matches!(segment, Segment::Value(found) if **found == *name))
    }

    /// Whether both match the same paths, whatever their placeholders are called.
    pub fn same_shape(&self, other: &Self) -> bool {
        let same = |pair: (&Segment, &Segment)| match pair {
            (Segment::Literal(a), Segment::Literal(b)) => a == b,
            (Segment::Value(_), Segment::Value(_)) => true,
            _ => false,
        };
        self.segments.len() == other.segments.len() && self.segments.iter().zip(&other.segments).all(same)
    }

    /// How many of the segments are placeholders: the fewer, the closer a match.
    pub fn values(&self) -> usize {
        self.segments.len() - self.literals()
    }

    /// How many are not: the more, the closer.
    pub fn literals(&self) -> usize {
        self.segments.iter().filter(|segment| matches!(segment, Segment::Literal(_))).count()
    }
}

fn parse_segment(segment: &str) -> Result<Segment, PathError> {
    if segment.bytes().all(|byte| byte == b'.') {
        return Err(PathError::EmptySegment);
    }
    let (name, text) = match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        Some(name) => (true, name),
        None => (false, segment),
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || (!name && ".~-".contains(c));
    if text.is_empty() || !text.chars().all(allowed) {
        return Err(PathError::Segment { segment: segment.to_owned() });
    }
    Ok(if name { Segment::Value(text.into()) } else { Segment::Literal(text.into()) })
}

impl fmt::Display for MountPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for MountPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_matches_whole_segments_and_decodes_its_values() {
        let path = MountPath::parse("/yjs/{draftId}").unwrap();

        assert_eq!(path.matches("/yjs/a%20b").unwrap().get("draftId"), Some("a b"));
        for other in ["/yjs", "/yjs/", "/yjs/a/b", "/yjsx/a", "yjs/a", "/", ""] {
            assert_eq!(path.matches(other), None, "{other:?}");
        }
        let (values, rest) = path.matches_start("/yjs/a/health").unwrap();
        assert_eq!((values.get("draftId"), rest), (Some("a"), "/health"));
        assert_eq!(path.matches_start("/yjs/a").unwrap().1, "/");
    }

    #[test]
    fn the_root_is_a_path_of_its_own() {
        let root = MountPath::parse("/").unwrap();

        assert!(root.matches("/").is_some() && root.matches("").is_some());
        assert_eq!(root.matches("/ws"), None);
        assert_eq!(root.matches_start("/health").unwrap().1, "/health");
    }

    #[test]
    fn an_encoded_slash_stays_within_its_value() {
        let path = MountPath::parse("/yjs/{draftId}").unwrap();

        assert_eq!(path.matches("/yjs/a%2Fb").unwrap().get("draftId"), Some("a/b"));
    }

    #[test]
    fn paths_that_cannot_be_requested_are_refused() {
        for bad in [
            "", "ws", "//", "/ws/", "//ws", "/a/../b", "/a b", "/a?b", "/{}", "/{a}{b}", "/x{a}", "/{a}/{a}", "/%41",
            "/ä",
        ] {
            assert!(MountPath::parse(bad).is_err(), "{bad:?}");
        }
    }
}
