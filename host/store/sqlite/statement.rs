//! Statements over many rows, prepared in a few sizes.
//!
//! sqlx hands each statement to SQLite's thread and waits for it, which costs more than the work on one row, so a group's
//! rows go through as few statements as possible. The rows a statement has too many are left unbound: they are NULL, and every statement
//! here is written so that rows of NULL match nothing.

use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr, SqliteConnection};

/// Rows of the prepared statements. More rows take several statements.
const SIZES: [usize; 5] = [1, 4, 16, 64, 256];
const SIZE_MAX: usize = SIZES[SIZES.len() - 1];

/// A statement with a `VALUES` list.
pub(super) struct RowsStatement {
    sizes: [SqlStr; SIZES.len()],
}

impl RowsStatement {
    /// `sql` contains `$rows` once, where the rows go: as `(?,?),(?,?)` for two rows of two columns, `?,?` for two
    /// of `columns == 1`.
    pub(super) fn new(sql: &'static str, columns: usize) -> Self {
        let row = match columns {
            1 => "?".to_owned(),
            _ => format!("({})", vec!["?"; columns].join(",")),
        };
        let sizes = SIZES.map(|size| {
            // Only question marks are put into a constant text.
            AssertSqlSafe(sql.replacen("$rows", &vec![row.as_str(); size].join(","), 1)).into_sql_str().clone()
        });
        Self { sizes }
    }

    /// For rows of the second size.
    #[cfg(test)]
    pub(super) fn sql(&self) -> &str {
        self.sizes[1].as_str()
    }

    /// Runs it for all rows; `bind` adds a row's columns. Answers how many rows were changed.
    pub(super) async fn execute<T>(
        &self,
        connection: &mut SqliteConnection,
        rows: &[T],
        mut bind: impl for<'r> FnMut(&'r mut Row, &T) -> &'r mut Row,
    ) -> Result<u64, sqlx::Error> {
        let mut changed = 0;
        for chunk in rows.chunks(SIZE_MAX) {
            let (sql, arguments) = self.prepare(chunk, &mut bind)?;
            changed += sqlx::query_with(sql, arguments).execute(&mut *connection).await?.rows_affected();
        }
        Ok(changed)
    }

    /// Runs it for all rows and answers what it returns.
    pub(super) async fn fetch<T>(
        &self,
        connection: &mut SqliteConnection,
        rows: &[T],
        mut bind: impl for<'r> FnMut(&'r mut Row, &T) -> &'r mut Row,
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        let mut found = Vec::new();
        for chunk in rows.chunks(SIZE_MAX) {
            let (sql, arguments) = self.prepare(chunk, &mut bind)?;
            found.append(&mut sqlx::query_with(sql, arguments).fetch_all(&mut *connection).await?);
        }
        Ok(found)
    }

    fn prepare<T>(
        &self,
        rows: &[T],
        bind: &mut impl for<'r> FnMut(&'r mut Row, &T) -> &'r mut Row,
    ) -> Result<(SqlStr, SqliteArguments), sqlx::Error> {
        let size = SIZES.iter().position(|&size| size >= rows.len()).unwrap_or(SIZES.len() - 1);
        let mut row = Row::default();
        for value in rows {
            bind(&mut row, value);
        }
        Ok((self.sizes[size].clone(), row.arguments()?))
    }
}

/// Takes the columns of a row, one after the other.
#[derive(Default)]
pub(super) struct Row {
    arguments: SqliteArguments,
    error: Option<sqlx::error::BoxDynError>,
}

impl Row {
    pub(super) fn int(&mut self, value: i64) -> &mut Self {
        self.add(value)
    }

    /// For numbers that were checked to fit, see [`super::plan`].
    pub(super) fn count(&mut self, value: u64) -> &mut Self {
        self.add(value.cast_signed())
    }

    pub(super) fn text(&mut self, value: &str) -> &mut Self {
        self.add(value)
    }

    pub(super) fn blob(&mut self, value: &[u8]) -> &mut Self {
        self.add(value)
    }

    pub(super) fn arguments(self) -> Result<SqliteArguments, sqlx::Error> {
        match self.error {
            Some(error) => Err(sqlx::Error::Encode(error)),
            None => Ok(self.arguments),
        }
    }

    fn add<'t>(&mut self, value: impl sqlx::Encode<'t, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>) -> &mut Self {
        if let Err(error) = sqlx::Arguments::add(&mut self.arguments, value) {
            self.error.get_or_insert(error);
        }
        self
    }
}
