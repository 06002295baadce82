-- Of each variant and surface. Coverage and categories are taken from equally many requests of each variant, because
-- more requests show more items whatever chose them.
WITH every AS (
    SELECT variant, request_id, unit, surface AS place_shown, total_ms, degraded, item_ids, surface FROM shown
    UNION ALL
    SELECT variant, request_id, unit, surface, total_ms, degraded, item_ids, '' FROM shown WHERE $surface = ''
),
fewest AS (
    SELECT surface, least(min(requests), 20000) AS requests
    FROM (SELECT surface, variant, count(*) AS requests FROM every GROUP BY surface, variant) GROUP BY surface
),
sampled AS (
    SELECT * FROM (
        SELECT *, row_number() OVER (PARTITION BY surface, variant ORDER BY hash(request_id), request_id, unit, place_shown) AS place FROM every
    ) JOIN fewest USING (surface)
    WHERE place <= requests
),
places AS (
    SELECT surface, variant, request_id, unit, place_shown, unnest(item_ids) AS item_id, generate_subscripts(item_ids, 1) AS position
    FROM sampled
),
covered AS (SELECT surface, variant, count(DISTINCT item_id) AS distinct_items FROM places GROUP BY surface, variant),
pool AS (SELECT surface, count(DISTINCT item_id) AS all_items FROM places GROUP BY surface),
mixed AS (
    SELECT surface, variant, avg(known) AS categories FROM (
        SELECT surface, variant, count(DISTINCT category) AS known
        FROM places JOIN categories USING (item_id)
        WHERE position <= 10
        GROUP BY surface, variant, request_id, unit, place_shown
    ) GROUP BY surface, variant
),
counted AS (
    -- Of those who count, as far as that is known of users to whom nothing was served.
    SELECT variant, surface FROM failed
    WHERE unit_id NOT IN (SELECT unit_id FROM everybody WHERE tester OR crossover OR bot)
),
errors AS (
    SELECT surface, variant, count(*) AS failures
    FROM (FROM counted UNION ALL SELECT variant, '' FROM counted WHERE $surface = '')
    GROUP BY surface, variant
)
SELECT surface, variant, count(*) AS requests, quantile_cont(total_ms, 0.5) AS latency_p50_ms,
       quantile_cont(total_ms, 0.99) AS latency_p99_ms, avg(degraded::INTEGER) AS degraded_share,
       avg((len(item_ids) = 0)::INTEGER) AS empty_share,
       any_value(distinct_items) / greatest(any_value(all_items), 1) AS coverage,
       any_value(categories) AS categories_in_ten,
       coalesce(any_value(failures), 0) / (count(*) + coalesce(any_value(failures), 0)) AS error_share
FROM every
LEFT JOIN covered USING (surface, variant) LEFT JOIN pool USING (surface) LEFT JOIN mixed USING (surface, variant)
LEFT JOIN errors USING (surface, variant)
GROUP BY surface, variant
ORDER BY surface, variant;
