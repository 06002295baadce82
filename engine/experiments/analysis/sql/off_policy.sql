-- The exposures of one variant that the target policy says something of, item by item as they were shown. A target
-- without surfaces speaks of requests that were for one surface only.
CREATE TEMP TABLE wanted AS
SELECT request_id, surface, item_id, max(probability) AS probability, any_value(predicted_reward) AS predicted_reward
FROM target GROUP BY request_id, surface, item_id;

CREATE TEMP TABLE asked AS
SELECT unit, request_id, surface, row_number() OVER (ORDER BY request_id, surface, unit) - 1 AS request, item_ids,
       propensities
FROM shown
WHERE variant = $variant
  AND EXISTS (
    FROM wanted WHERE wanted.request_id = shown.request_id AND coalesce(wanted.surface, shown.surface) = shown.surface
  );

CREATE TEMP TABLE rewards AS
SELECT request_id, unit, surface, item_id,
       CASE WHEN $reward = 'clicks' THEN max((event_type = 'click')::INTEGER)::DOUBLE
            ELSE coalesce(sum(money ORDER BY money) FILTER (event_type = 'purchase'), 0.0) END AS reward
FROM credited GROUP BY request_id, unit, surface, item_id;

CREATE TEMP TABLE wanted_there AS
SELECT unit, request, item_id, probability, predicted_reward
FROM asked JOIN wanted
    ON asked.request_id = wanted.request_id AND coalesce(wanted.surface, asked.surface) = asked.surface;

CREATE TEMP TABLE target_requests AS
SELECT unit, request, sum(probability * predicted_reward ORDER BY item_id) AS expected,
       sum(probability ORDER BY item_id) AS shown
FROM wanted_there
GROUP BY unit, request ORDER BY request;

SELECT unit, request, propensity::DOUBLE AS propensity, coalesce(reward, 0.0) AS reward,
       coalesce(probability, 0.0) AS target, coalesce(predicted_reward, 0.0) AS predicted
FROM (
    SELECT unit, request, request_id, surface, unnest(item_ids) AS item_id, unnest(propensities) AS propensity
    FROM asked
)
LEFT JOIN wanted_there USING (unit, request, item_id)
LEFT JOIN rewards USING (request_id, unit, surface, item_id)
ORDER BY request, item_id;
