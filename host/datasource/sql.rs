//! The text of a statement with `$1`, `$2`, … where its parameters go, which SQLite and Postgres both understand. Finds the
//! places, and writes a text in which one of them stands for many keys. Pure; knows no database.

use std::ops::Range;

/// A statement's text, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sql {
    text: Box<str>,
    /// Where the parameters stand, and which: counted from 0.
    places: Box<[(Range<usize>, usize)]>,
}

/// Why a text is not a statement's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SqlTextError {
    /// A quote or a comment is not closed.
    #[error("{what} is not closed")]
    Open {
        /// What.
        what: &'static str,
    },
    /// A parameter that was not declared.
    #[error("${number} stands in the SQL, but there are {declared} parameters")]
    Undeclared {
        /// As it stands there.
        number: usize,
        /// How many there are.
        declared: usize,
    },
    /// A parameter that does not occur.
    #[error("${number} does not occur in the SQL")]
    Unused {
        /// As it would stand there.
        number: usize,
    },
    /// The key of a batch stands where many keys cannot.
    #[error("with batch_key, $1 must stand as IN ($1), directly between the parentheses, and nowhere else")]
    KeyPlace,
}

impl Sql {
    /// Takes a text apart that must use parameters 1 to `declared`, each at least once.
    ///
    /// # Errors
    /// See [`SqlTextError`].
    pub fn parse(text: &str, declared: usize) -> Result<Self, SqlTextError> {
        let places = places(text)?;
        for (_, index) in &places {
            if *index >= declared {
                return Err(SqlTextError::Undeclared { number: index.wrapping_add(1), declared });
            }
        }
        for index in 0..declared {
            if !places.iter().any(|(_, used)| *used == index) {
                return Err(SqlTextError::Unused { number: index + 1 });
            }
        }
        Ok(Self { text: text.into(), places: places.into() })
    }

    /// The text as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the first parameter may stand for many: wherever it stands, it stands as `IN ($1)`.
    ///
    /// # Errors
    /// See [`SqlTextError::KeyPlace`].
    pub fn check_key_places(&self) -> Result<(), SqlTextError> {
        let is_list = |place: &Range<usize>| {
            let list = self.text[..place.start].trim_end().strip_suffix('(').and_then(|text| before_word(text, "in"));
            // Rows without the keys are no rows of theirs.
            list.is_some_and(|before| before_word(before, "not").is_none())
                && self.text[place.end..].trim_start().starts_with(')')
        };
        let mut keys = self.places.iter().filter(|(_, index)| *index == 0);
        if keys.all(|(place, _)| is_list(place)) { Ok(()) } else { Err(SqlTextError::KeyPlace) }
    }

    /// A text in which the first parameter stands for `keys` values, as in `IN ($1)`: they come last, after the others.
    pub fn for_keys(&self, keys: usize, declared: usize) -> String {
        let others = declared - 1;
        let list = (1..=keys).map(|key| format!("${}", others + key)).collect::<Vec<_>>().join(",");
        let numbers: Vec<String> = (1..=others).map(|number| format!("${number}")).collect();
        let mut text = String::with_capacity(self.text.len() + list.len());
        let mut from = 0;
        for (place, index) in &self.places {
            text.push_str(&self.text[from..place.start]);
            text.push_str(if *index == 0 { &list } else { &numbers[index - 1] });
            from = place.end;
        }
        text.push_str(&self.text[from..]);
        text
    }
}

/// What stands before a text's last word, if it is this one.
fn before_word<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let text = text.trim_end();
    let (before, last) = text.split_at_checked(text.len().checked_sub(word.len())?)?;
    let is_within = before.ends_with(|last: char| last.is_alphanumeric() || ['_', '$', '.'].contains(&last));
    (last.eq_ignore_ascii_case(word) && !is_within).then_some(before)
}

