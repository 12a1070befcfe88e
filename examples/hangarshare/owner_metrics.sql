-- The figures of one owner, or of many at once: the same statement for SQLite and for PostgreSQL.
--
-- Parameters: the owner (text), then the starts of today, of this month and of last month in UTC (integers, milliseconds since
-- the Unix epoch). One row for each owner who has listings.
--
-- Revenue counts bookings that are confirmed or completed, on the day they were made. The total of bookings is of those that are
-- still open. A listing is active if it is published and takes bookings. A place is booked if a confirmed booking of
-- an active listing touches today.
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
booked AS (
    SELECT owned.owner_id,
           SUM(CASE WHEN b.status <> 'pending' AND b.created_at_ms >= $2 THEN b.total_cents ELSE 0 END) AS daily,
           SUM(CASE WHEN b.status <> 'pending' AND b.created_at_ms >= $3 THEN b.total_cents ELSE 0 END) AS monthly,
           SUM(CASE WHEN b.status <> 'pending' AND b.created_at_ms >= $4 AND b.created_at_ms < $3
                    THEN b.total_cents ELSE 0 END) AS last_month,
           COUNT(*) FILTER (WHERE b.status = 'pending') AS pending,
           COUNT(*) FILTER (WHERE b.status = 'confirmed') AS confirmed,
           COUNT(*) FILTER (WHERE b.status = 'confirmed' AND owned.bookable
                              AND b.starts_at_ms - 86400000 < $2 AND b.ends_at_ms > $2) AS places
    FROM owned
    JOIN bookings b ON b.listing_id = owned.id
    WHERE b.status IN ('pending', 'confirmed', 'completed')
    GROUP BY owned.owner_id
)
SELECT offered.owner_id,
       COALESCE(CAST(booked.daily AS DOUBLE PRECISION), 0) / 100 AS revenue_daily,
       COALESCE(CAST(booked.monthly AS DOUBLE PRECISION), 0) / 100 AS revenue_monthly,
       COALESCE(CAST(booked.last_month AS DOUBLE PRECISION), 0) / 100 AS revenue_last_month,
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
