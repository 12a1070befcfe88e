//! Reads a scenario file. Every complaint names the line its step begins in, and the key.

use serde::Deserialize;
use serde_json::{Map, Value};
use toml::Spanned;

use super::fields::Fields;
use super::{
    Close, Frame, Happening, Join, Leave, Message, Publication, Publish, Refused, Request, Response, Scenario, Step,
    To, Wanted, What,
};
use crate::protocol::event::LeaveReason;
use crate::protocol::frame::Priority;
use crate::protocol::refusal::RefusalCode;

/// The file, with its steps untouched.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default = "usual_channel")]
    channel: String,
    #[serde(default)]
    settings: toml::Table,
    #[serde(default = "usual_seed")]
    seed: u64,
    #[serde(default, rename = "step")]
    steps: Vec<Spanned<toml::Table>>,
}

fn usual_channel() -> String {
    "room:1".to_owned()
}

fn usual_seed() -> u64 {
    1
}

/// Reads the text of a file; `name` is how messages call it.
///
/// # Errors
/// What is wrong, where, and what to write instead.
pub(crate) fn read(name: &str, text: &str) -> Result<Scenario, String> {
    let file: File = toml::from_str(text).map_err(|e| format!("{name}: {e}"))?;
    if file.steps.is_empty() {
        return Err(format!("{name}: there are no steps; begin one with [[step]]"));
    }
    let settings = table(file.settings).map_err(|e| format!("{name}: `settings`: {e}"))?;
    let mut steps = Vec::with_capacity(file.steps.len());
    for step in file.steps {
        let line = 1 + text[..step.span().start.min(text.len())].matches('\n').count();
        steps.push(self::step(line, step.into_inner()).map_err(|e| format!("{name}:{line}: {e}"))?);
    }
    Ok(Scenario { channel: file.channel, settings: Value::Object(settings).to_string(), seed: file.seed, steps })
}

fn table(table: toml::Table) -> Result<Map<String, Value>, String> {
    table.into_iter().map(|(key, value)| Ok((key, json(value)?))).collect()
}

/// TOML as JSON, which has no dates and no infinities.
fn json(value: toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => Value::from(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => serde_json::Number::from_f64(number)
            .map(Value::Number)
            .ok_or_else(|| format!("{number} is nothing that JSON has"))?,
        toml::Value::Boolean(value) => Value::from(value),
        toml::Value::Datetime(date) => return Err(format!("{date} is a date, which JSON has not; write \"{date}\"")),
        toml::Value::Array(values) => Value::Array(values.into_iter().map(json).collect::<Result<_, _>>()?),
        toml::Value::Table(values) => Value::Object(table(values)?),
    })
}

fn step(line: usize, step: toml::Table) -> Result<Step, String> {
    let mut fields = Fields::new("", table(step)?);
    let mut whats = Vec::new();
    whats.extend(happening(&mut fields)?.map(|happening| What::Batch(vec![happening])));
    if let Some(events) = fields.list("batch")? {
        whats.push(What::Batch(events.into_iter().map(batched).collect::<Result<_, _>>()?));
    }
    whats.extend(fields.number("after_ms")?.map(What::After));
    for (key, what) in [("restart", What::Restart), ("crash", What::Crash), ("kill", What::Kill)] {
        whats.extend(fields.flag(key)?.then_some(what));
    }
    let wanted = wanted(&mut fields)?;
    fields.end()?;
    let what = whats.pop().filter(|_| whats.is_empty());
    let what = what.ok_or(
        "a step has one of `join`, `leave`, `message`, `publish`, `request`, `batch`, `after_ms`, `restart`, `crash` and `kill`",
    )?;
    if matches!(&what, What::Batch(events) if events.is_empty()) {
        return Err("`batch` is empty".to_owned());
    }
    if matches!(what, What::Restart | What::Crash | What::Kill) && wanted != Wanted::default() {
        return Err("nothing goes out in this step: the next event opens the plugin again; expect it there".to_owned());
    }
    Ok(Step { line, what, wanted })
}

fn batched(value: Value) -> Result<Happening, String> {
    let mut fields = Fields::of("batch", value)?;
    let happening = happening(&mut fields)?;
    fields.end()?;
    happening
        .ok_or_else(|| "an event of `batch` has one of `join`, `leave`, `message`, `publish` and `request`".to_owned())
}

