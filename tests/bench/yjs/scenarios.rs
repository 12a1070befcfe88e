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
    pub(crate) typers: usize,
    window: usize,
}

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "100-w8", what: "100 members, 1 types, 8 under way", members: 100, typers: 1, window: 8 },
    Scenario { name: "100-w4", what: "100 members, 1 types, 4 under way", members: 100, typers: 1, window: 4 },
    Scenario { name: "100-w1", what: "100 members, 1 types, 1 under way", members: 100, typers: 1, window: 1 },
    Scenario { name: "100-t8", what: "100 members, 8 type, 1 of each under way", members: 100, typers: 8, window: 1 },
    Scenario { name: "10-w8", what: "10 members, 1 types, 8 under way", members: 10, typers: 1, window: 8 },
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
