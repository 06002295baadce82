-- What each unit did before the experiment; units without a line did nothing.
WITH acts AS (
    SELECT users.unit, timestamp_ms AS ms, event_type, coalesce("value", 0.0) AS money,
           CASE WHEN timestamp_ms - lag(timestamp_ms) OVER (PARTITION BY users.unit ORDER BY timestamp_ms, "offset")
                     <= $session_gap_ms THEN 0 ELSE 1 END AS cut,
           timestamp_ms - lag(timestamp_ms) OVER (PARTITION BY users.unit ORDER BY timestamp_ms, "offset") AS pause
    FROM (
        SELECT *, row_number() OVER (
            PARTITION BY coalesce(event_id, concat_ws('-', '', "partition", "offset")) ORDER BY "partition", "offset"
        ) AS repeat
        FROM raw_events
        WHERE timestamp_ms >= $begin_ms AND timestamp_ms < $end_ms AND user_id IN (SELECT user_id FROM users)
    ) JOIN users USING (user_id)
    WHERE repeat = 1
)
SELECT unit,
       count(*) FILTER (event_type = 'click') AS clicks_before,
       sum(cut) AS sessions_before,
       greatest(count(*) FILTER (event_type = 'purchase') - count(*) FILTER (event_type = 'return'), 0) AS purchases_before,
       coalesce(sum(money ORDER BY money) FILTER (event_type = 'purchase'), 0.0)
           - coalesce(sum(money ORDER BY money) FILTER (event_type = 'return'), 0.0) AS revenue_before,
       coalesce(sum(pause) FILTER (cut = 0), 0) / 1000.0 AS session_s_before
FROM acts
GROUP BY unit;
