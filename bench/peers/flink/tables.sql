-- What every form of the login job shares: its input, its outputs, and where an address lies. The script fills in @...@ and appends
-- the job's own file.
SET 'pipeline.object-reuse' = 'true';
SET 'table.exec.source.idle-timeout' = '5s';

CREATE TEMPORARY FUNCTION place AS 'flink.Place';

CREATE TEMPORARY TABLE logins (
  user_id STRING, `timestamp` STRING, ip STRING, device STRING, platform STRING, user_agent STRING
) WITH (
  'connector' = 'kafka', 'topic' = '@INPUT@', 'properties.bootstrap.servers' = '@BROKERS@',
  'properties.group.id' = 'flink@SUFFIX@', 'scan.startup.mode' = 'earliest-offset',
  'format' = 'avro-confluent', 'avro-confluent.url' = '@REGISTRY@'
);

-- With event time, for the job that needs it; to whole milliseconds, which is what Flink's watermarks have.
CREATE TEMPORARY TABLE timed_logins (
  happened AS TO_TIMESTAMP(`timestamp`, 'yyyy-MM-dd''T''HH:mm:ss.SSSSSS''Z'''),
  WATERMARK FOR happened AS happened - INTERVAL '5' SECOND
) LIKE logins;

CREATE TEMPORARY TABLE enriched (
  user_id STRING, `timestamp` STRING, ip STRING, platform STRING, device_type STRING, country STRING, city STRING
) WITH (
  'connector' = 'kafka', 'topic' = 'login-events-enriched@SUFFIX@', 'properties.bootstrap.servers' = '@BROKERS@',
  'key.format' = 'json', 'key.fields' = 'user_id;timestamp', 'value.format' = 'json',
  'sink.delivery-guarantee' = '@DELIVERY@', 'sink.transactional-id-prefix' = 'enriched@SUFFIX@',
  'properties.transaction.timeout.ms' = '600000', 'properties.linger.ms' = '5', 'properties.batch.size' = '262144'
);

CREATE TEMPORARY TABLE anomalies (
  user_id STRING, `timestamp` STRING, reason STRING, country STRING
) WITH (
  'connector' = 'kafka', 'topic' = 'login-anomalies@SUFFIX@', 'properties.bootstrap.servers' = '@BROKERS@',
  'key.format' = 'json', 'key.fields' = 'user_id;timestamp', 'value.format' = 'json',
  'sink.delivery-guarantee' = '@DELIVERY@', 'sink.transactional-id-prefix' = 'anomalies@SUFFIX@',
  'properties.transaction.timeout.ms' = '600000', 'properties.linger.ms' = '5', 'properties.batch.size' = '262144'
);

CREATE TEMPORARY VIEW placed AS
SELECT l.*, p.country, p.city FROM @LOGINS@ AS l, LATERAL TABLE(place(ip)) AS p(country, city);

CREATE TEMPORARY VIEW enriched_logins AS
SELECT user_id, `timestamp`, ip, platform,
  CASE WHEN LOWER(device) LIKE '%iphone%' OR LOWER(device) LIKE '%android%' THEN 'mobile' ELSE 'desktop' END AS device_type,
  country, city
FROM placed;
