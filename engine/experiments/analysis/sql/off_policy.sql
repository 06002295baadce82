-- The exposures of one variant that the target policy says something of, item by item as they were shown.
CREATE TEMP TABLE wanted AS
SELECT request_id, item_id, max(probability) AS probability, any_value(predicted_reward) AS predicted_reward
FROM target GROUP BY request_id, item_id;

CREATE TEMP TABLE asked AS
SELECT unit, request_id, row_number() OVER (ORDER BY request_id) - 1 AS request, item_ids, propensities
FROM shown
WHERE variant = $variant AND request_id IN (SELECT request_id FROM wanted);

CREATE TEMP TABLE rewards AS
SELECT request_id, item_id,
       CASE WHEN $reward = 'clicks' THEN max((event_type = 'click')::INTEGER)::DOUBLE
            ELSE coalesce(sum(money ORDER BY money) FILTER (event_type = 'purchase'), 0.0) END AS reward
FROM credited GROUP BY request_id, item_id;

CREATE TEMP TABLE target_requests AS
SELECT unit, request, sum(probability * predicted_reward ORDER BY item_id) AS expected,
       sum(probability ORDER BY item_id) AS shown
FROM asked JOIN wanted USING (request_id)
GROUP BY unit, request ORDER BY request;

SELECT unit, request, propensity::DOUBLE AS propensity, coalesce(reward, 0.0) AS reward,
       coalesce(probability, 0.0) AS target, coalesce(predicted_reward, 0.0) AS predicted
FROM (
    SELECT unit, request, request_id, unnest(item_ids) AS item_id, unnest(propensities) AS propensity FROM asked
)
LEFT JOIN wanted USING (request_id, item_id)
LEFT JOIN rewards USING (request_id, item_id)
ORDER BY request, item_id;