fn happening(fields: &mut Fields) -> Result<Option<Happening>, String> {
    let join = fields.take("join").map(join).transpose()?.map(Happening::Join);
    let leave = fields.take("leave").map(leave).transpose()?.map(Happening::Leave);
    let message = fields.take("message").map(message).transpose()?.map(Happening::Message);
    let publish = fields.take("publish").map(publish).transpose()?.map(Happening::Publish);
    let request = fields.take("request").map(request).transpose()?.map(Happening::Request);
    let mut found = [join, leave, message, publish, request].into_iter().flatten();
    match (found.next(), found.next()) {
        (_, Some(_)) => Err("one step is one event; for several at once use `batch = [ … ]`".to_owned()),
        (event, None) => Ok(event),
    }
}

fn join(value: Value) -> Result<Join, String> {
    let mut fields = Fields::short("join", value, "as")?;
    let (name, user) = match (fields.text("as")?, fields.text("user")?) {
        (Some(name), Some(user)) => (name, user),
        (Some(one), None) | (None, Some(one)) => (one.clone(), one),
        (None, None) => return Err("`join` needs a name: join = \"ann\"".to_owned()),
    };
    if name == "all" {
        return Err("a connection cannot be called \"all\": that is everybody".to_owned());
    }
    let join = Join {
        name,
        user,
        role: fields.text("role")?.unwrap_or_default(),
        claims: fields.object("claims")?,
        endpoint: fields.text("endpoint")?.unwrap_or_else(|| "/".to_owned()),
        frame: fields.said_in("frame")?,
    };
    fields.end()?;
    Ok(join)
}

fn leave(value: Value) -> Result<Leave, String> {
    let mut fields = Fields::short("leave", value, "as")?;
    let why = match fields.text("why")?.as_deref() {
        None | Some("disconnected") => LeaveReason::Disconnected,
        Some("asked") => LeaveReason::Asked,
        Some("closed") => LeaveReason::Closed,
        Some(other) => return Err(format!("`leave.why` is {other:?}; there are: disconnected, asked, closed")),
    };
    let leave = Leave { name: fields.needed_text("as")?, why, frame: fields.said_in("frame")? };
    fields.end()?;
    Ok(leave)
}

fn message(value: Value) -> Result<Message, String> {
    let mut fields = Fields::of("message", value)?;
    let message = Message { from: fields.needed_text("from")?, said: fields.needed_said()? };
    fields.end()?;
    Ok(message)
}

fn publish(value: Value) -> Result<Publish, String> {
    let mut fields = Fields::of("publish", value)?;
    let publish = Publish {
        channel: fields.text("channel")?,
        key: fields.text("key")?.unwrap_or_else(|| "test".to_owned()),
        said: fields.needed_said()?,
    };
    fields.end()?;
    Ok(publish)
}

fn request(value: Value) -> Result<Request, String> {
    let mut fields = Fields::short("request", value, "path")?;
    let request = Request {
        method: fields.text("method")?.unwrap_or_else(|| "GET".to_owned()),
        path: fields.text("path")?.unwrap_or_else(|| "/".to_owned()),
        query: fields.texts("query")?,
        headers: fields.texts("headers")?,
        user: fields.text("user")?,
        role: fields.text("role")?.unwrap_or_default(),
        said: fields.said()?,
    };
    fields.end()?;
    Ok(request)
}

fn wanted(fields: &mut Fields) -> Result<Wanted, String> {
    let all = fields.list("expect")?.map(|frames| frames.into_iter().map(frame).collect()).transpose()?;
    let some = fields.list("expect_some")?.unwrap_or_default();
    if all.is_some() && !some.is_empty() {
        return Err("a step has one of `expect`, which is all there is, and `expect_some`".to_owned());
    }
    let refused = match fields.take("refused") {
        None => Vec::new(),
        Some(Value::Array(values)) => values.into_iter().map(refused).collect::<Result<_, _>>()?,
        Some(value) => vec![self::refused(value)?],
    };
    let closes = fields.list("closes")?.unwrap_or_default();
    let publishes = fields.list("publishes")?;
    Ok(Wanted {
        all,
        some: some.into_iter().map(frame).collect::<Result<_, _>>()?,
        refused,
        closes: closes.into_iter().map(close).collect::<Result<_, _>>()?,
        publishes: publishes.map(|all| all.into_iter().map(publication).collect()).transpose()?,
        response: fields.take("response").map(response).transpose()?,
    })
}

