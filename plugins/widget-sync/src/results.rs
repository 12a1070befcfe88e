//! The results of operations that have a name, so that a repeated one is answered and not done again. They lie in the channel's
//! log, one entry for what a user did in a batch; memory holds the newest, read when first needed.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use hotbay_sdk::{Channel, Refusal, json};
use serde::{Deserialize, Serialize};

use crate::encode;

/// Results in one log entry.
const ENTRY_RESULTS_MAX: usize = 250;
/// Entries asked for at once: as many as the host gives.
const READ_ENTRIES: u32 = 1_000;
/// What a result costs when it is written, in bytes.
pub(crate) const RESULT_BYTES: usize = 512;

/// What became of an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// The version of the widget or layout: after the operation, or the one that it clashed with.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u64>,
    /// Code and words, if it failed.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<(Box<str>, Box<str>)>,
}

impl Verdict {
    /// It holds.
    pub(crate) fn applied(version: u64) -> Self {
        Self { version: Some(version), error: None }
    }

    /// It was based on an older version than the server's.
    pub(crate) fn clash(version: u64) -> Self {
        let words = format!("the server is at version {version}");
        Self { version: Some(version), error: Some(("conflict".into(), words.into())) }
    }

    /// It was refused.
    pub(crate) fn refused(why: &Refusal) -> Self {
        Self { version: None, error: Some((encode::code(why).into(), why.message.as_str().into())) }
    }

    /// Writes one item of `results`. `id` is the operation's name, as it came.
    pub(crate) fn write(&self, json: &mut String, id: Option<&str>) {
        json.push('{');
        if let Some(id) = id {
            json.push_str("\"operationId\":");
            json.push_str(id);
            json.push(',');
        }
        json.push_str(if self.error.is_none() { "\"success\":true" } else { "\"success\":false" });
        if let Some(version) = self.version {
            json.push_str(",\"version\":");
            json::number(json, version);
        }
        if let Some((code, words)) = &self.error {
            json.push_str(",\"error\":");
            json::string(json, words);
            json.push_str(",\"code\":");
            json::string(json, code);
        }
        json.push('}');
    }
}

/// A log entry: a user, and names and results of operations.
#[derive(Serialize, Deserialize)]
struct Entry {
    u: Rc<str>,
    r: Vec<(Rc<str>, Verdict)>,
}

/// The newest results.
pub(crate) struct Results {
    by_user: BTreeMap<Rc<str>, BTreeMap<Rc<str>, Verdict>>,
    /// Oldest first: log offset, user, name. What is not written yet is not among them.
    order: VecDeque<(u64, Rc<str>, Rc<str>)>,
    unwritten: BTreeMap<Rc<str>, Vec<Rc<str>>>,
    kept_max: usize,
}

impl Results {
    /// The results of this channel, read if that has not happened.
    pub(crate) fn of<'a>(known: &'a mut Option<Self>, channel: &Channel, kept_max: usize) -> &'a mut Self {
        known.get_or_insert_with(|| Self::read(channel, kept_max))
    }

    fn read(channel: &Channel, kept_max: usize) -> Self {
        let mut results =
            Self { by_user: BTreeMap::new(), order: VecDeque::new(), unwritten: BTreeMap::new(), kept_max };
        let bounds = channel.log().bounds();
        let mut from = bounds.first;
        while from < bounds.next {
            let entries = channel.log().read(from, READ_ENTRIES);
            let Some(last) = entries.last() else { break };
            from = last.offset + 1;
            for entry in entries {
                let Ok(Entry { u: user, r }) = serde_json::from_slice(&entry.data) else { continue };
                for (name, verdict) in r {
                    results.order.push_back((entry.offset, Rc::clone(&user), Rc::clone(&name)));
                    results.by_user.entry(Rc::clone(&user)).or_default().insert(name, verdict);
                }
                results.forget_oldest();
            }
        }
        results
    }

    /// The first result of an operation of this user.
    pub(crate) fn get(&self, user: &str, name: &str) -> Option<&Verdict> {
        self.by_user.get(user)?.get(name)
    }

    /// Keeps the result of an operation.
    pub(crate) fn keep(&mut self, user: &str, name: &str, verdict: Verdict) {
        let (user, name): (Rc<str>, Rc<str>) = (user.into(), name.into());
        self.by_user.entry(Rc::clone(&user)).or_default().insert(Rc::clone(&name), verdict);
        self.unwritten.entry(user).or_default().push(name);
    }

    /// Writes what the batch added, and forgets what is beyond the bound.
    pub(crate) fn write(&mut self, channel: &Channel) {
        let unwritten = std::mem::take(&mut self.unwritten);
        if unwritten.is_empty() {
            return;
        }
        for (user, names) in unwritten {
            for names in names.chunks(ENTRY_RESULTS_MAX) {
                let verdict = |name: &Rc<str>| Some((Rc::clone(name), self.get(&user, name)?.clone()));
                let entry = Entry { u: Rc::clone(&user), r: names.iter().filter_map(verdict).collect() };
                let offset = channel.log().append(&serde_json::to_vec(&entry).unwrap_or_default());
                let user = &user;
                self.order.extend(names.iter().map(|name| (offset, Rc::clone(user), Rc::clone(name))));
            }
        }
        if self.order.len() > self.kept_max {
            self.forget_oldest();
            // Of an entry that is only partly forgotten the rest is still needed.
            channel.log().trim(self.order.front().map_or(0, |(offset, _, _)| *offset));
        }
    }

    fn forget_oldest(&mut self) {
        while self.order.len() > self.kept_max
            && let Some((_, user, name)) = self.order.pop_front()
        {
            if let Some(names) = self.by_user.get_mut(&user) {
                names.remove(&name);
                if names.is_empty() {
                    self.by_user.remove(&user);
                }
            }
        }
    }
}
