-- Data for a demonstration, for SQLite: owners owner-1 to owner-1000, ann and bob, each with two or three hangars, and
-- bookings from two months ago to a month ahead. The same every time, but for the days, which are counted from today.
-- Can be run again: rows made here are set back and moved to today, others stay.

INSERT INTO listings (id, owner_id, title, airport, capacity, daily_rate_cents, status, active, created_at_ms)
WITH RECURSIVE
clock (day_ms) AS (
    SELECT CAST(strftime('%s', 'now') AS INTEGER) / 86400 * 86400000
),
airports (number, code, city) AS (
    VALUES (0, 'EDDM', 'Munich'), (1, 'LSZH', 'Zurich'), (2, 'EHRD', 'Rotterdam'), (3, 'LFPN', 'Toussus-le-Noble'),
           (4, 'EGLF', 'Farnborough'), (5, 'LOWS', 'Salzburg'), (6, 'EKRK', 'Roskilde')
),
owners (number, id) AS (
    SELECT 1, 'owner-1'
    UNION ALL
    SELECT number + 1, CASE number + 1 WHEN 1001 THEN 'ann' WHEN 1002 THEN 'bob' ELSE 'owner-' || (number + 1) END
    FROM owners
    WHERE number < 1002
),
hangars (number) AS (VALUES (1), (2), (3)),
dice AS (
    SELECT owners.id AS owner_id, owners.number AS owner, hangars.number AS hangar,
           (owners.number * 7919 + hangars.number * 104729) % 100003 * 48271 % 65521 AS roll
    FROM owners
    JOIN hangars ON hangars.number <= 2 + owners.number % 2
)
SELECT owner_id || '-hangar-' || hangar,
       owner_id,
       'Hangar ' || hangar || ', ' || airports.city,
       airports.code,
       1 + roll % 4,
       4500 + roll / 7 % 60 * 250,
       CASE WHEN hangar > 1 AND roll % 10 = 0 THEN 'draft' WHEN hangar > 1 AND roll % 10 = 1 THEN 'archived' ELSE 'published' END,
       hangar = 1 OR roll / 11 % 8 > 0,
       clock.day_ms - (90 + roll % 400) * 86400000
FROM dice
JOIN airports ON airports.number = (dice.owner + dice.hangar) % 7
CROSS JOIN clock
WHERE TRUE
ON CONFLICT (id) DO UPDATE SET
    owner_id = excluded.owner_id, title = excluded.title, airport = excluded.airport, capacity = excluded.capacity,
    daily_rate_cents = excluded.daily_rate_cents, status = excluded.status, active = excluded.active,
    created_at_ms = excluded.created_at_ms;

-- Each place of a hangar has a stay of four to eight days in every nine, so that none is booked twice at a time.
INSERT INTO bookings (id, listing_id, renter_id, status, starts_at_ms, ends_at_ms, total_cents, created_at_ms)
WITH RECURSIVE
clock (now_ms, day_ms) AS (
    SELECT CAST(strftime('%s', 'now') AS INTEGER) * 1000, CAST(strftime('%s', 'now') AS INTEGER) / 86400 * 86400000
),
owners (number, id) AS (
    SELECT 1, 'owner-1'
    UNION ALL
    SELECT number + 1, CASE number + 1 WHEN 1001 THEN 'ann' WHEN 1002 THEN 'bob' ELSE 'owner-' || (number + 1) END
    FROM owners
    WHERE number < 1002
),
hangars (number) AS (VALUES (1), (2), (3)),
places (number) AS (VALUES (1), (2), (3), (4)),
stays (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM stays WHERE number < 10),
dice AS (
    SELECT listings.id AS listing_id, listings.daily_rate_cents AS rate, places.number AS place, stays.number AS stay,
           (owners.number * 31 + hangars.number * 17 + places.number * 5) % 9 AS shift,
           (owners.number * 7919 + hangars.number * 104729 + places.number * 1009 + stays.number * 20011)
               % 100003 * 48271 % 65521 AS roll
    FROM owners
    JOIN hangars ON hangars.number <= 2 + owners.number % 2
    JOIN listings ON listings.id = owners.id || '-hangar-' || hangars.number AND listings.status <> 'draft'
    JOIN places ON places.number <= listings.capacity
    CROSS JOIN stays
),
dated AS (
    SELECT dice.*, 4 + roll % 5 AS days, clock.now_ms, roll / 3 % 100 AS chance,
           clock.day_ms + (stay * 9 - 74 + shift + roll / 5 % 2) * 86400000 AS starts_at_ms
    FROM dice
    CROSS JOIN clock
),
asked AS (
    SELECT dated.*, starts_at_ms + days * 86400000 AS ends_at_ms,
           starts_at_ms - (5 + roll / 2 % 36) * 86400000 + roll % 50000 * 1000 AS wished_ms
    FROM dated
)
SELECT listing_id || '-booking-' || ((place - 1) * 10 + stay),
       listing_id,
       'pilot-' || (roll % 5000),
       CASE
           WHEN chance < 12 THEN 'cancelled'
           WHEN ends_at_ms <= now_ms THEN 'completed'
           WHEN starts_at_ms > now_ms AND chance < 45 THEN 'pending'
           ELSE 'confirmed'
       END,
       starts_at_ms,
       ends_at_ms,
       days * rate,
       CASE WHEN wished_ms <= now_ms THEN wished_ms ELSE now_ms - roll % 4320 * 100000 END
FROM asked
WHERE TRUE
ON CONFLICT (id) DO UPDATE SET
    listing_id = excluded.listing_id, renter_id = excluded.renter_id, status = excluded.status,
    starts_at_ms = excluded.starts_at_ms, ends_at_ms = excluded.ends_at_ms, total_cents = excluded.total_cents,
    created_at_ms = excluded.created_at_ms;