fn frame(value: Value) -> Result<Frame, String> {
    let mut fields = Fields::of("expect", value)?;
    let to = fields.take("to").ok_or("a frame goes somewhere: add `to = \"all\"`, or the name of a connection")?;
    let priority = match fields.text("priority")?.as_deref() {
        None => None,
        Some("low") => Some(Priority::Low),
        Some("normal") => Some(Priority::Normal),
        Some("high") => Some(Priority::High),
        Some(other) => return Err(format!("`expect.priority` is {other:?}; there are: low, normal, high")),
    };
    let frame = Frame { to: self::to(to)?, priority, conflate: fields.text("conflate")?, said: fields.needed_said()? };
    fields.end()?;
    Ok(frame)
}

fn to(value: Value) -> Result<To, String> {
    match value {
        Value::String(name) if name == "all" => Ok(To::All),
        Value::String(name) => Ok(To::Only(vec![name])),
        Value::Array(names) => {
            let name = |name| match name {
                Value::String(name) => Ok(name),
                other => Err(format!("`to` lists names of connections, and {other} is none")),
            };
            Ok(To::Only(names.into_iter().map(name).collect::<Result<_, _>>()?))
        }
        other => {
            let mut fields = Fields::of("to", other)?;
            let to = match (fields.text("except")?, fields.text("user")?) {
                (Some(name), None) => To::Except(name),
                (None, Some(user)) => To::User(user),
                _ => return Err("`to` as a table is { except = \"ann\" } or { user = \"ann\" }".to_owned()),
            };
            fields.end()?;
            Ok(to)
        }
    }
}

fn refused(value: Value) -> Result<Refused, String> {
    let mut fields = Fields::short("refused", value, "code")?;
    let code = fields.needed_text("code")?;
    // Hosts write bad_request, the contract bad-request.
    let found = serde_json::from_value::<RefusalCode>(Value::from(code.replace('-', "_")));
    let refused = Refused {
        event: fields.number("event")?.unwrap_or(0),
        code: found.map_err(|e| format!("`refused` is {code:?}: {e}"))?,
        message: fields.text("message")?,
    };
    fields.end()?;
    Ok(refused)
}

fn close(value: Value) -> Result<Close, String> {
    let mut fields = Fields::short("closes", value, "member")?;
    let close =
        Close { member: fields.needed_text("member")?, code: fields.number("code")?, reason: fields.text("reason")? };
    fields.end()?;
    Ok(close)
}

fn publication(value: Value) -> Result<Publication, String> {
    let mut fields = Fields::of("publishes", value)?;
    let publication = Publication { channel: fields.needed_text("channel")?, said: fields.needed_said()? };
    fields.end()?;
    Ok(publication)
}

