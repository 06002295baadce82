-- Money is summed in a fixed order here and later, so that the same archive gives the same report to the last digit.

-- A click or purchase belongs to the exposure that its request_id names, if that showed the item.
CREATE TEMP TABLE named AS
SELECT event, shown.request_id, item_id, event_type, money
FROM events JOIN shown USING (request_id)
WHERE event_type IN ('click', 'purchase') AND timestamp_ms < served_ms + $window_ms AND list_contains(item_ids, item_id);

-- Without that, to the last exposure before it that showed this item to this user, for a click on the same surface.
-- A click that names another request is that one's; a purchase often names the request of the checkout page.
CREATE TEMP TABLE earlier AS
SELECT event, arg_max(shown.request_id, served_ms) AS request_id, any_value(item_id) AS item_id,
       any_value(event_type) AS event_type, any_value(money) AS money
FROM events JOIN shown
    ON events.user_id = shown.user_id
   AND timestamp_ms >= served_ms AND timestamp_ms < served_ms + $window_ms
   AND list_contains(item_ids, item_id)
WHERE (event_type = 'click' AND events.request_id = '' AND (events.surface = '' OR events.surface = shown.surface))
   OR (event_type = 'purchase' AND event NOT IN (SELECT event FROM named))
GROUP BY event;

CREATE TEMP TABLE credited AS FROM named UNION ALL FROM earlier;

CREATE TEMP TABLE outcomes AS
SELECT request_id,
       count(DISTINCT item_id) FILTER (event_type = 'click') AS clicks,
       count(*) FILTER (event_type = 'purchase' AND event NOT IN (SELECT event FROM returned)) AS purchases,
       coalesce(sum(money ORDER BY money) FILTER (event_type = 'purchase'), 0.0) AS revenue
FROM credited
GROUP BY request_id;

-- Sessions: everything that a unit does from its first exposure on, cut where it is silent for long enough.
CREATE TEMP TABLE activity AS
SELECT unit, ms, request_id,
       sum(cut) OVER (PARTITION BY unit ORDER BY ms, request_id ROWS UNBOUNDED PRECEDING) AS session
FROM (
    SELECT *, CASE WHEN ms - lag(ms) OVER (PARTITION BY unit ORDER BY ms, request_id) <= $session_gap_ms
                   THEN 0 ELSE 1 END AS cut
    FROM (
        SELECT unit, served_ms AS ms, request_id FROM shown
        UNION ALL
        SELECT shown.unit, greatest(timestamp_ms, served_ms), '' FROM events JOIN shown USING (request_id)
        UNION ALL
        SELECT shown.unit, timestamp_ms, ''
        FROM (FROM events WHERE request_id NOT IN (SELECT request_id FROM shown)) AS events
        ASOF JOIN shown ON events.user_id = shown.user_id AND timestamp_ms >= served_ms
    )
);

CREATE TEMP TABLE sessions AS
SELECT unit, session, min(ms) AS begin_ms, max(ms) - min(ms) AS session_ms FROM activity GROUP BY unit, session;

CREATE TEMP TABLE placed AS
SELECT shown.unit, surface, served_ms, session, len(item_ids) AS items, coalesce(clicks, 0) AS clicks,
       coalesce(purchases, 0) AS purchases, coalesce(revenue, 0.0) AS revenue
FROM shown JOIN activity USING (request_id) LEFT JOIN outcomes USING (request_id);
