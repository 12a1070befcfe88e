//! The query string of a request, decoded once (`application/x-www-form-urlencoded`, as browsers write it).

use percent_encoding::percent_decode_str;

/// Decoded parameters in the order of the request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Decodes the part of a URI after `?`. Never fails: what is not valid UTF-8 once decoded gets replacement
    /// characters, which no name and no token may contain. Its length is bounded by
    /// [`HTTP_HEADER_BYTES_MAX`](crate::limits::HTTP_HEADER_BYTES_MAX).
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self { pairs: pairs.collect() }
    }

    /// The query of a request's URI.
    pub fn of(uri: &http::Uri) -> Self {
        Self::parse(uri.query().unwrap_or_default())
    }

    /// The first value of a parameter. It is empty for `?name` and `?name=`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// All parameters in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::Query;

    #[test]
    fn parameters_are_decoded_and_the_first_of_a_name_counts() {
        let query = Query::parse("draftId=a%20b+c&&flag&x=1&x=2&bad=%ff&%74oken=t");

        assert_eq!(query.get("draftId"), Some("a b c"));
        assert_eq!(query.get("flag"), Some(""));
        assert_eq!(query.get("x"), Some("1"));
        assert_eq!(query.get("bad"), Some("\u{fffd}"));
        assert_eq!(query.get("token"), Some("t"));
        assert_eq!(query.get("absent"), None);
        assert_eq!(query.iter().count(), 7 - 1);
    }
}
