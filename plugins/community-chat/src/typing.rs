//! Who is typing, and until when. Memory only: nothing here survives a crash, and nothing needs to.

use hotbay_sdk::MemberId;

/// How long `TYPING` holds without renewal, in milliseconds.
pub(crate) const TYPING_MS: u64 = 5_000;

/// A user who types.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Typist {
    pub(crate) user: String,
    /// The connection it types on; `None` if a server said so.
    pub(crate) member: Option<MemberId>,
    pub(crate) until_ms: u64,
}

/// The users who type: at most one entry per user, few at any time.
#[derive(Default)]
pub(crate) struct Typists(Vec<Typist>);

impl Typists {
    /// Notes or renews a user.
    pub(crate) fn start(&mut self, user: &str, member: Option<MemberId>, until_ms: u64) {
        match self.0.iter_mut().find(|typist| typist.user == user) {
            Some(typist) => (typist.member, typist.until_ms) = (member, until_ms),
            None => self.0.push(Typist { user: user.to_owned(), member, until_ms }),
        }
    }

    /// Forgets a user.
    pub(crate) fn stop(&mut self, user: &str) {
        self.0.retain(|typist| typist.user != user);
    }

    /// Forgets the user of a connection; true if it was typing on it.
    pub(crate) fn leave(&mut self, member: MemberId) -> bool {
        let before = self.0.len();
        self.0.retain(|typist| typist.member != Some(member));
        self.0.len() < before
    }

    /// Takes out those whose time is over.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Vec<Typist> {
        self.0.extract_if(.., |typist| typist.until_ms <= now_ms).collect()
    }

    /// When the next one's time is over.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.0.iter().map(|typist| typist.until_ms).min()
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Typist> {
        self.0.iter()
    }
}
