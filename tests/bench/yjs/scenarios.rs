//! What is measured.

use crate::Outcome;
use crate::load::{Figures, Load, Times, join};
use crate::server::{Peer, Server};
use crate::typing::Typing;

/// How many members there are, how many of them type, and how many updates each of those keeps under way.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    members: usize,
    pub(crate) script: Script,
    window: usize,
}

/// What is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Script {
    pub(crate) typers: usize,
    /// Characters in an update.
    pub(crate) characters: u32,
    /// Characters of a paragraph, each a text of its own; 0 for one long text.
    pub(crate) paragraph: u32,
    /// Updates of all typers together: more than the fastest server takes in a run.
    pub(crate) updates: usize,
}

/// A key at a time, in paragraphs as structured editors have them: the least that servers in JavaScript can have to do.
const KEYS: Script = Script { typers: 1, characters: 1, paragraph: 500, updates: 400_000 };
/// Short words into one text, as `../shared/bench` has it: the longer a text is, the longer its server in JavaScript takes. So does Yjs here:
/// more than these would take minutes to make.
const WORDS: Script = Script { characters: 22, paragraph: 0, updates: 90_000, ..KEYS };

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "words", what: "100 members, 1 types words, 8 under way", members: 100, script: WORDS, window: 8 },
    Scenario { name: "keys-8", what: "100 members, 1 types keys, 8 under way", members: 100, script: KEYS, window: 8 },
    Scenario { name: "keys-1", what: "100 members, 1 types keys, 1 under way", members: 100, script: KEYS, window: 1 },
    Scenario {
        name: "keys-all",
        what: "100 members, 8 type keys, 8 of each under way",
        members: 100,
        script: Script { typers: 8, updates: 1_600_000, ..KEYS },
        window: 8,
    },
    Scenario { name: "few", what: "10 members, 1 types words, 8 under way", members: 10, script: WORDS, window: 8 },
];

impl Scenario {
    /// Measures a server, and checks that nothing of what was typed is missing: not with any member, not in the document that a
    /// new member gets, and not, if the server promises that, after it was killed.
    pub(crate) fn measure(&self, peer: &Peer, typings: &[Typing], times: Times) -> Outcome<Figures> {
        let mut server = Server::start(peer)?;
        let mut load = Load::connect(&server, self.members, typings, self.window)?;
        let figures = load.run(&server, times)?;
        load.ledger().check()?;
        load.ledger().check_document(&join(&server)?.1)?;
        if peer.is_durable() {
            server.kill_and_restart()?;
            load.ledger().check_document(&join(&server)?.1).map_err(|error| format!("after kill -9: {error}"))?;
        }
        Ok(figures)
    }
}
