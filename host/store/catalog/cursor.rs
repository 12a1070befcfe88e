//! Where a page of a list ended.

use std::fmt;
use std::str::FromStr;

use crate::store::StoreError;

/// Where a page of a list ended: opaque, but for the list it is of. As text it has only characters that need no escaping in a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(Place);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Id(i64),
    Time { at_ms: i64, id: i64 },
    Name { tenant: String, name: String },
}

/// A text that is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a cursor; take `next` of the page before as it is, or leave it out to begin again")]
pub struct CursorError;

impl Cursor {
    pub(in crate::store) fn of_id(id: i64) -> Self {
        Self(Place::Id(id))
    }

    pub(in crate::store) fn of_time(at_ms: i64, id: i64) -> Self {
        Self(Place::Time { at_ms, id })
    }

    pub(in crate::store) fn of_name(tenant: &str, name: &str) -> Self {
        Self(Place::Name { tenant: tenant.to_owned(), name: name.to_owned() })
    }

    pub(in crate::store) fn id(&self) -> Result<i64, StoreError> {
        match self.0 {
            Place::Id(id) => Ok(id),
            _ => Err(foreign()),
        }
    }

    pub(in crate::store) fn time(&self) -> Result<(i64, i64), StoreError> {
        match self.0 {
            Place::Time { at_ms, id } => Ok((at_ms, id)),
            _ => Err(foreign()),
        }
    }

    /// Tenant and name.
    pub(in crate::store) fn name(&self) -> Result<(&str, &str), StoreError> {
        match &self.0 {
            Place::Name { tenant, name } => Ok((tenant, name)),
            _ => Err(foreign()),
        }
    }

    /// The name, if this is a place among those of the tenant.
    pub(in crate::store) fn name_of(&self, tenant: &str) -> Result<&str, StoreError> {
        let (of, name) = self.name()?;
        if of == tenant { Ok(name) } else { Err(foreign()) }
    }
}

fn foreign() -> StoreError {
    let detail = "the cursor is of another list; take `next` of the page before, or leave it out to begin again";
    StoreError::Constraint { detail: detail.to_owned() }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Id(id) => write!(f, "i{id}"),
            Place::Time { at_ms, id } => write!(f, "t{at_ms}.{id}"),
            Place::Name { tenant, name } => write!(f, "n{}.{}", hex::encode(tenant), hex::encode(name)),
        }
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let number = |text: &str| text.parse().map_err(|_| CursorError);
        let name = |text| String::from_utf8(hex::decode(text).map_err(|_| CursorError)?).map_err(|_| CursorError);
        let place = if let Some(rest) = text.strip_prefix('i') {
            Place::Id(number(rest)?)
        } else if let Some(rest) = text.strip_prefix('t') {
            let (at_ms, id) = rest.split_once('.').ok_or(CursorError)?;
            Place::Time { at_ms: number(at_ms)?, id: number(id)? }
        } else if let Some(rest) = text.strip_prefix('n') {
            let (tenant, of_tenant) = rest.split_once('.').ok_or(CursorError)?;
            Place::Name { tenant: name(tenant)?, name: name(of_tenant)? }
        } else {
            return Err(CursorError);
        };
        Ok(Self(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a cursor goes through a client and comes back the same, and nothing else becomes one.
    #[test]
    fn a_cursor_is_read_back_from_its_text() {
        let names = ["", "a", "room:1", "~+|@", "\u{10ffff}/."];
        let names = names.iter().flat_map(|tenant| names.map(|name| Cursor::of_name(tenant, name)));
        let numbers = [i64::MIN, -1, 0, 7, i64::MAX];
        let ids = numbers.map(Cursor::of_id);
        let times = numbers.iter().flat_map(|at_ms| numbers.map(|id| Cursor::of_time(*at_ms, id)));

        for cursor in names.chain(ids).chain(times) {
            let text = cursor.to_string();
            assert_eq!(text.parse(), Ok(cursor), "{text}");
            assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c)), "{text}");
        }
        for wrong in
            ["", "i", "i1.2", "x1", "1", "t1", "t1.", "t1.2.3", "i9223372036854775808", "n61", "n6.61", "nff.61"]
        {
            assert_eq!(wrong.parse::<Cursor>(), Err(CursorError), "{wrong}");
        }
    }
}
