//! The dashboard: widgets, tombstones and layouts with their versions, and the rules by which they change. Each operation is
//! checked first and then done, so a refused one changes nothing; several can be made one by `begin`.
//!
//! Memory is a cache of the store (`stored.rs`): what is not read yet is read when needed, what changed is written at the end
//! of the batch.

mod layouts;
mod stored;
mod tombstones;

use std::collections::BTreeMap;
use std::rc::Rc;

use hotbay_sdk::{Channel, Refusal, json};

use crate::budget::{Budget, CHANGE_EFFECTS};
use crate::data::{Data, KEYS_MAX, Patch};
use crate::operation::Operation;
use crate::settings::Settings;
use layouts::Layouts;
use stored::{Head, InStore};
use tombstones::{Tombstone, Tombstones};

/// Widgets of a dashboard.
pub(crate) const WIDGETS_MAX: usize = 1_000;
/// Data of a widget, in bytes of JSON.
pub(crate) const WIDGET_BYTES_MAX: usize = 64 << 10;
/// All widgets of a dashboard in bytes, unless the mount says otherwise: a whole dashboard goes out in one frame.
pub(crate) const DASHBOARD_BYTES_MAX: u64 = 2 << 20;
/// What a widget costs in that count beside its id and data.
const WIDGET_BYTES: usize = 64;

/// What became of an operation that was not refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// It holds; the version of the widget or layout is this now.
    Applied(u64),
    /// It was based on another version than this, the server's. Nothing was changed.
    Clash(u64),
}

/// How a widget stands, and its version.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Standing {
    Live(u64),
    Deleted(u64),
    /// Never there, or deleted so long ago that it is forgotten.
    Unknown,
}

impl Standing {
    /// The version; 0 if unknown.
    pub(crate) fn version(self) -> u64 {
        match self {
            Self::Live(version) | Self::Deleted(version) => version,
            Self::Unknown => 0,
        }
    }

    /// Whether an operation based on this version overlooks something.
    fn clashes(self, base: Option<u64>) -> bool {
        match (self, base) {
            (_, None) => false,
            (Self::Live(version), Some(base)) => base != version,
            // 0: its author knows of no such widget, which is right as well.
            (Self::Deleted(_) | Self::Unknown, Some(base)) => base != 0 && base != self.version(),
        }
    }
}

#[derive(Clone)]
struct Widget {
    version: u64,
    /// The version the dashboard got by its last change.
    changed: u64,
    counted_bytes: usize,
    /// `None`: not read yet.
    data: Option<Data>,
}

/// A dashboard.
pub(crate) struct Dashboard {
    /// Grows by one with each change.
    version: u64,
    widgets: BTreeMap<Rc<str>, Widget>,
    tombstones: Tombstones,
    layouts: Layouts,
    /// All widgets, as they count against the bound.
    counted_bytes: usize,
    counted_bytes_max: usize,
    /// What is to be written at the end of the batch, and what the store has instead.
    dirty: BTreeMap<Rc<str>, InStore>,
    /// What the store has.
    head: Head,
    /// How it stood at `begin`.
    undo: Option<Undo>,
}

struct Undo {
    version: u64,
    layouts: Layouts,
    floor: u64,
    counted_bytes: usize,
    items: BTreeMap<Rc<str>, Before>,
}

/// How one id stood.
struct Before {
    widget: Option<Widget>,
    tombstone: Option<Tombstone>,
    dirty: Option<InStore>,
}

