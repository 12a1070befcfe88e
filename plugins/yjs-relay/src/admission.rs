//! Who comes in, what they may do as long as they stay, and what remains when they go. Owns when access is asked about,
//! and the close codes; `access.rs` decides.
//!
//! # Access that is taken back
//!
//! By the rule of firms access rests on the token, and lasts as long as the connection does. The statement
//! `draft_access` may change its answer: while there are members it is asked about each of them again every
//! `access_check_ms` (5 minutes). Who lost access is closed, who may read only is told so. While the statement cannot
//! be run, everybody keeps what they had. The timer is durable, because a channel does not sleep over a volatile one,
//! and a draft may lie open in a tab for days.

use hotbay_sdk::{Channel, Identity, Joined, MemberId, Refusal, RefusalCode, TimerKeep, log_error, log_info, log_warn};

use crate::access::{self, Access, Denied};
use crate::deliver::{Want, field};
use crate::members::{Member, Protocol};
use crate::store::{self, Draft};
use crate::{YjsRelay, draft_id};

// The close codes of this plugin have two readers. By the host's table (`host/protocol/close.rs`), which our own
// clients follow, 4000–4499 and most standard codes ask to reconnect, 1008 and 4500–4999 not to. y-websocket, from 3.1
// on, stays away after 4400–4499 and comes back after everything else, 4500–4599 in particular. So what passes gets a
// code from 4000–4399, which both take for "come back" (1013, the standard one, is not a plugin's to send). For "stay
// away" there is no code that both know; it is 1008, as the contract has it: ours stay away, and y-websocket comes back
// ever more slowly, up to every 2.5 s, unless the page sets its option `shouldReconnect`.

/// Close code of who may try again later: 1013 where a plugin may use it.
pub(crate) const TRY_AGAIN: u16 = 4013;
/// Close code of who may not open the draft.
pub(crate) const DENIED: u16 = 1008;

/// When access is checked again.
pub(crate) const ACCESS_TIMER: &str = "access";
/// The same, set by an instance that does not know whether the other is set: a crash in the check spends it, any other crash does
/// not, and must not put it off.
pub(crate) const ACCESS_TIMER_ANEW: &str = "access-anew";
/// Members asked about in one batch. Each may take a round trip to the database, and meanwhile nobody's letters go
/// anywhere.
const CHECKS_PER_BATCH_MAX: usize = 32;

