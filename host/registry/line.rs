//! The line in front of vetting: who is next, and how many places whose versions take. What waits is in the store as well, and survives a
//! restart there; this is its order, and its bound.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::limits::{VETTING_QUEUE_MAX, VETTING_QUEUE_TENANT_MAX};
use crate::plugin::compile::Digest;
use crate::registry::RegistryError;

/// A version that waits: its owner and its component.
pub(super) type Waiting = (String, Digest);

/// The line. One task takes from it.
#[derive(Default)]
pub(super) struct Line {
    places: Mutex<Places>,
    longer: Notify,
}

#[derive(Default)]
struct Places {
    /// In their order.
    waiting: VecDeque<Waiting>,
    /// Those whose turn comes again, and when.
    later: Vec<(Instant, Waiting)>,
    /// How many are taken, by owner: by versions that wait, by the one that is being vetted, and by those that are being written down.
    taken: HashMap<String, usize>,
}

/// Why there is no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Full {
    /// Nobody gets one.
    All,
    /// This tenant gets none, so that others do.
    Tenant(String),
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(f, "{VETTING_QUEUE_MAX} versions wait to be vetted; try again later"),
            Self::Tenant(tenant) => write!(
                f,
                "{VETTING_QUEUE_TENANT_MAX} versions of the tenant {tenant:?} wait to be vetted, and further ones are taken when some of them \
                 are done; try again later"
            ),
        }
    }
}

impl From<Full> for RegistryError {
    fn from(full: Full) -> Self {
        Self::TooMuch(full.to_string())
    }
}

/// A place that is taken; given back if nobody comes.
pub(super) struct Place<'a> {
    line: &'a Line,
    /// Taken by the version that came.
    tenant: Option<String>,
}

impl Place<'_> {
    /// A version of the owner waits in it.
    pub(super) fn fill(mut self, digest: Digest) {
        if let Some(tenant) = self.tenant.take() {
            self.line.lock().waiting.push_back((tenant, digest));
            self.line.longer.notify_one();
        }
    }

    /// A version of the owner waits in it, perhaps: whoever looks after so long sees.
    pub(super) fn fill_later(mut self, digest: Digest, after: Duration) {
        if let Some(tenant) = self.tenant.take() {
            self.line.again((tenant, digest), after);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(tenant) = self.tenant.take() {
            self.line.leave(&tenant);
        }
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a version of this owner. The platform may take all of them.
    pub(super) fn place(&self, tenant: &str) -> Result<Place<'_>, Full> {
        let mut places = self.lock();
        if places.taken.values().sum::<usize>() >= VETTING_QUEUE_MAX {
            return Err(Full::All);
        }
        let taken = places.taken.entry(tenant.to_owned()).or_default();
        if !tenant.is_empty() && *taken >= VETTING_QUEUE_TENANT_MAX {
            return Err(Full::Tenant(tenant.to_owned()));
        }
        *taken += 1;
        Ok(Place { line: self, tenant: Some(tenant.to_owned()) })
    }

    /// Whether a version waits here.
    pub(super) fn has(&self, waiting: &Waiting) -> bool {
        let places = self.lock();
        places.waiting.contains(waiting) || places.later.iter().any(|(_, later)| later == waiting)
    }

    /// The next one, whose place stays taken until it [leaves](Self::leave). Nothing is lost if this is dropped.
    pub(super) async fn next(&self) -> Waiting {
        loop {
            let longer = self.longer.notified();
            let first = {
                let mut places = self.lock();
                let now = Instant::now();
                let Places { waiting, later, .. } = &mut *places;
                waiting.extend(later.extract_if(.., |(at, _)| *at <= now).map(|(_, again)| again));
                if let Some(next) = waiting.pop_front() {
                    return next;
                }
                later.iter().map(|(at, _)| *at).min()
            };
            match first {
                Some(at) => drop(tokio::time::timeout_at(at, longer).await),
                None => longer.await,
            }
        }
    }

    /// The turn of a version comes again after so long, behind the others. It keeps its place.
    pub(super) fn again(&self, waiting: Waiting, after: Duration) {
        self.lock().later.push((Instant::now() + after, waiting));
        self.longer.notify_one();
    }

    /// A version of this owner gives its place back.
    pub(super) fn leave(&self, tenant: &str) {
        let mut places = self.lock();
        if let Some(taken) = places.taken.get_mut(tenant) {
            *taken -= 1;
            if *taken == 0 {
                places.taken.remove(tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: usize) -> Digest {
        Digest([number as u8; 32])
    }

    fn fill(line: &Line, tenant: &str) -> usize {
        let mut filled = 0;
        while let Ok(place) = line.place(tenant) {
            place.fill(digest(filled));
            filled += 1;
        }
        filled
    }

    /// Law: a tenant that uploads as much as it may leaves room for others; the line as a whole has an end, too.
    #[tokio::test(start_paused = true)]
    async fn a_tenant_takes_its_places_and_no_others() {
        let line = Line::default();
        assert_eq!(fill(&line, "acme"), VETTING_QUEUE_TENANT_MAX);
        let full = line.place("acme").err().unwrap();
        assert!(RegistryError::from(full).to_string().contains("8 versions of the tenant \"acme\" wait"));
        assert_eq!(fill(&line, "globex"), VETTING_QUEUE_TENANT_MAX);
        assert_eq!(fill(&line, ""), VETTING_QUEUE_MAX - 2 * VETTING_QUEUE_TENANT_MAX);
        assert_eq!(line.place("initech").err(), Some(Full::All));

        for number in 0..VETTING_QUEUE_TENANT_MAX {
            assert_eq!(line.next().await, ("acme".to_owned(), digest(number)));
        }
        assert_eq!(line.place("acme").err(), Some(Full::All), "one that is being vetted has its place");
        line.leave("acme");
        drop(line.place("acme").ok().unwrap());
        line.place("acme").ok().unwrap().fill(digest(9));
        assert_eq!(line.place("acme").err(), Some(Full::All));
    }

    /// Law: what is tried again waits for as long as it is to, keeps its place, and keeps nobody else waiting.
    #[tokio::test(start_paused = true)]
    async fn what_is_tried_again_is_behind_the_others() {
        let line = Line::default();
        line.place("acme").ok().unwrap().fill(digest(1));
        let first = line.next().await;
        line.again(first.clone(), Duration::from_secs(5));
        assert!(line.has(&first));
        line.place("globex").ok().unwrap().fill(digest(2));
        assert_eq!(line.next().await, ("globex".to_owned(), digest(2)));

        let began = Instant::now();
        assert_eq!(line.next().await, first);
        assert_eq!(began.elapsed().as_secs(), 5);
        assert_eq!(fill(&line, "acme"), VETTING_QUEUE_TENANT_MAX - 1);
    }

    /// Law: what may have been written down has a place until somebody looked.
    #[tokio::test(start_paused = true)]
    async fn what_may_be_there_is_looked_at_later() {
        let line = Line::default();
        let began = Instant::now();
        line.place("acme").ok().unwrap().fill_later(digest(1), Duration::from_secs(5));
        assert!(line.has(&("acme".to_owned(), digest(1))));
        assert_eq!(fill(&line, "acme"), VETTING_QUEUE_TENANT_MAX - 1);
        for _ in 1..VETTING_QUEUE_TENANT_MAX {
            line.next().await;
            assert_eq!(began.elapsed(), Duration::ZERO);
        }
        assert_eq!(line.next().await, ("acme".to_owned(), digest(1)));
        assert_eq!(began.elapsed().as_secs(), 5);
    }
}