impl Dashboard {
    /// The dashboard of this channel, read if that has not happened.
    pub(crate) fn of<'a>(known: &'a mut Option<Self>, channel: &Channel, settings: &Settings) -> &'a mut Self {
        known.get_or_insert_with(|| Self::read(channel, settings))
    }

    /// Its version; 0 if nothing ever happened.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// How a widget stands.
    pub(crate) fn standing(&self, id: &str) -> Standing {
        match (self.widgets.get(id), self.tombstones.get(id)) {
            (Some(widget), _) => Standing::Live(widget.version),
            (None, Some(tombstone)) => Standing::Deleted(tombstone.version),
            (None, None) => Standing::Unknown,
        }
    }

    /// The version of the layout; 0 if there is none.
    pub(crate) fn layout_version(&self) -> u64 {
        self.layouts.version()
    }

    /// The layout as it came; `None` if there is none.
    pub(crate) fn layout(&mut self, channel: &Channel) -> Option<Rc<str>> {
        self.layouts.text(channel, self.layouts.version())
    }

    /// The layout that a restoration of this version, by default the one before the current, would bring back.
    pub(crate) fn restorable(&mut self, channel: &Channel, version: Option<u64>) -> Option<Rc<str>> {
        self.layouts.text(channel, version.unwrap_or(self.layouts.version().saturating_sub(1)))
    }

    /// The data of a widget; `None` if there is no such widget.
    pub(crate) fn data(&mut self, channel: &Channel, id: &str) -> Option<&mut Data> {
        self.widgets.get_mut(id).map(|widget| widget.read(channel, id))
    }

    /// Does an operation.
    ///
    /// # Errors
    /// If it cannot be done; nothing is changed then.
    pub(crate) fn apply(
        &mut self,
        channel: &Channel,
        operation: &Operation<'_>,
        budget: &mut Budget,
    ) -> Result<Outcome, Refusal> {
        match operation {
            Operation::Update { widget, patch, base, .. } => self.update(channel, widget, patch, *base, budget),
            Operation::Delete { widget, base } => self.delete(widget, *base, budget),
            Operation::Layout { layout, base } => {
                let version = self.layouts.version();
                if base.is_some_and(|base| base != version) {
                    return Ok(Outcome::Clash(version));
                }
                budget.take(CHANGE_EFFECTS, layout.len())?;
                Ok(self.put_layout((*layout).into()))
            }
            Operation::Restore { version } => {
                let layout = self.restorable(channel, *version);
                let layout = layout.ok_or_else(|| Refusal::not_found("this version of the layout is not kept"))?;
                budget.take(CHANGE_EFFECTS, layout.len())?;
                Ok(self.put_layout(layout))
            }
        }
    }

    fn update(
        &mut self,
        channel: &Channel,
        id: &str,
        patch: &Patch<'_>,
        base: Option<u64>,
        budget: &mut Budget,
    ) -> Result<Outcome, Refusal> {
        let standing = self.standing(id);
        if standing.clashes(base) {
            return Ok(Outcome::Clash(standing.version()));
        }
        budget.check_work()?;
        let count = self.widgets.len();
        let (size, before) = match self.widgets.get_mut(id) {
            Some(widget) => {
                let data = widget.read(channel, id);
                let is_parsed = data.keys().is_some();
                let size = data.size_with(patch);
                let is_copied = self.undo.as_ref().is_some_and(|undo| !undo.items.contains_key(id));
                budget.count_keys(size.keys * (usize::from(!is_parsed) + usize::from(is_copied)));
                (size, widget.counted_bytes)
            }
            None if count >= WIDGETS_MAX => {
                return Err(Refusal::too_large("a dashboard has at most 1000 widgets"));
            }
            None => (Data::empty().size_with(patch), 0),
        };
        if size.keys > KEYS_MAX {
            return Err(Refusal::too_large("the data of a widget has at most 1000 keys"));
        }
        if size.json_bytes > WIDGET_BYTES_MAX {
            return Err(Refusal::too_large("the data of a widget has at most 65536 bytes"));
        }
        let counted_bytes = size.counted_bytes + json::string_len(id) + WIDGET_BYTES;
        let all_counted_bytes = self.counted_bytes - before + counted_bytes;
        if all_counted_bytes > self.counted_bytes_max && counted_bytes > before {
            return Err(Refusal::too_large("the widgets of this dashboard are too large together"));
        }
        // All of the widget is written, but once in a batch.
        if self.dirty.contains_key(id) {
            budget.take(0, counted_bytes.saturating_sub(before))?;
        } else {
            budget.take(CHANGE_EFFECTS, counted_bytes)?;
        }

        self.touch(id);
        self.version += 1;
        self.counted_bytes = all_counted_bytes;
        let version = standing.version() + 1;
        self.tombstones.remove(id);
        let empty = || Widget { version: 0, changed: 0, counted_bytes: 0, data: Some(Data::empty()) };
        let widget = self.widgets.entry(id.into()).or_insert_with(empty);
        widget.read(channel, id).merge(patch);
        (widget.version, widget.changed, widget.counted_bytes) = (version, self.version, counted_bytes);
        Ok(Outcome::Applied(version))
    }

    fn delete(&mut self, id: &str, base: Option<u64>, budget: &mut Budget) -> Result<Outcome, Refusal> {
        let standing = self.standing(id);
        let Standing::Live(version) = standing else {
            return Err(Refusal::not_found("there is no such widget"));
        };
        if standing.clashes(base) {
            return Ok(Outcome::Clash(version));
        }
        budget.take(CHANGE_EFFECTS, WIDGET_BYTES)?;
        if self.undo.is_some() {
            budget.count_keys(self.widgets.get(id).and_then(|widget| widget.data.as_ref()?.keys()).unwrap_or(0));
        }

        self.touch(id);
        self.version += 1;
        if let Some(widget) = self.widgets.remove(id) {
            self.counted_bytes -= widget.counted_bytes;
        }
        while let Some(oldest) = self.tombstones.superfluous() {
            self.touch(&oldest);
            self.tombstones.forget(&oldest);
        }
        self.tombstones.insert(id.into(), Tombstone { version: version + 1, changed: self.version });
        Ok(Outcome::Applied(version + 1))
    }

    fn put_layout(&mut self, layout: Rc<str>) -> Outcome {
        self.version += 1;
        Outcome::Applied(self.layouts.push(layout, self.version))
    }

    /// What follows can be undone together.
    pub(crate) fn begin(&mut self) {
        self.undo = Some(Undo {
            version: self.version,
            layouts: self.layouts.clone(),
            floor: self.tombstones.floor(),
            counted_bytes: self.counted_bytes,
            items: BTreeMap::new(),
        });
    }

    /// What happened since `begin` holds.
    pub(crate) fn commit(&mut self) {
        self.undo = None;
    }

    /// Undoes what happened since `begin`.
    pub(crate) fn roll_back(&mut self) {
        let Some(undo) = self.undo.take() else { return };
        self.version = undo.version;
        self.layouts = undo.layouts;
        self.counted_bytes = undo.counted_bytes;
        for (id, before) in undo.items {
            match before.widget {
                Some(widget) => drop(self.widgets.insert(Rc::clone(&id), widget)),
                None => drop(self.widgets.remove(&id)),
            }
            match before.tombstone {
                Some(tombstone) => self.tombstones.insert(Rc::clone(&id), tombstone),
                None => drop(self.tombstones.remove(&id)),
            }
            match before.dirty {
                Some(stored) => drop(self.dirty.insert(id, stored)),
                None => drop(self.dirty.remove(&id)),
            }
        }
        self.tombstones.set_floor(undo.floor);
    }

    /// Remembers that an id is about to change.
    fn touch(&mut self, id: &str) {
        if let Some(undo) = &mut self.undo
            && !undo.items.contains_key(id)
        {
            let before = Before {
                widget: self.widgets.get(id).cloned(),
                tombstone: self.tombstones.get(id),
                dirty: self.dirty.get(id).copied(),
            };
            undo.items.insert(id.into(), before);
        }
        if !self.dirty.contains_key(id) {
            let stored = match self.standing(id) {
                Standing::Live(_) => InStore::Widget,
                Standing::Deleted(_) => InStore::Tombstone,
                Standing::Unknown => InStore::Nothing,
            };
            self.dirty.insert(id.into(), stored);
        }
    }

    /// The changes after a version of the dashboard.
    pub(crate) fn changes(&mut self, channel: &Channel, since: Option<u64>) -> Changes {
        let since = since.filter(|since| (self.tombstones.floor()..=self.version).contains(since));
        let after = since.unwrap_or(0);
        let ids: Vec<Rc<str>> =
            self.widgets.iter().filter(|(_, widget)| widget.changed > after).map(|(id, _)| Rc::clone(id)).collect();
        self.read_data(channel, &ids);
        let widgets = ids.into_iter().filter_map(|id| {
            let widget = self.widgets.get_mut(&id)?;
            Some((Rc::clone(&id), widget.version, widget.read(channel, &id).text()))
        });
        Changes {
            version: self.version,
            full: since.is_none(),
            widgets: widgets.collect(),
            layout_version: self.layouts.version(),
            layout: if self.layouts.changed() > after { self.layout(channel) } else { None },
            // A full answer says what there is; whatever else a client has is gone.
            deleted: if since.is_some() { self.tombstones.after(after) } else { Vec::new() },
        }
    }

    /// At most how many bytes [`Dashboard::changes`] has as JSON.
    pub(crate) fn changes_bytes_max(&mut self, channel: &Channel) -> usize {
        let layout = self.layout(channel).map_or(0, |layout| layout.len());
        self.counted_bytes + layout + self.tombstones.bytes_max()
    }
}

impl Widget {
    fn read(&mut self, channel: &Channel, id: &str) -> &mut Data {
        self.data.get_or_insert_with(|| stored::data(channel, id))
    }
}

/// What changed.
pub(crate) struct Changes {
    /// The version of the dashboard that they lead to.
    pub(crate) version: u64,
    /// These are not changes, but everything there is.
    pub(crate) full: bool,
    /// Ids, versions and data.
    pub(crate) widgets: Vec<(Rc<str>, u64, Rc<str>)>,
    pub(crate) layout_version: u64,
    /// `None`: not changed, or there is none.
    pub(crate) layout: Option<Rc<str>>,
    pub(crate) deleted: Vec<Rc<str>>,
}
