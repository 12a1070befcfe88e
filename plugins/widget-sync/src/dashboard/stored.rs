//! How a dashboard lies in the channel's key-value state.
//!
//! | key | value |
//! | --- | --- |
//! | `m/{widgetId}` | version, version of the dashboard at the last change, counted bytes |
//! | `w/{widgetId}` | data, as JSON |
//! | `t/{widgetId}` | of a deleted widget: version, version of the dashboard at the deletion |
//! | `l/{version}` | a layout, as JSON |
//! | `head` | of the layout: version, oldest version kept, version of the dashboard at the last change; and the version of the dashboard up to which deletions are forgotten |
//!
//! Numbers are decimal, with spaces between. What a dashboard needs to start is read by two scans, which its bounds keep within
//! what a scan answers; data is read widget by widget. The version of the dashboard is the largest of all those.

use std::collections::BTreeMap;
use std::rc::Rc;

use hotbay_sdk::{Channel, Order};

use super::layouts::Layouts;
use super::tombstones::{TOMBSTONES_MAX, Tombstone, Tombstones};
use super::{Dashboard, WIDGETS_MAX, Widget};
use crate::data::Data;
use crate::settings::Settings;

const HEAD: &str = "head";
/// Above so many widgets to be read, one scan for all is tried first.
const SINGLE_READS_MAX: usize = 8;

/// The value of `head`.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) struct Head {
    layout_version: u64,
    layout_first: u64,
    layout_changed: u64,
    floor: u64,
}

/// What the store has of a widget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum InStore {
    Nothing,
    Widget,
    Tombstone,
}

impl Dashboard {
    /// Reads everything but data and layouts.
    pub(super) fn read(channel: &Channel, settings: &Settings) -> Self {
        let kv = channel.kv();
        let [layout_version, layout_first, layout_changed, floor] =
            kv.get(HEAD).and_then(|value| numbers(&value)).unwrap_or_default();
        let head = Head { layout_version, layout_first: layout_first.max(1), layout_changed, floor };
        let mut widgets = BTreeMap::new();
        for (key, value) in kv.scan("m/", Order::Ascending, WIDGETS_MAX as u32) {
            if let (Some(id), Some([version, changed, counted])) = (key.strip_prefix("m/"), numbers(&value)) {
                let widget = Widget { version, changed, counted_bytes: counted as usize, data: None };
                widgets.insert(id.into(), widget);
            }
        }
        let mut tombstones = Tombstones::new(floor);
        for (key, value) in kv.scan("t/", Order::Ascending, TOMBSTONES_MAX as u32) {
            if let (Some(id), Some([version, changed])) = (key.strip_prefix("t/"), numbers(&value)) {
                tombstones.insert(id.into(), Tombstone { version, changed });
            }
        }
        let changed = widgets.values().map(|widget: &Widget| widget.changed).max().unwrap_or(0);
        Self {
            version: changed.max(tombstones.newest()).max(layout_changed).max(floor),
            counted_bytes: widgets.values().map(|widget| widget.counted_bytes).sum(),
            counted_bytes_max: settings.dashboard_bytes_max,
            widgets,
            tombstones,
            layouts: Layouts::new(layout_version, head.layout_first, layout_changed, settings.layout_versions_max),
            dirty: BTreeMap::new(),
            head,
            undo: None,
        }
    }

    /// Reads the data of these widgets.
    pub(super) fn read_data(&mut self, channel: &Channel, ids: &[Rc<str>]) {
        let unread = ids.iter().filter(|id| self.widgets.get(*id).is_some_and(|widget| widget.data.is_none()));
        if unread.count() <= SINGLE_READS_MAX {
            return; // One by one, when they are needed.
        }
        // Perhaps not all: a scan answers a bounded number of bytes. The rest is read one by one.
        for (key, value) in channel.kv().scan("w/", Order::Ascending, WIDGETS_MAX as u32) {
            let widget = key.strip_prefix("w/").and_then(|id| self.widgets.get_mut(id));
            if let Some(widget) = widget
                && widget.data.is_none()
            {
                widget.data = Some(read(&value));
            }
        }
    }

    /// Writes what the batch changed.
    pub(crate) fn write(&mut self, channel: &Channel) {
        let kv = channel.kv();
        for (id, stored) in std::mem::take(&mut self.dirty) {
            let (meta, data, tombstone) = (format!("m/{id}"), format!("w/{id}"), format!("t/{id}"));
            let (widget, buried) = (self.widgets.get_mut(&id), self.tombstones.get(&id));
            if stored == InStore::Widget && widget.is_none() {
                kv.delete(&meta);
                kv.delete(&data);
            }
            if stored == InStore::Tombstone && buried.is_none() {
                kv.delete(&tombstone);
            }
            if let Some(widget) = widget {
                let Widget { version, changed, counted_bytes, .. } = *widget;
                kv.put(&meta, format!("{version} {changed} {counted_bytes}").as_bytes());
                kv.put(&data, widget.read(channel, &id).text().as_bytes());
            }
            if let Some(Tombstone { version, changed }) = buried {
                kv.put(&tombstone, format!("{version} {changed}").as_bytes());
            }
        }
        let head = Head {
            layout_version: self.layouts.version(),
            layout_first: self.layouts.first(),
            layout_changed: self.layouts.changed(),
            floor: self.tombstones.floor(),
        };
        if head.layout_version != self.head.layout_version {
            self.layouts.write(channel);
        }
        if self.version > 0 && head != self.head {
            let Head { layout_version, layout_first, layout_changed, floor } = head;
            kv.put(HEAD, format!("{layout_version} {layout_first} {layout_changed} {floor}").as_bytes());
            self.head = head;
        }
    }
}

/// The data of a widget. What is missing reads as an empty object.
pub(super) fn data(channel: &Channel, id: &str) -> Data {
    channel.kv().get(&format!("w/{id}")).map_or_else(Data::empty, |value| read(&value))
}

fn read(value: &[u8]) -> Data {
    std::str::from_utf8(value).map_or_else(|_| Data::empty(), Data::read)
}

/// One version of the layout.
pub(super) fn layout(channel: &Channel, version: u64) -> Option<Rc<str>> {
    let value = channel.kv().get(&layout_key(version))?;
    std::str::from_utf8(&value).ok().map(Rc::from)
}

pub(super) fn put_layout(channel: &Channel, version: u64, text: &str) {
    channel.kv().put(&layout_key(version), text.as_bytes());
}

pub(super) fn delete_layout(channel: &Channel, version: u64) {
    channel.kv().delete(&layout_key(version));
}

fn layout_key(version: u64) -> String {
    format!("l/{version}")
}

fn numbers<const N: usize>(value: &[u8]) -> Option<[u64; N]> {
    let text = std::str::from_utf8(value).ok()?;
    let mut found = [0; N];
    let mut parts = text.split(' ');
    for number in &mut found {
        *number = parts.next()?.parse().ok()?;
    }
    Some(found)
}
