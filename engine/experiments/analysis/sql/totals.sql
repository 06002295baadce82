-- Each unit's sums by surface ('' is all of them together) and day; a session counts on the day on which it began.
SELECT unit, surface, day::INTEGER AS day,
       sum(requests) AS requests, sum(items) AS items, sum(clicks) AS clicks, sum(clicked_requests) AS clicked_requests,
       sum(sessions) AS sessions, sum(converted_sessions) AS converted_sessions, sum(session_ms) / 1000.0 AS session_s,
       sum(revenue ORDER BY revenue) AS revenue
FROM (
    SELECT unit, coalesce(surface, '') AS surface, served_ms // 86400000 AS day,
           count(*) AS requests, sum(items) AS items, sum(clicks) AS clicks,
           count(*) FILTER (clicks > 0) AS clicked_requests,
           0 AS sessions, 0 AS converted_sessions, 0 AS session_ms, 0.0 AS revenue
    FROM placed
    GROUP BY GROUPING SETS ((unit, surface, served_ms // 86400000), (unit, served_ms // 86400000))
    UNION ALL
    SELECT unit, surface, begin_ms // 86400000, 0, 0, 0, 0,
           count(*), count(*) FILTER (purchases > 0), sum(session_ms), sum(revenue ORDER BY revenue)
    FROM (
        SELECT unit, session, coalesce(surface, '') AS surface, sum(purchases) AS purchases,
               sum(revenue ORDER BY revenue) AS revenue
        FROM placed
        GROUP BY GROUPING SETS ((unit, session, surface), (unit, session))
    ) JOIN sessions USING (unit, session)
    GROUP BY unit, surface, begin_ms // 86400000
)
GROUP BY unit, surface, day
ORDER BY day, unit, surface;
