//! From SQLite's rows to those of the registry. The columns are those of [`select`](super::select).

use std::str::FromStr;

use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{Error, Row as _};

use crate::store::catalog::{
    Approval, AuditEntry, Audited, ChannelSummary, Cursor, Deployment, Status, Tape, Tenant, TenantKept, UnknownWord,
    Version, Vetting, VettingStep,
};
use crate::store::{ApiKey, ChannelKey};

/// A row of a list.
pub(super) trait Decode: Sized + Send + 'static {
    /// The row, and the place of the list where it is.
    fn decode(row: &SqliteRow) -> Result<(Self, Cursor), Error>;

    /// Bytes of the row, roughly, where they may be many.
    fn bytes(row: &(Self, Cursor)) -> usize;
}

/// A SHA-256.
fn digest(row: &SqliteRow, column: usize) -> Result<[u8; 32], Error> {
    sized(row.try_get(column)?)
}

fn sized(bytes: &[u8]) -> Result<[u8; 32], Error> {
    bytes.try_into().map_err(|_| Error::Decode(format!("a digest has {} bytes, not 32", bytes.len()).into()))
}

pub(in crate::store::sqlite) fn digest_if_any(row: &SqliteRow, column: usize) -> Result<Option<[u8; 32]>, Error> {
    row.try_get::<Option<&[u8]>, _>(column)?.map(sized).transpose()
}

fn json<T: DeserializeOwned>(row: &SqliteRow, column: usize) -> Result<T, Error> {
    serde_json::from_str(row.try_get(column)?).map_err(|error| Error::Decode(error.into()))
}

fn word<T: FromStr<Err = UnknownWord>>(row: &SqliteRow, column: usize) -> Result<T, Error> {
    row.try_get::<&str, _>(column)?.parse().map_err(|error: UnknownWord| Error::Decode(error.into()))
}

fn word_if_any<T: FromStr<Err = UnknownWord>>(row: &SqliteRow, column: usize) -> Result<Option<T>, Error> {
    let word = row.try_get::<Option<&str>, _>(column)?;
    word.map(str::parse).transpose().map_err(|error: UnknownWord| Error::Decode(error.into()))
}

pub(super) fn count(row: &SqliteRow) -> Result<u64, Error> {
    row.try_get(0)
}

pub(super) fn tenant_status(row: &SqliteRow) -> Result<(String, Status), Error> {
    Ok((row.try_get(0)?, word(row, 1)?))
}

pub(super) fn kept(row: &SqliteRow) -> Result<TenantKept, Error> {
    Ok(TenantKept { tenant: row.try_get(0)?, state_bytes: row.try_get(1)?, log_bytes: row.try_get(2)? })
}

/// A vetting with the one step that the row has, if it has one.
pub(super) fn vetting(row: &SqliteRow) -> Result<Vetting, Error> {
    let step = match word_if_any(row, 6)? {
        Some(verdict) => {
            Some(VettingStep { step: row.try_get(5)?, verdict, ms: row.try_get(7)?, evidence: row.try_get(8)? })
        }
        None => None,
    };
    Ok(Vetting {
        tenant: row.try_get(0)?,
        digest: digest(row, 1)?,
        verdict: word_if_any(row, 2)?,
        steps: step.into_iter().collect(),
        started_ms: row.try_get(3)?,
        ended_ms: row.try_get(4)?,
    })
}

impl Decode for Tenant {
    fn decode(row: &SqliteRow) -> Result<(Self, Cursor), Error> {
        let tenant = Self {
            name: row.try_get(0)?,
            policy: row.try_get(1)?,
            grants: json(row, 2)?,
            limits: row.try_get(3)?,
            trusted_keys: json(row, 4)?,
            created_ms: row.try_get(5)?,
            changed_ms: row.try_get(6)?,
        };
        let cursor = Cursor::of_name(&tenant.name, "");
        Ok((tenant, cursor))
    }

    fn bytes((tenant, _): &(Self, Cursor)) -> usize {
        let keys = tenant.trusted_keys.iter().map(String::len).sum::<usize>();
        tenant.limits.len() + keys
    }
}

impl Decode for Version {
    fn decode(row: &SqliteRow) -> Result<(Self, Cursor), Error> {
        let version = Self {
            tenant: row.try_get(1)?,
            digest: digest(row, 2)?,
            name: row.try_get(3)?,
            version: row.try_get(4)?,
            contract: row.try_get(5)?,
            manifest: row.try_get(6)?,
            schema: row.try_get(7)?,
            accepts: json(row, 8)?,
            capabilities: json(row, 9)?,
            bytes: row.try_get(10)?,
            uploader: row.try_get(11)?,
            uploaded_ms: row.try_get(12)?,
            status: word(row, 13)?,
            reason: row.try_get(14)?,
        };
        Ok((version, Cursor::of_id(row.try_get(0)?)))
    }

