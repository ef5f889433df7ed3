-- Enriched logins, and those from a new country or from no known place, by COUNT OVER: a login is new when all of its user and country
-- in [t - 7 days, t] are younger than a second. Event time has whole milliseconds here, and an answer waits for the watermark.
CREATE TEMPORARY VIEW counted AS
SELECT user_id, `timestamp`, country, happened,
  COUNT(*) OVER (PARTITION BY user_id, country ORDER BY happened RANGE BETWEEN INTERVAL '7' DAY PRECEDING AND CURRENT ROW) AS week
FROM placed;

CREATE TEMPORARY VIEW counted_twice AS
SELECT *,
  COUNT(*) OVER (PARTITION BY user_id, country ORDER BY happened RANGE BETWEEN INTERVAL '0.999' SECOND PRECEDING AND CURRENT ROW) AS moment
FROM counted;

EXECUTE STATEMENT SET BEGIN
INSERT INTO enriched SELECT * FROM enriched_logins;
INSERT INTO anomalies
SELECT user_id, `timestamp`, CASE WHEN country IS NULL THEN 'Login from unresolved address' ELSE 'Login from new country' END, country
FROM counted_twice WHERE week = moment;
END;
