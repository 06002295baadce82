-- What those who took part did, once each.
CREATE TEMP TABLE events AS
SELECT * EXCLUDE (repeat) FROM (
    SELECT
        row_number() OVER () AS event, user_id, item_id, event_type, timestamp_ms, coalesce("value", 0.0) AS money,
        coalesce(surface, '') AS surface, coalesce(request_id, '') AS request_id,
        row_number() OVER (
            PARTITION BY coalesce(event_id, concat_ws('-', '', "partition", "offset")) ORDER BY "partition", "offset"
        ) AS repeat
    FROM raw_events
    WHERE timestamp_ms >= $begin_ms AND timestamp_ms < $end_ms
      AND (user_id IN (SELECT user_id FROM users) OR request_id IN (SELECT request_id FROM shown))
)
WHERE repeat = 1;
