//! Takes away what a channel keeps.

use sqlx::SqliteConnection;

use crate::limits::LOG_SWEPT_MAX;
use crate::protocol::name::ChannelName;
use crate::store::sqlite::catalog::change::run;
use crate::store::sqlite::read::Query;

/// Whether there is such a channel.
pub(super) async fn reset(connection: &mut SqliteConnection, channel: &ChannelName) -> Result<bool, sqlx::Error> {
    let row = named(
        "UPDATE channel SET epoch = epoch + 1, seq = 0, log_first = log_next, state_bytes = 0, version = NULL \
         WHERE tenant = ? AND name = ?",
        channel,
    );
    if run(connection, row).await?.rows_affected() == 0 {
        return Ok(false);
    }
    for sql in [
        "DELETE FROM state WHERE channel = (SELECT id FROM channel WHERE tenant = ? AND name = ?)",
        "DELETE FROM timer WHERE channel = (SELECT id FROM channel WHERE tenant = ? AND name = ?)",
        "DELETE FROM saved WHERE channel = (SELECT id FROM channel WHERE tenant = ? AND name = ?)",
    ] {
        run(connection, named(sql, channel)).await?;
    }
    Ok(true)
}

/// Whether there was something to sweep.
pub(super) async fn sweep(connection: &mut SqliteConnection, channel: &ChannelName) -> Result<bool, sqlx::Error> {
    for sql in [
        // Counted while they are there.
        "UPDATE channel SET log_bytes = max(0, log_bytes - coalesce((SELECT sum(length(data)) FROM log \
         WHERE log.channel = channel.id AND log.offset >= channel.log_stored \
         AND log.offset < min(channel.log_first, channel.log_stored + ?3)), 0)) WHERE tenant = ?1 AND name = ?2",
        "DELETE FROM log WHERE (channel, offset) IN (SELECT log.channel, log.offset FROM channel CROSS JOIN log \
         ON log.channel = channel.id AND log.offset >= channel.log_stored \
         AND log.offset < min(channel.log_first, channel.log_stored + ?3) WHERE channel.tenant = ?1 AND channel.name = ?2)",
    ] {
        run(connection, named(sql, channel).bind(i64::from(LOG_SWEPT_MAX))).await?;
    }
    let row = named(
        "UPDATE channel SET log_stored = min(log_first, log_stored + ?3) \
         WHERE tenant = ?1 AND name = ?2 AND log_stored < log_first",
        channel,
    );
    Ok(run(connection, row.bind(i64::from(LOG_SWEPT_MAX))).await?.rows_affected() > 0)
}

fn named(sql: &'static str, channel: &ChannelName) -> Query {
    sqlx::query(sql).bind(channel.tenant().to_owned()).bind(channel.name().to_owned())
}
