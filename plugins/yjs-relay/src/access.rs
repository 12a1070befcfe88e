//! Who may open a draft, and who may write to it. Decides from the verified claims, and either from the operator's
//! statement `draft_access` or from the firm the draft is bound to. When that is asked is `admission.rs`'s business.

use hotbay_sdk::{Channel, Identity, Rows, SqlError, SqlValue, log_warn};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where the firm stands that a draft is bound to.
const FIRM_KEY: &str = "firm";
/// The role that only reads.
const VIEWER: &str = "viewer";
/// The statement that replaces the rule of firms: parameters draft id, user id, firm id, role.
const STATEMENT: &str = "draft_access";

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Why somebody may do nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The draft is not for them.
    Foreign,
    /// Nobody can tell now.
    Later,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default, rename = "firmId")]
    firm_id: Value,
}

/// The firm in the claim `firmId`.
pub(crate) fn firm(identity: &Identity) -> Option<String> {
    let claims: Claims = serde_json::from_str(&identity.claims).ok()?;
    text(&claims.firm_id)
}

/// Where it is asked who may do what.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// The mount has the statement.
    asks: bool,
    /// The statement could not be run in this batch. Each that waited for it once more would keep the draft from all
    /// others.
    is_out: bool,
}

impl Gate {
    /// What an identity may do with a draft. Binds a draft that is opened for the first time to the opener's firm,
    /// unless that only reads.
    pub(crate) fn decide(&mut self, channel: &Channel, draft: &str, identity: &Identity) -> Result<Access, Denied> {
        if self.is_out {
            return Err(Denied::Later);
        }
        let own = if identity.role == VIEWER { Access::Read } else { Access::Write };
        let firm = firm(identity);
        let parameters = [
            SqlValue::Text(draft.to_owned()),
            SqlValue::Text(identity.user.clone()),
            firm.clone().map_or(SqlValue::Null, SqlValue::Text),
            SqlValue::Text(identity.role.clone()),
        ];
        let answer = channel.query(STATEMENT, &parameters);
        self.asks = answer != Err(SqlError::NotGranted);
        match answer {
            Err(SqlError::NotGranted) => by_firm(channel, draft, identity, firm, own),
            Ok(rows) => by_rows(channel, &rows, own),
            Err(why) => {
                self.is_out = matches!(why, SqlError::Timeout | SqlError::Unavailable);
                log_warn!(
                    channel,
                    "ws.error error=\"the statement {STATEMENT} failed: {}\" context=access",
                    word(&why)
                );
                Err(Denied::Later)
            }
        }
    }

    /// Whether the statement decides, whose answer may change while members are here.
    pub(crate) fn asks(&self) -> bool {
        self.asks
    }

    /// The batch ends: the statement may be tried again.
    pub(crate) fn renew(&mut self) {
        self.is_out = false;
    }
}

/// Whether the draft is bound to a firm.
pub(crate) fn is_bound(channel: &Channel) -> bool {
    channel.kv().get(FIRM_KEY).is_some()
}

/// Leaves the draft to whoever opens it next.
pub(crate) fn unbind(channel: &Channel) {
    channel.kv().delete(FIRM_KEY);
}

fn by_rows(channel: &Channel, rows: &Rows, own: Access) -> Result<Access, Denied> {
    let row = rows.rows.first().ok_or(Denied::Foreign)?;
    let Some(column) = rows.columns.iter().position(|column| column == "access") else { return Ok(own) };
    match row.get(column) {
        Some(SqlValue::Text(access)) if access == "write" => Ok(own),
        Some(SqlValue::Text(access)) if access == "read" => Ok(Access::Read),
        _ => {
            log_warn!(channel, "ws.error error=\"{STATEMENT}.access is neither read nor write\" context=access");
            Err(Denied::Foreign)
        }
    }
}

fn by_firm(
    channel: &Channel,
    draft: &str,
    identity: &Identity,
    firm: Option<String>,
    own: Access,
) -> Result<Access, Denied> {
    let firm = firm.ok_or(Denied::Foreign)?;
    match channel.kv().get(FIRM_KEY) {
        Some(bound) if bound == firm.as_bytes() => Ok(own),
        Some(_) if identity.claim_lists("drafts", draft) => Ok(own),
        Some(_) => Err(Denied::Foreign),
        // Who only reads has nothing to read here yet, and must not decide whose the draft is.
        None if own == Access::Read => Err(Denied::Foreign),
        None => {
            channel.kv().put(FIRM_KEY, firm.as_bytes());
            Ok(own)
        }
    }
}

/// An id: a text that is not empty, or a whole number.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

fn word(why: &SqlError) -> &'static str {
    match why {
        SqlError::NotGranted => "not granted",
        SqlError::BadParameters(_) => "bad parameters",
        SqlError::Timeout => "timeout",
        SqlError::Unavailable => "unavailable",
        SqlError::TooLarge => "too large",
        SqlError::Failed => "failed",
    }
}
