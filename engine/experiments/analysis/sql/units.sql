-- Who took part. Testers, those who saw two variants, and bots are told apart and left out.
CREATE TEMP TABLE everybody AS
SELECT
    unit_id,
    bool_or(overridden) AS tester,
    count(DISTINCT variant) > 1 AS crossover,
    max(hourly) > $bot_hourly_requests AS bot,
    arg_min(variant, served_ms) AS variant,
    arg_min(device, served_ms) AS device,
    arg_min(country, served_ms) AS country,
    arg_min(interaction_count, served_ms) AS interaction_count
FROM (SELECT *, count(*) OVER (PARTITION BY unit_id, served_ms // 3600000) AS hourly FROM served)
GROUP BY unit_id;

CREATE TEMP TABLE units AS
SELECT (row_number() OVER (ORDER BY unit_id) - 1)::INTEGER AS unit, * EXCLUDE (tester, crossover, bot)
FROM everybody
WHERE NOT (tester OR crossover OR bot);

-- A visit without a user is the unit. The events know it by the unit's id, too.
CREATE TEMP TABLE shown AS
SELECT unit, coalesce(nullif(user_id, ''), unit_id) AS user_id, served.* EXCLUDE (unit_id, user_id, variant, device, country, interaction_count, overridden, times_logged), units.variant
FROM served JOIN units USING (unit_id);

CREATE TEMP TABLE repeated AS SELECT coalesce(sum(times_logged - 1), 0)::BIGINT AS repeats FROM served;

-- Slates are what takes the memory.
DROP TABLE served;

CREATE TEMP TABLE users AS
SELECT user_id, arg_min(unit, served_ms) AS unit FROM shown GROUP BY user_id;