fn response(value: Value) -> Result<Response, String> {
    let mut fields = Fields::of("response", value)?;
    let response =
        Response { status: fields.number("status")?, headers: fields.texts("headers")?, said: fields.said()? };
    fields.end()?;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::author::item::Said;

    fn one(step: &str) -> Result<Step, String> {
        Ok(read("a.toml", &format!("[[step]]\n{step}"))?.steps.remove(0))
    }

    #[test]
    fn a_whole_file_is_read() {
        let text = r#"
            channel = "poll:1"
            settings = { size = 3 }
            seed = 7

            [[step]]
            join = { as = "phone", user = "ann", role = "referee", claims = { age = 7 } }

            [[step]]
            batch = [{ leave = "phone" }, { publish = { channel = "poll:2", text = "x" } }]
            expect = [{ to = { except = "phone" }, base64 = "AAE=", priority = "low", conflate = "k" }]
            refused = [{ code = "bad-request", event = 1 }]
            closes = ["phone", { member = "x", code = 4000 }]
        "#;

        let scenario = read("a.toml", text).unwrap();

        assert_eq!((&*scenario.channel, &*scenario.settings, scenario.seed), ("poll:1", r#"{"size":3}"#, 7));
        assert_eq!(scenario.steps.iter().map(|step| step.line).collect::<Vec<_>>(), [6, 9]);
        let What::Batch(events) = &scenario.steps[0].what else { panic!("{:?}", scenario.steps[0]) };
        assert!(matches!(&events[..], [Happening::Join(join)] if join.claims == r#"{"age":7}"# && join.user == "ann"));
        let wanted = &scenario.steps[1].wanted;
        let frame = &wanted.all.as_ref().unwrap()[0];
        assert_eq!((&frame.to, &frame.said), (&To::Except("phone".into()), &Said::Binary(vec![0, 1])));
        assert_eq!((wanted.refused[0].code, wanted.refused[0].event), (RefusalCode::BadRequest, 1));
        assert_eq!((wanted.closes.len(), wanted.closes[1].code), (2, Some(4_000)));
    }

    /// Goal: TOML has no null, so JSON may be written as it is.
    #[test]
    fn json_may_be_a_table_or_a_text_that_spells_it() {
        for (toml, expected) in [
            ("{ a = [1.0, true] }", json!({ "a": [1, true] })),
            (r#"'{"a":null}'"#, json!({ "a": null })),
            (r#"'"x"'"#, json!("x")),
        ] {
            let step = one(&format!("message = {{ from = \"ann\", json = {toml} }}")).unwrap();
            let What::Batch(events) = step.what else { panic!("{toml}") };
            assert!(matches!(&events[..], [Happening::Message(m)] if m.said == Said::Json(expected.clone())), "{toml}");
        }
    }

    /// Goal: an author who makes a mistake is told where, what is wrong and what to write.
    #[test]
    fn mistakes_are_named_with_line_and_key() {
        for (step, words) in [
            ("", vec!["a.toml:1", "a step has one of `join`"]),
            ("jion = \"ann\"", vec!["`jion`", "did you mean `join`?"]),
            ("join = \"ann\"\nleave = \"bob\"", vec!["batch"]),
            ("join = \"ann\"\ncrash = true", vec!["a step has one of"]),
            ("join = \"all\"", vec!["everybody"]),
            ("join = 7", vec!["`join`", "7"]),
            ("message = { json = 1 }", vec!["`message.from` is missing"]),
            ("message = { from = \"ann\" }", vec!["`message` carries nothing"]),
            ("message = { from = \"ann\", json = 1, text = \"x\" }", vec!["more than one"]),
            ("message = { from = \"ann\", json = \"x\" }", vec!["`message.json`", "must be JSON"]),
            ("message = { from = \"ann\", json = { at = 2024-01-01 } }", vec!["date"]),
            ("message = { from = \"ann\", base64 = \"?\" }", vec!["base64"]),
            ("message = { from = \"ann\", text = \"x\", too = \"bob\" }", vec!["`message.too`"]),
            ("after_ms = -1", vec!["`after_ms`", "-1"]),
            ("crash = false", vec!["`crash`", "left out"]),
            ("crash = true\nexpect = []", vec!["expect it there"]),
            ("batch = []", vec!["`batch` is empty"]),
            ("join = \"ann\"\nexpect = [{ json = 1 }]", vec!["to = \"all\""]),
            ("join = \"ann\"\nexpect = []\nexpect_some = [{ to = \"all\", json = 1 }]", vec!["one of `expect`"]),
            ("join = \"ann\"\nrefused = \"bad\"", vec!["`refused`", "bad", "bad_request"]),
            ("join = \"ann\"\nexpect = [{ to = \"all\", text = \"x\", priority = \"x\" }]", vec!["low, normal, high"]),
            ("join = \"ann\"\nexpect = [{ to = { all = 1 }, text = \"x\" }]", vec!["except"]),
            ("leave = { as = \"ann\", why = \"bored\" }", vec!["disconnected, asked, closed"]),
        ] {
            let found = one(step).unwrap_err();
            assert!(words.iter().all(|word| found.contains(word)), "{step}: {found}");
        }
        for (file, words) in
            [("", "no steps"), ("step = 1", "a.toml"), ("chanel = \"x\"", "chanel"), ("[[step", "a.toml")]
        {
            assert!(read("a.toml", file).unwrap_err().contains(words), "{file}");
        }
    }
}
