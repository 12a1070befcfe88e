-- The figures of one owner, or of many at once: the same statement for SQLite and for PostgreSQL.
--
-- Parameters: the owner (text), then the starts of today, of this month and of last month in UTC (integers, milliseconds since
-- the Unix epoch). One row for each owner who has listings.
--
-- Revenue counts bookings that are confirmed or completed, on the day they were made. The total of bookings is of those that are
-- still open. A listing is active if it is published and takes bookings. A place is booked if a confirmed booking of
-- an active listing touches today; where one leaves and another comes on the same day, both do, but no listing counts more
-- places than it has.
WITH owned AS (
    SELECT id, owner_id, capacity, status, status = 'published' AND active AS bookable
    FROM listings
    WHERE owner_id IN ($1)
),
offered AS (
    SELECT owner_id,
           COUNT(*) FILTER (WHERE bookable) AS active,
           COUNT(*) FILTER (WHERE status = 'published') AS published,
           COUNT(*) AS total,
           SUM(CASE WHEN bookable THEN capacity ELSE 0 END) AS places
    FROM owned
    GROUP BY owner_id
),
-- Of completed bookings, whose number only grows, no older ones than revenue is counted from.
counted AS (
    SELECT owned.owner_id, owned.id, owned.capacity, owned.bookable,
           b.status, b.created_at_ms, b.total_cents, b.starts_at_ms, b.ends_at_ms
    FROM owned
    JOIN bookings b ON b.listing_id = owned.id
    WHERE b.status IN ('pending', 'confirmed')
    UNION ALL
    SELECT owned.owner_id, owned.id, owned.capacity, owned.bookable,
           b.status, b.created_at_ms, b.total_cents, b.starts_at_ms, b.ends_at_ms
    FROM owned
    JOIN bookings b ON b.listing_id = owned.id
    WHERE b.status = 'completed' AND b.created_at_ms >= $4
),
by_listing AS (
    SELECT owner_id, id, capacity,
           SUM(CASE WHEN status <> 'pending' AND created_at_ms >= $2 THEN total_cents ELSE 0 END) AS daily,
           SUM(CASE WHEN status <> 'pending' AND created_at_ms >= $3 THEN total_cents ELSE 0 END) AS monthly,
           SUM(CASE WHEN status <> 'pending' AND created_at_ms >= $4 AND created_at_ms < $3
                    THEN total_cents ELSE 0 END) AS last_month,
           COUNT(*) FILTER (WHERE status = 'pending') AS pending,
           COUNT(*) FILTER (WHERE status = 'confirmed') AS confirmed,
           COUNT(*) FILTER (WHERE status = 'confirmed' AND bookable
                              AND starts_at_ms - 86400000 < $2 AND ends_at_ms > $2) AS stays
    FROM counted
    GROUP BY owner_id, id, capacity
),
booked AS (
    SELECT owner_id,
           CAST(SUM(daily) AS DOUBLE PRECISION) AS daily,
           CAST(SUM(monthly) AS DOUBLE PRECISION) AS monthly,
           CAST(SUM(last_month) AS DOUBLE PRECISION) AS last_month,
           CAST(SUM(pending) AS BIGINT) AS pending,
           CAST(SUM(confirmed) AS BIGINT) AS confirmed,
           CAST(SUM(CASE WHEN stays < capacity THEN stays ELSE capacity END) AS BIGINT) AS places
    FROM by_listing
    GROUP BY owner_id
)
SELECT offered.owner_id,
       COALESCE(booked.daily, 0) / 100 AS revenue_daily,
       COALESCE(booked.monthly, 0) / 100 AS revenue_monthly,
       COALESCE(booked.last_month, 0) / 100 AS revenue_last_month,
       COALESCE(booked.pending, 0) AS bookings_pending,
       COALESCE(booked.confirmed, 0) AS bookings_confirmed,
       COALESCE(booked.pending + booked.confirmed, 0) AS bookings_total,
       offered.active AS listings_active,
       offered.published AS listings_published,
       offered.total AS listings_total,
       COALESCE(booked.places, 0) AS occupancy_booked,
       offered.places AS occupancy_available
FROM offered
LEFT JOIN booked ON booked.owner_id = offered.owner_id
