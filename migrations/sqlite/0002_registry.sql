-- The registry: tenants, versions of plugins and what became of them, where they run, who did what and when, and tapes.
--
-- Times are milliseconds since the Unix epoch. What only the registry looks into is JSON text. What belongs to the platform itself
-- has the tenant ''. Ids grow with time; `AUTOINCREMENT`, so that a page that ended at a row which is gone meanwhile goes on
-- behind it. An index ends with the row's id, which most lists are in the order of.

-- The version that last committed there, by the SHA-256 of its component: written in the same transaction as its writes.
ALTER TABLE channel ADD COLUMN version BLOB CHECK (length(version) = 32);

-- Whether a key may administer the broker.
ALTER TABLE api_key ADD COLUMN operator INTEGER NOT NULL DEFAULT 0 CHECK (operator IN (0, 1));

CREATE TABLE tenant (
    name         TEXT    PRIMARY KEY,
    policy       TEXT    NOT NULL,                 -- who approves its versions
    grants       TEXT    NOT NULL CHECK (json_valid(grants)),       -- list of capabilities
    limits       TEXT    NOT NULL CHECK (json_valid(limits)),
    trusted_keys TEXT    NOT NULL CHECK (json_valid(trusted_keys)), -- list of public keys
    created_ms   INTEGER NOT NULL,
    changed_ms   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row per version. Its bytes are a file, named by the digest. Only status and reason ever change.
CREATE TABLE plugin (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant       TEXT    NOT NULL,
    digest       BLOB    NOT NULL CHECK (length(digest) = 32),      -- SHA-256 of the component
    name         TEXT    NOT NULL,
    version      TEXT    NOT NULL,                 -- semver
    contract     TEXT    NOT NULL,                 -- version of the WIT package
    manifest     TEXT    NOT NULL,                 -- as it was signed, byte by byte
    schema       INTEGER NOT NULL,                 -- of what it saves and keeps
    accepts      TEXT    NOT NULL CHECK (json_valid(accepts)),      -- list of earlier schemas
    capabilities TEXT    NOT NULL CHECK (json_valid(capabilities)), -- list of what it may import
    bytes        INTEGER NOT NULL,
    uploader     TEXT    NOT NULL,
    uploaded_ms  INTEGER NOT NULL,
    status       TEXT    NOT NULL CHECK (status IN ('uploaded', 'vetting', 'vetted', 'rejected', 'approved', 'revoked')),
    reason       TEXT,                             -- for the status
    UNIQUE (digest, tenant),                       -- in this order, so that a digest is found whoever uploaded it
    UNIQUE (tenant, name, version)
) STRICT;

CREATE INDEX plugin_tenant ON plugin (tenant);
CREATE INDEX plugin_name ON plugin (name);
CREATE INDEX plugin_status ON plugin (status);
CREATE INDEX plugin_uploaded ON plugin (tenant, uploaded_ms);

-- The last vetting of a version, and its steps: rows of their own, so that one that ends is written alone.
CREATE TABLE vetting (
    tenant     TEXT    NOT NULL,
    digest     BLOB    NOT NULL,
    verdict    TEXT    CHECK (verdict IN ('passed', 'failed', 'skipped')), -- none yet while it goes on
    started_ms INTEGER NOT NULL,
    ended_ms   INTEGER,
    PRIMARY KEY (tenant, digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE vetting_step (
    tenant   TEXT    NOT NULL,
    digest   BLOB    NOT NULL,
    position INTEGER NOT NULL,                     -- from 0
    step     TEXT    NOT NULL,
    verdict  TEXT    NOT NULL CHECK (verdict IN ('passed', 'failed', 'skipped')),
    ms       INTEGER NOT NULL,                     -- how long it took
    evidence TEXT    NOT NULL CHECK (json_valid(evidence)),
    PRIMARY KEY (tenant, digest, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE approval (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant    TEXT    NOT NULL,
    digest    BLOB    NOT NULL,
    by        TEXT    NOT NULL,                    -- who, for people
    key_id    TEXT,                                -- of a signature: the trusted key
    signature TEXT,
    at_ms     INTEGER NOT NULL,
    reason    TEXT
) STRICT;

CREATE INDEX approval_version ON approval (tenant, digest);

-- Which version runs where. A row stays when the next deployment takes its place.
CREATE TABLE deployment (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    mount      TEXT    NOT NULL,
    tenant     TEXT,                               -- whose channels; none: all tenants'
    pattern    TEXT,                               -- which channels; none: all of them
    owner      TEXT    NOT NULL,                   -- whose version
    digest     BLOB    NOT NULL,
    strategy   TEXT    NOT NULL CHECK (json_valid(strategy)),
    state      TEXT    NOT NULL CHECK (state IN ('active', 'superseded', 'rolled_back', 'stopped')),
    reason     TEXT,                               -- for the state
    by         TEXT    NOT NULL,                   -- who, for people
    created_ms INTEGER NOT NULL,
    changed_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX deployment_mount ON deployment (mount);
CREATE INDEX deployment_tenant ON deployment (tenant);
CREATE INDEX deployment_state ON deployment (state);
CREATE INDEX deployment_digest ON deployment (digest);

-- Who did what, when and why: written in one transaction with what was done.
CREATE TABLE audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms   INTEGER NOT NULL,
    actor   TEXT    NOT NULL,
    tenant  TEXT    NOT NULL,                      -- whom it concerns
    action  TEXT    NOT NULL,
    subject TEXT    NOT NULL,
    reason  TEXT,
    detail  TEXT    NOT NULL CHECK (json_valid(detail))
) STRICT;

-- By time, which is what people ask for and what old entries are deleted by.
CREATE INDEX audit_at ON audit (at_ms);
CREATE INDEX audit_tenant ON audit (tenant, at_ms);
CREATE INDEX audit_subject ON audit (subject, at_ms);
CREATE INDEX audit_tenant_subject ON audit (tenant, subject, at_ms);

-- Recordings of channels. Their bytes are files.
CREATE TABLE tape (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant     TEXT    NOT NULL,
    channel    TEXT    NOT NULL,
    mount      TEXT    NOT NULL,
    digest     BLOB    NOT NULL CHECK (length(digest) = 32),        -- the version that ran
    started_ms INTEGER NOT NULL,
    ended_ms   INTEGER,                            -- none while it is recorded
    batches    INTEGER NOT NULL,
    bytes      INTEGER NOT NULL,
    path       TEXT    NOT NULL
) STRICT;

CREATE INDEX tape_tenant ON tape (tenant);
CREATE INDEX tape_channel ON tape (channel);
CREATE INDEX tape_mount ON tape (mount);
