-- Channels with all that belongs to them, and API keys.
--
-- A channel's rows are written only under its fence, after its row in `channel` was found, so they need no foreign keys.
-- Times are milliseconds since the Unix epoch. Keys of the state are blobs, so that their order is the order of bytes.

CREATE TABLE channel (
    id          INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again, even if the row is deleted one day
    tenant      TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    epoch       INTEGER NOT NULL,                  -- raised by every acquire
    seq         INTEGER NOT NULL DEFAULT 0,        -- raised by every commit of the epoch
    owner       TEXT    NOT NULL,                  -- for operators; the fence is epoch and seq
    acquired_ms INTEGER NOT NULL,                  -- by the clock of the database, for operators
    log_stored  INTEGER NOT NULL DEFAULT 1,        -- oldest row in `log`; those before log_first wait to be swept
    log_first   INTEGER NOT NULL DEFAULT 1,        -- oldest entry that may be read
    log_next    INTEGER NOT NULL DEFAULT 1,        -- offset of the next append
    state_bytes INTEGER NOT NULL DEFAULT 0,        -- keys and values in `state`
    UNIQUE (tenant, name),
    CHECK (log_stored <= log_first AND log_first <= log_next AND state_bytes >= 0)
) STRICT;

CREATE TABLE state (
    channel INTEGER NOT NULL,
    key     BLOB    NOT NULL,
    value   BLOB    NOT NULL,
    PRIMARY KEY (channel, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE log (
    channel INTEGER NOT NULL,
    offset  INTEGER NOT NULL,
    at_ms   INTEGER NOT NULL,
    data    BLOB    NOT NULL,
    PRIMARY KEY (channel, offset)
) STRICT, WITHOUT ROWID;

CREATE TABLE timer (
    channel INTEGER NOT NULL,
    name    TEXT    NOT NULL,
    due_ms  INTEGER NOT NULL,
    PRIMARY KEY (channel, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX timer_due ON timer (due_ms, channel);

-- What an instance saved when it went to sleep. Its own table, because the rows of `channel` are written over by every
-- commit and should stay short. Valid only while the channel still is at this epoch and seq.
CREATE TABLE saved (
    channel  INTEGER PRIMARY KEY,
    epoch    INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    checksum BLOB    NOT NULL,                     -- first 16 bytes of the SHA-256 of data
    data     BLOB    NOT NULL
) STRICT;

-- Answers kept for retries. The id grows with time, so the oldest are found without an index over at_ms.
CREATE TABLE answer (
    id      INTEGER PRIMARY KEY,
    channel INTEGER NOT NULL,
    sender  TEXT    NOT NULL,
    key     TEXT    NOT NULL,
    at_ms   INTEGER NOT NULL,
    answer  BLOB    NOT NULL,
    UNIQUE (channel, sender, key)
) STRICT;

CREATE TABLE api_key (
    hash       BLOB    PRIMARY KEY,                -- SHA-256 of the secret
    tenant     TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    created_ms INTEGER NOT NULL,
    revoked_ms INTEGER
) STRICT, WITHOUT ROWID;

-- The name of a revoked key may be given again.
CREATE UNIQUE INDEX api_key_name ON api_key (tenant, name) WHERE revoked_ms IS NULL;

-- One row that /readyz writes to find out whether writing works.
CREATE TABLE probe (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    at_ms INTEGER NOT NULL
) STRICT;
