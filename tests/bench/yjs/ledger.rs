//! Who has what. A server may merge updates, so deliveries are not counted by messages but by what is in them: each member's
//! clock of each typer, which says how much of the typer's text has come, is how many updates were delivered to it.

use crate::Outcome;
use crate::protocol::texts;
use crate::typing::Typing;

/// The members are numbered; the first ones type.
pub(crate) struct Ledger<'a> {
    typings: &'a [Typing],
    members: usize,
    /// Each member's clocks, one for each typer.
    clocks: Vec<u32>,
    /// Of each typer, how many members still lack each update.
    lacking: Vec<Vec<u16>>,
    /// Of each typer, how many updates were sent.
    pub(crate) sent: Vec<usize>,
    /// Of each typer, how many updates every other member has.
    pub(crate) finished: Vec<usize>,
    pub(crate) deliveries: u64,
    pub(crate) messages: u64,
}

impl<'a> Ledger<'a> {
    pub(crate) fn new(typings: &'a [Typing], members: usize) -> Self {
        let others = members.saturating_sub(1) as u16;
        Self {
            typings,
            members,
            clocks: vec![0; members * typings.len()],
            lacking: typings.iter().map(|typing| vec![others; typing.len()]).collect(),
            sent: vec![0; typings.len()],
            finished: vec![0; typings.len()],
            deliveries: 0,
            messages: 0,
        }
    }

    /// Notes an update that came to a member. Fails if it says what nobody typed, or if something before it is missing.
    pub(crate) fn receive(&mut self, member: usize, update: &[u8]) -> Outcome<()> {
        let mut wrong = None;
        let read = texts(update, |text| {
            let Some(typer) = self.typings.iter().position(|typing| typing.client == text.client) else {
                wrong = Some("an update of somebody who is not there");
                return;
            };
            if typer == member {
                return;
            }
            let typing = &self.typings[typer];
            let clock = &mut self.clocks[member * self.typings.len() + typer];
            let end = text.clock + text.ascii.len() as u32;
            if typing.text.get(text.clock as usize..end as usize) != Some(text.ascii) {
                wrong = Some("a text that nobody typed");
            } else if text.clock > *clock {
                wrong = Some("an update, but not what was typed before it");
            } else if end > *clock {
                let (had, has) = (*clock / typing.characters, end / typing.characters);
                for lacking in &mut self.lacking[typer][had as usize..has as usize] {
                    *lacking -= 1;
                    self.finished[typer] += usize::from(*lacking == 0);
                }
                self.deliveries += u64::from(has - had);
                *clock = end;
            }
        });
        self.messages += 1;
        match (read, wrong) {
            (Some(()), None) => Ok(()),
            (None, _) => Err(format!("member {member} got a malformed update").into()),
            (_, Some(wrong)) => Err(format!("member {member} got {wrong}").into()),
        }
    }

    /// Whether every member has all that was sent.
    pub(crate) fn is_even(&self) -> bool {
        self.sent == self.finished
    }

    /// Whether a typer has nothing more to send.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.sent.iter().zip(self.typings).any(|(sent, typing)| *sent == typing.len())
    }

    /// Checks that every member has the whole text of every other one, as far as it was sent.
    pub(crate) fn check(&self) -> Outcome<()> {
        for member in 0..self.members {
            for (typer, typing) in self.typings.iter().enumerate().filter(|(typer, _)| *typer != member) {
                let clock = self.clocks[member * self.typings.len() + typer];
                let (has, sent) = (clock / typing.characters, self.sent[typer]);
                if has as usize != sent {
                    return Err(format!("member {member} has {has} of {sent} updates of typer {typer}").into());
                }
            }
        }
        Ok(())
    }

    /// Checks that a document has all that was sent, and nothing else.
    pub(crate) fn check_document(&self, document: &[u8]) -> Outcome<()> {
        let mut found: Vec<&[u8]> = Vec::new();
        let mut whole = vec![Vec::new(); self.typings.len()];
        let read = texts(document, |text| match self.typings.iter().position(|typing| typing.client == text.client) {
            Some(typer) if whole[typer].len() == text.clock as usize => whole[typer].extend_from_slice(text.ascii),
            _ => found.push(text.ascii),
        });
        if read.is_none() || !found.is_empty() {
            return Err("the document has parts that nobody typed".into());
        }
        for (typer, (text, typing)) in whole.iter().zip(self.typings).enumerate() {
            let sent = self.sent[typer] * typing.characters as usize;
            if *text != typing.text[..sent] {
                return Err(format!("typer {typer} typed {sent} characters, the document has {}", text.len()).into());
            }
        }
        Ok(())
    }
}
