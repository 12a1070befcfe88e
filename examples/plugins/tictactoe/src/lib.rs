//! Noughts and crosses. Two users sit down and play, everybody else watches.
//!
//! ```text
//! send     {"type":"sit"}
//! send     {"type":"move","cell":4}          cells are numbered 0 to 8, row by row
//! all get  {"type":"game","board":"....X....","players":["ann","bob"],"status":{"turn":"O"}}
//! ```
//!
//! The status is `"waiting"` for players, `{"turn":"O"}`, `{"won":"O"}` or `"drawn"`. Chance says who begins. Who does not move within a
//! minute has lost. When a game is over, two sit down again. The game is kept in the channel's state, so that it goes on after a
//! crash as if nothing had been.

mod board;

use hotbay_sdk::{Channel, ChannelInfo, Joined, Message, Payload, Plugin, Refusal, Sender, TimerKeep};
use serde::{Deserialize, Serialize};

use crate::board::{Board, Mark};

/// The key of the game in the channel's state.
const GAME: &str = "game";
/// The timer of who must move.
const MOVE: &str = "move";
const MOVE_MS: u64 = 60_000;

/// What a member may send.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Request {
    Sit,
    Move { cell: usize },
}

/// A table for two: what members are sent after every move, and what is kept.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename = "game")]
pub struct Game {
    board: Board,
    /// Users: who plays X, then who plays O.
    players: Vec<String>,
    status: Status,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Waiting,
    Turn(Mark),
    Won(Mark),
    Drawn,
}

impl Plugin for Game {
    fn open(_: &ChannelInfo, saved: Option<&[u8]>, channel: &mut Channel) -> Result<Self, String> {
        match saved.map(<[u8]>::to_vec).or_else(|| channel.kv().get(GAME)) {
            None => Ok(Self::new()),
            Some(kept) => {
                serde_json::from_slice(&kept).map_err(|e| format!("the game that was kept cannot be read: {e}"))
            }
        }
    }

    fn on_join(&mut self, channel: &mut Channel, joined: Joined) -> Result<(), Refusal> {
        channel.send(joined.member, self.json());
        Ok(())
    }

    fn on_message(&mut self, channel: &mut Channel, message: Message) -> Result<(), Refusal> {
        match serde_json::from_slice(message.payload.bytes()) {
            Ok(Request::Sit) => self.sit(channel, message.user)?,
            Ok(Request::Move { cell }) => self.play(channel, &message.user, cell)?,
            Err(_) => return Err(Refusal::bad_request(r#"send {"type":"sit"} or {"type":"move","cell":0}"#)),
        }
        self.keep_and_show(channel);
        Ok(())
    }

    fn on_timer(&mut self, channel: &mut Channel, _: &str) {
        if let Status::Turn(late) = self.status {
            self.status = Status::Won(late.other());
            self.keep_and_show(channel);
        }
    }

    fn save(&mut self) -> Vec<u8> {
        self.json().into_bytes()
    }

    fn refused(_: &Sender, _: Option<&Payload>, why: &Refusal) -> Option<Payload> {
        let frame = serde_json::json!({ "type": "error", "code": why.code.name(), "message": why.message });
        Some(frame.to_string().into())
    }
}

impl Game {
    fn new() -> Self {
        Self { board: Board::default(), players: Vec::new(), status: Status::Waiting }
    }

    fn sit(&mut self, channel: &mut Channel, user: String) -> Result<(), Refusal> {
        match self.status {
            Status::Turn(_) => return Err(Refusal::conflict("two are playing; sit down when they are done")),
            Status::Won(_) | Status::Drawn => *self = Self::new(),
            Status::Waiting if self.players.contains(&user) => return Err(Refusal::conflict("you sit already")),
            Status::Waiting => {}
        }
        self.players.push(user);
        if self.players.len() == 2 {
            let begins = if channel.random().is_multiple_of(2) { Mark::X } else { Mark::O };
            self.give_turn(channel, begins);
        }
        Ok(())
    }

    fn play(&mut self, channel: &mut Channel, user: &str, cell: usize) -> Result<(), Refusal> {
        let Status::Turn(mark) = self.status else {
            return Err(Refusal::conflict("no game is on; sit down"));
        };
        if self.players.get(mark as usize).is_none_or(|player| player != user) {
            return Err(Refusal::forbidden("it is not your turn"));
        }
        if !self.board.put(cell, mark) {
            return Err(Refusal::conflict("there is no such cell, or it is taken"));
        }
        if self.board.has_row(mark) {
            self.finish(channel, Status::Won(mark));
        } else if self.board.is_full() {
            self.finish(channel, Status::Drawn);
        } else {
            self.give_turn(channel, mark.other());
        }
        Ok(())
    }

    fn give_turn(&mut self, channel: &mut Channel, mark: Mark) {
        self.status = Status::Turn(mark);
        channel.set_timer(MOVE, MOVE_MS, TimerKeep::Durable);
    }

    fn finish(&mut self, channel: &mut Channel, status: Status) {
        self.status = status;
        channel.cancel_timer(MOVE);
    }

    fn keep_and_show(&self, channel: &mut Channel) {
        let json = self.json();
        channel.kv().put(GAME, json.as_bytes());
        channel.broadcast(json);
    }

    fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

hotbay_sdk::export!(Game);

#[cfg(test)]
mod tests {
    use super::Game;
    use hotbay_sdk::harness::Harness;

    /// Law: what members have seen is still so after a crash.
    #[test]
    fn a_game_goes_on_after_a_crash() {
        let mut channel = Harness::<Game>::new("table:1");
        let (ann, bob) = (channel.join("ann"), channel.join("bob"));
        channel.message(ann, r#"{"type":"sit"}"#);
        let seen = channel.message(bob, r#"{"type":"sit"}"#).texts(ann);

        channel.crash();
        let cyd = channel.connect("cyd");
        let told = channel.join_connection(cyd).texts(cyd);

        assert_eq!(told, seen);
        assert!(told[0].contains(r#""status":{"turn":"#), "{told:?}");
    }
}
