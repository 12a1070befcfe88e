-- HangarShare, as far as the metrics of its owners need it: hangars to let, and the bookings of places in them. For PostgreSQL.
-- Points in time are milliseconds since the Unix epoch, money is in cents. Can be run again.

CREATE TABLE IF NOT EXISTS listings (
    id               TEXT    NOT NULL PRIMARY KEY,
    owner_id         TEXT    NOT NULL,
    title            TEXT    NOT NULL,
    airport          TEXT    NOT NULL,                -- ICAO code
    capacity         INTEGER NOT NULL CHECK (capacity > 0), -- aircraft at a time
    daily_rate_cents BIGINT  NOT NULL CHECK (daily_rate_cents >= 0),
    status           TEXT    NOT NULL DEFAULT 'draft' CHECK (status IN ('draft', 'published', 'archived')),
    active           BOOLEAN NOT NULL DEFAULT TRUE,   -- false while the owner takes no bookings
    created_at_ms    BIGINT  NOT NULL
);

CREATE TABLE IF NOT EXISTS bookings (
    id            TEXT    NOT NULL PRIMARY KEY,
    listing_id    TEXT    NOT NULL REFERENCES listings (id) ON DELETE CASCADE,
    renter_id     TEXT    NOT NULL,
    status        TEXT    NOT NULL DEFAULT 'pending'
                  CHECK (status IN ('pending', 'confirmed', 'completed', 'cancelled')),
    starts_at_ms  BIGINT  NOT NULL,
    ends_at_ms    BIGINT  NOT NULL CHECK (ends_at_ms > starts_at_ms),
    total_cents   BIGINT  NOT NULL CHECK (total_cents >= 0),
    created_at_ms BIGINT  NOT NULL
);

-- For the statement owner_metrics, which reads nothing but these two.
CREATE INDEX IF NOT EXISTS listings_by_owner ON listings (owner_id, id, capacity, status, active);
CREATE INDEX IF NOT EXISTS bookings_by_listing
    ON bookings (listing_id, status, created_at_ms, total_cents, starts_at_ms, ends_at_ms);
