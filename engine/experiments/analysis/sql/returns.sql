-- Purchases of those who took part, and the returns that may take them back, once each and in the order of time.
WITH given_back AS (
    SELECT * EXCLUDE (repeat) FROM (
        SELECT user_id, item_id, timestamp_ms, coalesce("value", 0.0) AS money, row_number() OVER (
            PARTITION BY coalesce(event_id, concat_ws('-', '', "partition", "offset")) ORDER BY "partition", "offset"
        ) AS repeat
        FROM raw_events
        WHERE event_type = 'return' AND timestamp_ms >= $begin_ms AND timestamp_ms < $end_ms
          AND user_id IN (SELECT user_id FROM users)
    )
    WHERE repeat = 1
)
SELECT event, dense_rank() OVER (ORDER BY user_id) AS user, dense_rank() OVER (ORDER BY item_id) AS item, money
FROM (
    SELECT event, user_id, item_id, timestamp_ms, money FROM events
    WHERE event_type = 'purchase' AND (user_id, item_id) IN (SELECT (user_id, item_id) FROM given_back)
    UNION ALL
    SELECT NULL, user_id, item_id, timestamp_ms, money FROM given_back
)
ORDER BY timestamp_ms, event NULLS LAST;
