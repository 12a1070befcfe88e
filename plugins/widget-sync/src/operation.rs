//! What clients and servers do to a dashboard, parsed and checked as far as that goes without the dashboard.

use std::borrow::Cow;

use hotbay_sdk::Refusal;
use hotbay_sdk::json::object;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::dashboard::WIDGET_BYTES_MAX;
use crate::data::Patch;

/// Longest `widgetId`, in bytes.
pub(crate) const WIDGET_ID_BYTES_MAX: usize = 128;
/// Largest layout, in bytes of JSON.
pub(crate) const LAYOUT_BYTES_MAX: usize = 256 << 10;

/// One change of a widget or the layout. `base` is the version that the sender saw last; a different one is a conflict.
pub(crate) enum Operation<'a> {
    /// `WIDGET_UPDATE`: merges keys into a widget, or makes it.
    Update { widget: Cow<'a, str>, patch: Patch<'a>, data: &'a str, base: Option<u64> },
    /// `WIDGET_DELETE`.
    Delete { widget: Cow<'a, str>, base: Option<u64> },
    /// `LAYOUT_UPDATE`: replaces the layout.
    Layout { layout: &'a str, base: Option<u64> },
    /// `LAYOUT_RESTORE`: makes an older layout the newest one; by default the one before.
    Restore { version: Option<u64> },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UpdatePayload<'a> {
    #[serde(borrow)]
    widget_id: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    base_version: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeletePayload<'a> {
    #[serde(borrow)]
    widget_id: Cow<'a, str>,
    #[serde(default)]
    base_version: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutPayload<'a> {
    #[serde(borrow)]
    layout: &'a RawValue,
    #[serde(default)]
    base_version: Option<u64>,
}

#[derive(Deserialize)]
struct RestorePayload {
    #[serde(default)]
    version: Option<u64>,
}

impl<'a> Operation<'a> {
    /// Whether this type is that of an operation.
    pub(crate) fn is_kind(kind: &str) -> bool {
        matches!(kind, "WIDGET_UPDATE" | "WIDGET_DELETE" | "LAYOUT_UPDATE" | "LAYOUT_RESTORE")
    }

    /// Whether this type is that of an operation on a widget.
    pub(crate) fn is_of_widget(kind: &str) -> bool {
        matches!(kind, "WIDGET_UPDATE" | "WIDGET_DELETE")
    }

    /// Parses the payload of an operation. Without `detect_conflicts`, `baseVersion` is ignored.
    pub(crate) fn parse(kind: &str, payload: &'a str, detect_conflicts: bool) -> Result<Self, Refusal> {
        let base = |version: Option<u64>| version.filter(|_| detect_conflicts);
        match kind {
            "WIDGET_UPDATE" => {
                let UpdatePayload { widget_id, data, base_version } =
                    object(payload, "WIDGET_UPDATE takes {widgetId: text, data: object, baseVersion}")?;
                Self::update(widget_id, data.get(), base(base_version))
            }
            "WIDGET_DELETE" => {
                let DeletePayload { widget_id, base_version } =
                    object(payload, "WIDGET_DELETE takes {widgetId: text, baseVersion}")?;
                check_widget_id(&widget_id)?;
                Ok(Self::Delete { widget: widget_id, base: base(base_version) })
            }
            "LAYOUT_UPDATE" => {
                let LayoutPayload { layout, base_version } =
                    object(payload, "LAYOUT_UPDATE takes {layout: object or array, baseVersion}")?;
                Self::layout(layout.get(), base(base_version))
            }
            "LAYOUT_RESTORE" => {
                let RestorePayload { version } = object(payload, "LAYOUT_RESTORE takes {version: whole number}")?;
                Ok(Self::Restore { version })
            }
            _ => Err(Refusal::bad_request(
                "an operation is a WIDGET_UPDATE, WIDGET_DELETE, LAYOUT_UPDATE or LAYOUT_RESTORE",
            )),
        }
    }

    /// How many keys of a widget it names.
    pub(crate) fn keys(&self) -> usize {
        if let Self::Update { patch, .. } = self { patch.keys() } else { 0 }
    }

    /// An update with this data.
    pub(crate) fn update(widget: Cow<'a, str>, data: &'a str, base: Option<u64>) -> Result<Self, Refusal> {
        check_widget_id(&widget)?;
        if !data.starts_with('{') {
            return Err(Refusal::bad_request("`data` must be a JSON object"));
        }
        if data.len() > WIDGET_BYTES_MAX {
            return Err(Refusal::too_large("the data of a widget has at most 65536 bytes"));
        }
        let patch = Patch::parse(data).ok_or_else(|| Refusal::bad_request("`data` must be a JSON object"))?;
        if patch.is_cut() {
            return Err(Refusal::too_large("the data of a widget has at most 1000 keys"));
        }
        Ok(Self::Update { widget, patch, data, base })
    }

    /// An update of the layout.
    pub(crate) fn layout(layout: &'a str, base: Option<u64>) -> Result<Self, Refusal> {
        if !layout.starts_with(['{', '[']) {
            return Err(Refusal::bad_request("`layout` must be a JSON object or array"));
        }
        if layout.len() > LAYOUT_BYTES_MAX {
            return Err(Refusal::too_large("a layout has at most 262144 bytes"));
        }
        Ok(Self::Layout { layout, base })
    }
}

fn check_widget_id(id: &str) -> Result<(), Refusal> {
    // Control characters are no part of a name, and not every database stores them in a key.
    if id.is_empty() || id.len() > WIDGET_ID_BYTES_MAX || id.chars().any(char::is_control) {
        return Err(Refusal::bad_request("`widgetId` must have 1 to 128 bytes and no control characters"));
    }
    Ok(())
}
