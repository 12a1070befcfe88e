//! Reads answers that go on: server-sent events, each with its name, if it has one, and its data as JSON.

use std::io::{BufRead as _, BufReader};

use serde_json::Value;
use ureq::Body;
use ureq::http::Response;

use crate::cli::{Failure, output};

/// Prints what `words` makes of each event, a line each, until there are no more, or nobody reads it.
///
/// # Errors
/// If the answer breaks off.
pub(super) fn print(response: Response<Body>, words: impl Fn(&str, &Value) -> String) -> Result<(), Failure> {
    let mut event = String::new();
    for line in BufReader::new(response.into_body().into_reader()).lines() {
        let line = line.map_err(|e| Failure::other(format!("the broker ended it: {e}; try again")))?;
        if let Some(name) = line.strip_prefix("event: ") {
            name.clone_into(&mut event);
        } else if let Some(data) = line.strip_prefix("data: ") {
            let data: Value = serde_json::from_str(data).unwrap_or_default();
            if !output::line(words(&std::mem::take(&mut event), &data)) {
                return Ok(());
            }
        }
    }
    Ok(())
}
