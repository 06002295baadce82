-- Money is summed in a fixed order here and later, so that the same archive gives the same report to the last digit.

-- The exposures of the request that an event names: the event's own user's where there are any, else those of the one
-- user that the request was for (a visitor may have logged in since).
CREATE TEMP TABLE named_by AS
SELECT * EXCLUDE (mine, others) FROM (
    SELECT event, events.item_id, event_type, money, timestamp_ms, events.surface AS event_surface, request_id, unit,
           shown.surface, served_ms, list_contains(item_ids, item_id) AS showed_it, shown.user_id = events.user_id AS own,
           bool_or(shown.user_id = events.user_id) OVER (PARTITION BY event) AS mine,
           min(unit) OVER (PARTITION BY event) <> max(unit) OVER (PARTITION BY event) AS others
    FROM events JOIN shown USING (request_id)
)
WHERE own OR NOT (mine OR others);

-- A click or purchase belongs to the exposure that its request_id names, if that showed the item: of several surfaces
-- under one id to that of the event. A click on another surface is none of this; a purchase often comes from the
-- checkout, and belongs to the last exposure before it.
CREATE TEMP TABLE named AS
SELECT event, request_id, unit, surface, item_id, event_type, money FROM named_by
WHERE timestamp_ms < served_ms + $window_ms AND showed_it
  AND (event_type = 'purchase' OR (event_type = 'click' AND (event_surface = '' OR event_surface = surface)))
QUALIFY row_number() OVER (
    PARTITION BY event ORDER BY surface = event_surface DESC, served_ms <= timestamp_ms DESC, served_ms DESC, surface
) = 1;

-- Without that, to the last exposure before it that showed this item to this user, for a click on the same surface.
-- A click that names another request is that one's; a purchase often names the request of the checkout page.
CREATE TEMP TABLE earlier AS
SELECT event, shown.request_id, shown.unit, shown.surface, item_id, event_type, money
FROM events JOIN shown
    ON events.user_id = shown.user_id
   AND timestamp_ms >= served_ms AND timestamp_ms < served_ms + $window_ms
   AND list_contains(item_ids, item_id)
WHERE (event_type = 'click' AND events.request_id = '' AND (events.surface = '' OR events.surface = shown.surface))
   OR (event_type = 'purchase' AND event NOT IN (SELECT event FROM named))
QUALIFY row_number() OVER (
    PARTITION BY event ORDER BY served_ms DESC, shown.surface = events.surface DESC, shown.request_id, shown.surface
) = 1;

CREATE TEMP TABLE credited AS FROM named UNION ALL FROM earlier;

CREATE TEMP TABLE outcomes AS
SELECT request_id, unit, surface,
       count(DISTINCT item_id) FILTER (event_type = 'click') AS clicks,
       count(*) FILTER (event_type = 'purchase' AND event NOT IN (SELECT event FROM returned)) AS purchases,
       coalesce(sum(money ORDER BY money) FILTER (event_type = 'purchase'), 0.0) AS revenue
FROM credited
GROUP BY request_id, unit, surface;

-- Sessions: everything that a unit does from its first exposure on, cut where it is silent for long enough.
CREATE TEMP TABLE activity AS
SELECT unit, ms, request_id, surface,
       sum(cut) OVER (PARTITION BY unit ORDER BY ms, request_id, surface ROWS UNBOUNDED PRECEDING) AS session
FROM (
    SELECT *, CASE WHEN ms - lag(ms) OVER (PARTITION BY unit ORDER BY ms, request_id, surface) <= $session_gap_ms
                   THEN 0 ELSE 1 END AS cut
    FROM (
        SELECT unit, served_ms AS ms, request_id, surface FROM shown
        UNION ALL
        SELECT min(unit), greatest(any_value(timestamp_ms), min(served_ms)), '', '' FROM named_by GROUP BY event
        UNION ALL
        SELECT shown.unit, timestamp_ms, '', ''
        FROM (FROM events WHERE event NOT IN (SELECT event FROM named_by)) AS events
        ASOF JOIN shown ON events.user_id = shown.user_id AND timestamp_ms >= served_ms
    )
);

CREATE TEMP TABLE sessions AS
SELECT unit, session, min(ms) AS begin_ms, max(ms) - min(ms) AS session_ms FROM activity GROUP BY unit, session;

CREATE TEMP TABLE placed AS
SELECT unit, surface, served_ms, session, len(item_ids) AS items, coalesce(clicks, 0) AS clicks,
       coalesce(purchases, 0) AS purchases, coalesce(revenue, 0.0) AS revenue
FROM shown JOIN activity USING (request_id, unit, surface) LEFT JOIN outcomes USING (request_id, unit, surface);