impl YjsRelay {
    /// Lets somebody in, or turns them away.
    pub(crate) fn admit(&mut self, channel: &mut Channel, joined: &Joined) -> Result<(), Refusal> {
        let (id, identity) = (joined.member, &joined.identity);
        if self.members.is_empty() {
            // A broker that died told nobody that the last one left.
            self.unbind_if_blank(channel);
        }
        let decided = self.gate.decide(channel, draft_id(&self.name), identity);
        let access = decided.map_err(|denied| turn_away(channel, draft_id(&self.name), id, identity, denied))?;
        if let Err(why) = self.load(channel) {
            channel.close(id, TRY_AGAIN, "The draft cannot be loaded");
            return Err(why);
        }
        let member = self.member(channel, identity, Some(access));
        log_info!(
            channel,
            "ws.connect userId={} firmId={} draftId={} connectionId={}",
            field(&identity.user),
            field(access::firm(identity).as_deref().unwrap_or("")),
            field(draft_id(&self.name)),
            member.connection
        );
        let protocol = member.protocol;
        self.members.insert(id, member);
        self.set_access_timer(channel);
        match protocol {
            Protocol::Json => self.want(id, Want::Document)?,
            Protocol::Binary => {
                // A viewer would answer with what it may not write.
                if access == Access::Write {
                    self.ask_for_missing(channel, id);
                }
                if self.awareness.any() {
                    self.curious.insert(id);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn member(&self, channel: &mut Channel, identity: &Identity, access: Option<Access>) -> Member {
        let binary = self.settings.binary_endpoints.contains(&identity.endpoint);
        Member {
            user: identity.user.clone(),
            protocol: if binary { Protocol::Binary } else { Protocol::Json },
            access,
            connection: format!("ws_{}_{:09x}", channel.now_ms(), channel.random() >> 28),
            asked_at_ms: None,
        }
    }

    /// Forgets a member that is gone, or on its way out.
    pub(crate) fn depart(&mut self, channel: &mut Channel, id: MemberId, reason: &str) {
        self.wanted.remove(&id);
        self.asked.remove(&id);
        self.curious.remove(&id);
        let gone = self.awareness.leave(id, channel.now_ms());
        if let Some(member) = self.members.remove(id) {
            let (user, connection) = (field(&member.user), member.connection);
            log_info!(channel, "ws.disconnect userId={user} connectionId={connection} reason={reason}");
        }
        self.announce_gone(channel, &gone);
    }

    /// Leaves nothing behind that is of use to members only, once there are none.
    pub(crate) fn vacate(&mut self, channel: &mut Channel) {
        if !self.members.is_empty() {
            return;
        }
        if self.access_due_ms.take().is_some() {
            channel.cancel_timer(ACCESS_TIMER);
            channel.cancel_timer(ACCESS_TIMER_ANEW);
        }
        self.unbind_if_blank(channel);
    }

    /// Gives the draft's name back if nobody wrote anything: else whoever opens names at random keeps them from all
    /// others for ever.
    fn unbind_if_blank(&self, channel: &Channel) {
        let ahead = self.draft.as_ref().is_some_and(Draft::is_ahead);
        if access::is_bound(channel) && !ahead && store::is_blank(channel) {
            access::unbind(channel);
        }
    }

    /// Checks that a member may write.
    pub(crate) fn may_write(&mut self, channel: &mut Channel, id: MemberId) -> Result<(), Refusal> {
        let access = match self.members.get(id).and_then(|member| member.access) {
            Some(access) => access,
            None => self.access_after_crash(channel, id)?,
        };
        match access {
            Access::Write => Ok(()),
            Access::Read => Err(Refusal::forbidden("you may read this draft, but not change it")),
        }
    }

    /// Decides again what the instance before knew.
    fn access_after_crash(&mut self, channel: &mut Channel, id: MemberId) -> Result<Access, Refusal> {
        let unknown = || Refusal::new(RefusalCode::Unavailable, "you are leaving");
        let identity = channel.member(id).ok_or_else(unknown)?.identity;
        let decided = self.gate.decide(channel, draft_id(&self.name), &identity);
        let access = decided.map_err(|denied| turn_away(channel, draft_id(&self.name), id, &identity, denied))?;
        if let Some(member) = self.members.get_mut(id) {
            member.access = Some(access);
        }
        Ok(access)
    }

    /// Sets the timer by which access is checked again, unless it is set or nothing can change.
    fn set_access_timer(&mut self, channel: &mut Channel) {
        if self.gate.asks() && self.access_due_ms.is_none() {
            self.access_due_ms = Some(channel.now_ms() + self.settings.access_check_ms);
            channel.set_timer(ACCESS_TIMER, self.settings.access_check_ms, TimerKeep::Durable);
        }
    }

    /// An instance that knows nothing of the one before has members: they are checked again, by the timer that was set or by this
    /// one. Whether the statement decides, it learns then.
    pub(crate) fn set_access_timer_anew(&mut self, channel: &mut Channel) {
        if !self.members.is_empty() && self.access_due_ms.is_none() {
            self.access_due_ms = Some(channel.now_ms() + self.settings.access_check_ms);
            channel.set_timer(ACCESS_TIMER_ANEW, self.settings.access_check_ms, TimerKeep::Durable);
        }
    }

    /// Asks about some members again, and about the others in the batches that follow.
    pub(crate) fn check_access(&mut self, channel: &mut Channel) {
        self.access_due_ms = None;
        channel.cancel_timer(ACCESS_TIMER_ANEW);
        let after = self.checked.take();
        let left = self.members.iter().map(|(id, _)| id).filter(|id| after.is_none_or(|after| *id > after));
        let round: Vec<MemberId> = left.take(CHECKS_PER_BATCH_MAX).collect();
        for id in &round {
            // One that leaves in this very batch is nobody any more.
            let Some(identity) = channel.member(*id).map(|member| member.identity) else { continue };
            match self.gate.decide(channel, draft_id(&self.name), &identity) {
                Ok(access) => self.change_access(channel, *id, access),
                Err(Denied::Foreign) => {
                    turn_away(channel, draft_id(&self.name), *id, &identity, Denied::Foreign);
                    self.depart(channel, *id, "denied");
                }
                Err(Denied::Later) => {}
            }
        }
        if round.len() == CHECKS_PER_BATCH_MAX {
            self.checked = round.last().copied();
            self.access_due_ms = Some(channel.now_ms() + 1);
            channel.set_timer(ACCESS_TIMER, 1, TimerKeep::Volatile);
        } else if !self.members.is_empty() {
            self.set_access_timer(channel);
        }
    }

    fn change_access(&mut self, channel: &mut Channel, id: MemberId, access: Access) {
        let Some(member) = self.members.get_mut(id) else { return };
        let (before, protocol) = (member.access.replace(access), member.protocol);
        match (before, access) {
            // Later on what a client of y-websocket writes is dropped without a word.
            (Some(Access::Write), Access::Read) => {
                self.tell(channel, id, "you may no longer change this draft, only read it");
            }
            (Some(Access::Read), Access::Write) if protocol == Protocol::Binary && self.load(channel).is_ok() => {
                self.ask_for_missing(channel, id);
            }
            _ => {}
        }
    }

    /// Loads the draft, if it is not yet.
    pub(crate) fn load(&mut self, channel: &Channel) -> Result<(), Refusal> {
        if self.draft.is_none() {
            let draft = Draft::load(channel, &self.settings).map_err(|why| {
                let draft = field(draft_id(&self.name));
                log_error!(channel, "ws.error error={} draftId={draft} context=load", field(&why));
                Refusal::new(RefusalCode::Unavailable, "the draft cannot be loaded")
            })?;
            self.draft = Some(draft);
        }
        Ok(())
    }
}

/// Closes the connection of who may not open the draft, or not any more.
fn turn_away(channel: &mut Channel, draft: &str, id: MemberId, identity: &Identity, denied: Denied) -> Refusal {
    let (user, draft) = (field(&identity.user), field(draft));
    match denied {
        Denied::Foreign => {
            log_warn!(channel, "ws.error error=\"access denied\" userId={user} draftId={draft} context=access");
            channel.close(id, DENIED, "Access denied");
            Refusal::forbidden("Access denied")
        }
        Denied::Later => {
            channel.close(id, TRY_AGAIN, "Access cannot be checked now, try again later");
            Refusal::new(RefusalCode::Unavailable, "access cannot be checked now, try again later")
        }
    }
}
