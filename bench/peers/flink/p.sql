-- Enriched logins, and those from a new country or from no known place, by a process table function that keeps a few times for each user
-- and country and answers in order of arrival.
CREATE TEMPORARY FUNCTION NewCountry AS 'flink.NewCountry';

CREATE TEMPORARY VIEW slim AS SELECT user_id, country, `timestamp` FROM placed;

EXECUTE STATEMENT SET BEGIN
INSERT INTO enriched SELECT * FROM enriched_logins;
INSERT INTO anomalies
SELECT user_id, `timestamp`, CASE WHEN country IS NULL THEN 'Login from unresolved address' ELSE 'Login from new country' END, country
FROM NewCountry(login => TABLE slim PARTITION BY (user_id, country), uid => 'new-country') WHERE fresh;
END;