    fn bytes((version, _): &(Self, Cursor)) -> usize {
        version.manifest.len() + version.reason.as_ref().map_or(0, String::len)
    }
}

impl Decode for Approval {
    fn decode(row: &SqliteRow) -> Result<(Self, Cursor), Error> {
        let approval = Self {
            id: row.try_get(0)?,
            tenant: row.try_get(1)?,
            digest: digest(row, 2)?,
            by: row.try_get(3)?,
            key_id: row.try_get(4)?,
            signature: row.try_get(5)?,
            at_ms: row.try_get(6)?,
            reason: row.try_get(7)?,
        };
        let cursor = Cursor::of_id(approval.id);
        Ok((approval, cursor))
    }

    fn bytes((approval, _): &(Self, Cursor)) -> usize {
        [&approval.signature, &approval.reason].into_iter().flatten().map(String::len).sum()
    }
}

impl Decode for Deployment {
    fn decode(row: &SqliteRow) -> Result<(Self, Cursor), Error> {
        let deployment = Self {
            id: row.try_get(0)?,
            mount: row.try_get(1)?,
            tenant: row.try_get(2)?,
            pattern: row.try_get(3)?,
            owner: row.try_get(4)?,
            digest: digest(row, 5)?,
            strategy: row.try_get(6)?,
            state: word(row, 7)?,
            reason: row.try_get(8)?,
            by: row.try_get(9)?,
            created_ms: row.try_get(10)?,
            changed_ms: row.try_get(11)?,
        };
        let cursor = Cursor::of_id(deployment.id);
        Ok((deployment, cursor))
    }

    fn bytes((deployment, _): &(Self, Cursor)) -> usize {
        deployment.strategy.len() + deployment.reason.as_ref().map_or(0, String::len)
    }
}

impl Decode for Audited {
    fn decode(row: &SqliteRow) -> Result<(Self, Cursor), Error> {
        let (id, at_ms) = (row.try_get(0)?, row.try_get(1)?);
        let entry = AuditEntry {
            at_ms: row.try_get(1)?,
            actor: row.try_get(2)?,
            tenant: row.try_get(3)?,
            action: row.try_get(4)?,
            subject: row.try_get(5)?,
            reason: row.try_get(6)?,
            detail: row.try_get(7)?,
        };
        Ok((Self { id, entry }, Cursor::of_time(at_ms, id)))
    }

    fn bytes((audited, _): &(Self, Cursor)) -> usize {
        audited.entry.detail.len() + audited.entry.reason.as_ref().map_or(0, String::len)
    }
}

impl Decode for Tape {
    fn decode(row: &SqliteRow) -> Result<(Self, Cursor), Error> {
        let tape = Self {
            id: row.try_get(0)?,
            tenant: row.try_get(1)?,
            channel: row.try_get(2)?,
            mount: row.try_get(3)?,
            digest: digest(row, 4)?,
            started_ms: row.try_get(5)?,
            ended_ms: row.try_get(6)?,
            batches: row.try_get(7)?,
            bytes: row.try_get(8)?,
            path: row.try_get(9)?,
        };
        let cursor = Cursor::of_id(tape.id);
        Ok((tape, cursor))
    }

    fn bytes((tape, _): &(Self, Cursor)) -> usize {
        tape.path.len()
    }
}

impl Decode for ApiKey {
    fn decode(row: &SqliteRow) -> Result<(Self, Cursor), Error> {
        let key = Self {
            tenant: row.try_get(0)?,
            name: row.try_get(1)?,
            hash: digest(row, 2)?,
            created_ms: row.try_get(3)?,
            operator: row.try_get(4)?,
        };
        let cursor = Cursor::of_name(&key.tenant, &key.name);
        Ok((key, cursor))
    }

    fn bytes((key, _): &(Self, Cursor)) -> usize {
        key.name.len()
    }
}

impl Decode for ChannelSummary {
    fn decode(row: &SqliteRow) -> Result<(Self, Cursor), Error> {
        let channel = Self {
            key: ChannelKey(row.try_get(0)?),
            tenant: row.try_get(1)?,
            name: row.try_get(2)?,
            epoch: row.try_get(3)?,
            seq: row.try_get(4)?,
            owner: row.try_get(5)?,
            acquired_ms: row.try_get(6)?,
            log: (row.try_get(7)?, row.try_get(8)?),
            state_bytes: row.try_get(9)?,
            version: digest_if_any(row, 10)?,
            log_bytes: row.try_get(11)?,
        };
        let cursor = Cursor::of_name(&channel.tenant, &channel.name);
        Ok((channel, cursor))
    }

    fn bytes((channel, _): &(Self, Cursor)) -> usize {
        channel.name.len()
    }
}