/// Where parameters stand: `$` and digits, outside of quotes, comments and the dollar quotes of Postgres.
fn places(text: &str) -> Result<Vec<(Range<usize>, usize)>, SqlTextError> {
    let bytes = text.as_bytes();
    let mut places = Vec::new();
    let mut at = 0;
    // Past the end of what begins at `at` and ends with `end`.
    let past = |at: usize, end: &str, what| match text[at..].find(end) {
        Some(found) => Ok(at + found + end.len()),
        None => Err(SqlTextError::Open { what }),
    };
    while at < bytes.len() {
        at = match bytes[at] {
            // A doubled quote within quotes looks like two texts side by side, which does here.
            b'\'' => past(at + 1, "'", "a quoted text")?,
            b'"' => past(at + 1, "\"", "a quoted name")?,
            b'-' if text[at..].starts_with("--") => text[at..].find('\n').map_or(bytes.len(), |end| at + end),
            b'/' if text[at..].starts_with("/*") => past(at + 2, "*/", "a comment")?,
            b'$' => {
                let digits = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                let word =
                    bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
                if digits > 0 {
                    let end = at + 1 + digits;
                    let number: usize = text[at + 1..end].parse().unwrap_or(usize::MAX);
                    places.push((at..end, number.wrapping_sub(1)));
                    end
                } else if bytes.get(at + 1 + word) == Some(&b'$') {
                    let tag = &text[at..at + word + 2];
                    past(at + tag.len(), tag, "a dollar-quoted text")?
                } else {
                    at + 1
                }
            }
            _ => at + 1,
        };
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_parameter_stands_for_many_keys_and_the_others_keep_their_order() {
        let sql = Sql::parse("SELECT * FROM o WHERE at > $2 AND id IN ($1) AND at < $3", 3).unwrap();

        assert_eq!(sql.for_keys(1, 3), "SELECT * FROM o WHERE at > $1 AND id IN ($3) AND at < $2");
        assert_eq!(sql.for_keys(3, 3), "SELECT * FROM o WHERE at > $1 AND id IN ($3,$4,$5) AND at < $2");
    }

    #[test]
    fn what_is_quoted_or_said_in_comments_is_no_parameter() {
        let text = "SELECT '$1 it''s $2', \"$3\", $$ $4 $$, $q$ $5 ' $q$, a$b -- $6\n /* $7 ' */ WHERE x = $1";

        let sql = Sql::parse(text, 1).unwrap();

        assert_eq!(sql.for_keys(2, 1), text.replace("x = $1", "x = $1,$2"));
    }

    /// Law: a statement for many keys asks for the rows of each of them, and of nobody else.
    #[test]
    fn keys_stand_in_lists_alone() {
        let check = |text| Sql::parse(text, 1).unwrap().check_key_places();

        for text in ["id IN ($1)", "id in\n( $1 )", "\"id\"IN($1)", "id IN ($1) OR (other) IN ($1)"] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        for text in [
            "id = $1",
            "id IN ($1, 'x')",
            "id IN ('x', $1)",
            "id IN (lower($1))",
            "id IN ($1::text)",
            "id NOT IN ($1)",
            "id not\nin($1)",
            "id = ANY ($1)",
            "within($1)",
            "x.in($1)",
            "($1)",
            "id IN ($1) OR $1 = 'x'",
        ] {
            assert_eq!(check(text), Err(SqlTextError::KeyPlace), "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_its_parameters_is_refused() {
        let refused = |text, declared| Sql::parse(text, declared).unwrap_err().to_string();

        assert_eq!(refused("SELECT $2", 1), "$2 stands in the SQL, but there are 1 parameters");
        assert_eq!(refused("SELECT $0", 1), "$0 stands in the SQL, but there are 1 parameters");
        assert_eq!(refused("SELECT $1", 2), "$2 does not occur in the SQL");
        assert_eq!(refused("SELECT '$1", 0), "a quoted text is not closed");
        assert_eq!(refused("SELECT 1 /* ", 0), "a comment is not closed");
        assert!(Sql::parse("SELECT $99999999999999999999999", 1).is_err());
    }
}
