//! The history checker: given what clients sent, what they were told, and what is stored, says which promise was broken.
//! Pure, and with tests of its own that show it can fail.

use std::collections::{BTreeMap, HashMap, HashSet};

/// A message as it is stored or was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) id: u64,
    pub(crate) user: String,
    pub(crate) client_id: String,
    pub(crate) content: String,
}

/// A broken promise.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Ids are not 1, 2, 3, …: this one stands where `expected` should.
    Gap { expected: u64, found: u64 },
    /// Stored twice.
    Twice { user: String, client_id: String },
    /// Nobody sent this.
    Invented { id: u64 },
    /// Sent with other content.
    Altered { id: u64 },
    /// Acknowledged, and not there.
    Lost { user: String, client_id: String },
    /// Acknowledged with another id than the one it has.
    Renumbered { acked: u64, stored: u64 },
    /// A subscriber lacks it, or has another message in its place.
    Missed { id: u64 },
    /// A subscriber got something that is not in the history.
    Ghost { id: u64 },
}

/// What one sender did: everything it sent, and the id it was told for what was acknowledged.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent {
    pub(crate) user: String,
    /// Content by `clientId`.
    pub(crate) contents: HashMap<String, String>,
    /// Id by `clientId`.
    pub(crate) acked: HashMap<String, u64>,
}

/// Checks a channel's history against its senders: every acknowledged message is there exactly once and unaltered, nothing
/// is there twice or was invented, ids have no gaps.
pub(crate) fn check(history: &[Message], senders: &[Sent]) -> Result<(), Violation> {
    let sent: HashMap<(&str, &str), &str> = senders
        .iter()
        .flat_map(|sender| sender.contents.iter().map(|(id, content)| ((&*sender.user, &**id), &**content)))
        .collect();
    let mut seen = HashSet::new();
    for (message, expected) in history.iter().zip(1..) {
        let name = (&*message.user, &*message.client_id);
        if message.id != expected {
            return Err(Violation::Gap { expected, found: message.id });
        }
        match sent.get(&name) {
            None => return Err(Violation::Invented { id: message.id }),
            Some(content) if *content != message.content => return Err(Violation::Altered { id: message.id }),
            Some(_) => {}
        }
        if !seen.insert(name) {
            return Err(Violation::Twice { user: message.user.clone(), client_id: message.client_id.clone() });
        }
    }
    let stored: HashMap<(&str, &str), u64> =
        history.iter().map(|message| ((&*message.user, &*message.client_id), message.id)).collect();
    for sender in senders {
        for (client_id, acked) in &sender.acked {
            match stored.get(&(&*sender.user, &**client_id)) {
                None => return Err(Violation::Lost { user: sender.user.clone(), client_id: client_id.clone() }),
                Some(stored) if stored != acked => {
                    return Err(Violation::Renumbered { acked: *acked, stored: *stored });
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// Checks what a subscriber has after it resumed: the complete history.
pub(crate) fn check_subscriber(history: &[Message], received: &BTreeMap<u64, Message>) -> Result<(), Violation> {
    for message in history {
        if received.get(&message.id) != Some(message) {
            return Err(Violation::Missed { id: message.id });
        }
    }
    let last = history.last().map_or(0, |message| message.id);
    match received.keys().next_back() {
        Some(id) if *id > last => Err(Violation::Ghost { id: *id }),
        _ => Ok(()),
    }
}

mod tests {
    //! The checker can fail: each promise is broken once.

    use super::*;

    fn message(id: u64, client_id: &str) -> Message {
        let (user, content) = ("ann".to_owned(), format!("content of {client_id}"));
        Message { id, user, client_id: client_id.to_owned(), content }
    }

    fn ann() -> Sent {
        let contents = ["a", "b", "c"].map(|id| (id.to_owned(), format!("content of {id}"))).into();
        Sent { user: "ann".to_owned(), contents, acked: HashMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]) }
    }

    #[test]
    fn a_good_history_passes_with_and_without_what_was_not_acknowledged() {
        assert_eq!(check(&[message(1, "a"), message(2, "b")], &[ann()]), Ok(()));
        assert_eq!(check(&[message(1, "a"), message(2, "b"), message(3, "c")], &[ann()]), Ok(()));
    }

    #[test]
    fn each_broken_promise_is_found() {
        let altered = Message { content: "other".to_owned(), ..message(2, "b") };
        let foreign = Message { user: "eve".to_owned(), ..message(3, "c") };
        let name = |client_id: &str| ("ann".to_owned(), client_id.to_owned());
        let lost = |(user, client_id)| Violation::Lost { user, client_id };
        let twice = |(user, client_id)| Violation::Twice { user, client_id };
        let cases = [
            (vec![message(1, "a")], lost(name("b"))),
            (vec![message(1, "a"), message(3, "b")], Violation::Gap { expected: 2, found: 3 }),
            (vec![message(2, "a"), message(1, "b")], Violation::Gap { expected: 1, found: 2 }),
            (vec![message(1, "a"), message(2, "b"), message(3, "b")], twice(name("b"))),
            (vec![message(1, "a"), altered], Violation::Altered { id: 2 }),
            (vec![message(1, "a"), message(2, "b"), foreign], Violation::Invented { id: 3 }),
        ];
        for (history, violation) in cases {
            assert_eq!(check(&history, &[ann()]), Err(violation), "{history:?}");
        }
        let renumbered = check(&[message(1, "b"), message(2, "a")], &[ann()]);
        assert!(matches!(renumbered, Err(Violation::Renumbered { .. })), "{renumbered:?}");
    }

    #[test]
    fn a_subscriber_that_misses_mistakes_or_invents_a_message_is_found() {
        let history = [message(1, "a"), message(2, "b")];
        let received = |messages: &[Message]| messages.iter().map(|message| (message.id, message.clone())).collect();
        assert_eq!(check_subscriber(&history, &received(&history)), Ok(()));
        assert_eq!(check_subscriber(&history, &received(&history[1..])), Err(Violation::Missed { id: 1 }));
        let mistaken = [message(1, "b"), message(2, "b")];
        assert_eq!(check_subscriber(&history, &received(&mistaken)), Err(Violation::Missed { id: 1 }));
        let more = [message(1, "a"), message(2, "b"), message(3, "c")];
        assert_eq!(check_subscriber(&history, &received(&more)), Err(Violation::Ghost { id: 3 }));
    }
}
