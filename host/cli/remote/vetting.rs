//! Shows the vetting of a version, and follows one that goes on.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::api::Api;
use crate::cli::Failure;
use crate::cli::remote::show::{Look, number, paint, plain, short, text};

/// How often a vetting that goes on is looked at.
const POLL: Duration = Duration::from_millis(200);
/// Longest time it is followed: several components may be before it.
const WAIT_MAX: Duration = Duration::from_mins(30);
/// What is shown of the evidence of a step that failed, in characters.
const EVIDENCE_CHARS_MAX: usize = 2_000;

/// Follows the vetting of a version to its end; each step is told when it ended. Answers with the version as it is then.
///
/// # Errors
/// If the broker cannot be asked, or it takes too long.
pub(super) fn follow(api: &Api, path: &str, mut tell: impl FnMut(&str)) -> Result<Value, Failure> {
    let begun = Instant::now();
    let mut told = 0;
    loop {
        let version = api.get(path, &[])?;
        let steps = version["vetting"]["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
        for step in steps.get(told..).unwrap_or_default() {
            tell(&line(step));
        }
        told = told.max(steps.len());
        if !matches!(version["status"].as_str(), Some("uploaded" | "vetting")) {
            return Ok(version);
        }
        if begun.elapsed() > WAIT_MAX {
            return Err(Failure::other(format!(
                "it is still being vetted after {WAIT_MAX:?}; look again with `hotbay plugin show`"
            )));
        }
        std::thread::sleep(POLL);
    }
}

/// The steps of a vetting, a line each.
pub(super) fn steps(vetting: &Value) -> String {
    let steps = vetting["steps"].as_array().into_iter().flatten();
    steps.fold(String::new(), |text, step| text + &line(step) + "\n")
}

/// A step: whether it passed, how long it took, and what speaks against it.
fn line(step: &Value) -> String {
    let verdict = step["verdict"].as_str().unwrap_or_default();
    let sign = match verdict {
        "passed" => paint(Look::Green, "✓"),
        "failed" => paint(Look::Red, "✗"),
        _ => paint(Look::Faint, "-"),
    };
    let evidence = &step["evidence"];
    let why = match (text(step, "step").as_str(), verdict) {
        ("chosen", _) => format!("  tapes {}", text(evidence, "tapes").trim_matches(['[', ']'])),
        (_, "passed") => String::new(),
        // There was nothing to do.
        (_, "skipped") if evidence["error"].is_null() => String::new(),
        _ => format!("  {}", cause(evidence)),
    };
    let tapes = evidence["tapes"].as_array().into_iter().flatten().filter(|tape| tape.is_object());
    let tapes: String = tapes.map(played).collect();
    format!("{sign} {:<12} {:>6} ms{why}{tapes}", text(step, "step"), number(step, "ms"))
}

/// What came of a tape: how much of it was played, and what the version does differently.
fn played(tape: &Value) -> String {
    let name = text(tape, "tape");
    if tape["unplayed"].is_string() {
        return format!("\n    {name}: not played: {}", text(tape, "unplayed"));
    }
    let recorded = tape["recorded"].as_array().into_iter().flatten().filter_map(Value::as_str).map(short);
    let against = match tape["beside"].as_str() {
        Some(deployed) => format!("deployed is {}", short(deployed)),
        None => format!("recorded with {}", recorded.collect::<Vec<_>>().join(", ")),
    };
    let (batches, events, differing) = (number(tape, "batches"), number(tape, "events"), number(tape, "differing"));
    let outcome = if differing == 0 { "the same effects".to_owned() } else { format!("{differing} differences") };
    let head = format!("\n    {name}: {batches} batches, {events} events, {against}: {outcome}");
    let told = tape["differences"].as_array().map(Vec::as_slice).unwrap_or_default();
    let shown = told.iter().fold(head, |out, difference| {
        out + "\n      " + &plain(difference.as_str().unwrap_or_default()).replace('\n', " ")
    });
    match differing.saturating_sub(told.len() as u64) {
        0 => shown,
        more => format!("{shown}\n      and {more} more"),
    }
}

/// What the evidence says in words, or all of it.
fn cause(evidence: &Value) -> String {
    let words = ["error", "cause", "reason", "why", "message"].iter().find_map(|key| evidence[*key].as_str());
    let words = words.map_or_else(|| evidence.to_string(), str::to_owned);
    plain(&words).chars().take(EVIDENCE_CHARS_MAX).collect()
}
