//! From SQLite's result codes to [`StoreError`].

use std::path::Path;

use sqlx::migrate::MigrateError;

use crate::store::StoreError;

/// Free space below which a failed write is blamed on the full disk, in bytes: the operating system's own code is lost
/// on the way through sqlx.
const FREE_BYTES_MIN: u64 = 1 << 20;

pub(super) fn from_sqlx(error: &sqlx::Error, path: &Path) -> StoreError {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or_default();
            from_code(code, database.message(), path)
        }
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => StoreError::Corrupt { detail: error.to_string() },
        sqlx::Error::Encode(_) => StoreError::Constraint { detail: error.to_string() },
        sqlx::Error::PoolTimedOut => StoreError::Busy { detail: "all connections for reading are in use".to_owned() },
        sqlx::Error::PoolClosed => StoreError::Closed,
        sqlx::Error::Migrate(error) => from_migration(error, path),
        _ => StoreError::Io { detail: format!("{}: {error}", path.display()) },
    }
}

pub(super) fn from_migration(error: &MigrateError, path: &Path) -> StoreError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => from_sqlx(error, path),
        MigrateError::VersionMissing(version) => StoreError::Schema {
            detail: format!(
                "{} was written by a newer version, with migration {version}; run that version or a newer one",
                path.display()
            ),
        },
        _ => StoreError::Schema { detail: format!("{}: {error}", path.display()) },
    }
}

pub(super) fn from_io(error: &std::io::Error, what: &str, path: &Path) -> StoreError {
    let detail = format!("{what} {}: {error}", path.display());
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StoreError::Full { detail },
        _ => StoreError::Io { detail },
    }
}

/// `code` is SQLite's extended result code; its low byte is the primary one. <https://www.sqlite.org/rescode.html>
fn from_code(code: i32, message: &str, path: &Path) -> StoreError {
    let detail = format!("{}: {message}, SQLite code {code}", path.display());
    match code & 0xff {
        5 | 6 => StoreError::Busy { detail },                         // BUSY, LOCKED
        13 => StoreError::Full { detail },                            // FULL
        10 | 14 if disk_is_full(path) => StoreError::Full { detail }, // IOERR, CANTOPEN
        11 | 26 => StoreError::Corrupt { detail },                    // CORRUPT, NOTADB
        18 | 19 | 20 | 25 => StoreError::Constraint { detail },       // TOOBIG, CONSTRAINT, MISMATCH, RANGE
        1 => StoreError::Schema { detail },                           // ERROR: SQL that does not fit the schema
        14 => StoreError::Io { detail: format!("{detail}; check that its folder exists and may be written to") },
        8 => StoreError::Io { detail: format!("{detail}; check the permissions of the file and its folder") },
        _ => StoreError::Io { detail },
    }
}

fn disk_is_full(path: &Path) -> bool {
    let folder = path.parent().unwrap_or(path);
    rustix::fs::statvfs(folder).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < FREE_BYTES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_result_code_has_its_error() {
        let kind = |code| from_code(code, "message", Path::new("/")).kind();

        assert_eq!(kind(5), "busy");
        assert_eq!(kind(6 + (2 << 8)), "busy");
        assert_eq!(kind(13), "full");
        assert_eq!(kind(11 + (1 << 8)), "corrupt");
        assert_eq!(kind(26), "corrupt");
        assert_eq!(kind(10 + (4 << 8)), "io");
        assert_eq!(kind(14), "io");
        assert_eq!(kind(8), "io");
        assert_eq!(kind(19 + (8 << 8)), "constraint");
    }
}
