-- What a request was assigned in one experiment, or the same for everybody where none is named.
CREATE TEMP MACRO assigned(experiments, experiment) AS CASE
    WHEN experiment = '' THEN {'experiment': '', 'variant': 'all', 'overridden': false}
    ELSE list_filter(experiments, lambda e: e.experiment = experiment)[1]
END;

-- What was shown in an experiment, once each. One page may ask for several surfaces, and for several users, under one
-- request id: an exposure is known by request, unit and surface. What was logged twice under all three counts once.
CREATE TEMP TABLE served AS
SELECT * EXCLUDE (repeat) FROM (
    SELECT
        request_id, user_id, unit_id, surface, served_ms, assignment.variant AS variant,
        assignment.overridden AS overridden, item_ids, propensities, total_ms, len(degraded_reasons) > 0 AS degraded,
        coalesce(device, '') AS device, coalesce(country, '') AS country, interaction_count,
        row_number() OVER (PARTITION BY request_id, unit_id, surface ORDER BY served_ms, "partition", "offset") AS repeat,
        count(*) OVER (PARTITION BY request_id, unit_id, surface) AS times_logged
    FROM (
        SELECT *, assigned(experiments, $experiment) AS assignment
        FROM raw_exposures
        WHERE served_ms >= $from_ms AND served_ms < $to_ms AND ($surface = '' OR surface = $surface)
    )
    WHERE assignment IS NOT NULL
)
WHERE repeat = 1;

-- Requests of the experiment that failed, whether or not anything was ever served to these users; no overrides.
CREATE TEMP TABLE failed AS
SELECT unit_id, surface, assignment.variant AS variant
FROM (
    SELECT *, assigned(experiments, $experiment) AS assignment
    FROM raw_failures
    WHERE served_ms >= $from_ms AND served_ms < $to_ms AND ($surface = '' OR surface = $surface)
)
WHERE assignment IS NOT NULL AND NOT assignment.overridden;
