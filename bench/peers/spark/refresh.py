"""All silver and gold views of the shop with Spark SQL, from Parquet into Parquet: refresh.py IN OUT CLOCK COUNT. The first refresh of a process
is slower than those after it."""

import json
import os
import sys
import time

import machine
from pyspark.sql import SparkSession

SOURCES = ("users", "items", "purchases", "pageviews")
VIEWS = {
    "purchases_enriched": """
        SELECT p.id, p.user_id, p.item_id, p.quantity, p.purchase_price, cast(p.quantity * p.purchase_price AS decimal(14, 2)) AS total_price,
               u.email AS user_email, i.name AS item_name, i.category AS item_category, to_date(p.created_at) AS purchase_date,
               hour(p.created_at) AS purchase_hour, p.created_at, p.updated_at
        FROM purchases p LEFT JOIN users u ON p.user_id = u.id LEFT JOIN items i ON p.item_id = i.id""",
    "pageviews_by_items": """
        SELECT v.user_id, v.item_id, v.page, i.name AS item_name, i.category AS item_category, v.channel, v.received_at
        FROM pageviews v LEFT JOIN items i ON v.item_id = i.id""",
    "top_selling_items": """
        SELECT item_id, first(item_name) AS item_name, first(item_category) AS item_category,
               cast(sum(coalesce(total_price, 0)) AS decimal(24, 2)) AS total_revenue,
               row_number() OVER (ORDER BY sum(coalesce(total_price, 0)) DESC, item_id) AS rank
        FROM purchases_enriched WHERE item_id IS NOT NULL GROUP BY item_id ORDER BY rank LIMIT 10""",
    "sales_performance_24h": """
        SELECT purchase_hour, cast(sum(coalesce(total_price, 0)) AS decimal(24, 2)) AS total_revenue FROM purchases_enriched
        WHERE created_at > timestamp '{clock}' - INTERVAL 24 HOURS AND created_at <= timestamp '{clock}' GROUP BY purchase_hour""",
    "top_converting_items": """
        WITH viewed AS (SELECT item_id, first(item_name) AS item_name, first(item_category) AS item_category,
                               count(DISTINCT user_id) AS viewers, count(*) AS views FROM pageviews_by_items GROUP BY item_id),
             days AS (SELECT DISTINCT user_id, item_id, to_date(received_at) AS purchase_date FROM pageviews_by_items),
             bought AS (SELECT item_id, count(DISTINCT user_id) AS buyers, count(*) AS purchases
                        FROM purchases_enriched LEFT SEMI JOIN days USING (user_id, item_id, purchase_date) GROUP BY item_id)
        SELECT item_id, item_name, item_category, viewers AS unique_pageview_users, coalesce(buyers, 0) AS unique_purchase_users,
               coalesce(purchases, 0) AS total_purchases, views AS total_pageviews, coalesce(purchases, 0) / views AS conversion_rate
        FROM viewed LEFT JOIN bought USING (item_id) ORDER BY conversion_rate DESC, total_purchases DESC, item_id LIMIT 10""",
    "pageviews_by_channel": "SELECT channel, count(*) AS total_pageviews FROM pageviews_by_items GROUP BY channel",
    "user_engagement_segments": """
        SELECT id AS user_id, email, full_name, total_pageviews, active_days, last_active_date, datediff(segment_date, last_active_date) AS days_since_last_active,
               CASE WHEN total_pageviews >= 50 AND datediff(segment_date, last_active_date) <= 3 THEN 'high_engagement'
                    WHEN total_pageviews BETWEEN 10 AND 49 AND datediff(segment_date, last_active_date) <= 7 THEN 'medium_engagement'
                    ELSE 'low_engagement' END AS engagement_segment, segment_date
        FROM (SELECT id, email, full_name, coalesce(views, 0) AS total_pageviews, coalesce(days, 0) AS active_days, last_active_date,
                     to_date(timestamp '{clock}') AS segment_date
              FROM users LEFT JOIN (SELECT user_id, count(*) AS views, count(DISTINCT to_date(received_at)) AS days, max(to_date(received_at)) AS last_active_date
                                    FROM pageviews_by_items GROUP BY user_id) ON user_id = id
              WHERE valid_email)""",
}
# Views that others are made of: written once, and read by each of those.
READ_AGAIN = ("purchases_enriched", "pageviews_by_items")


def main(source, out, clock, count):
    spark = (SparkSession.builder.master("local[2]").appName("refresh").config("spark.ui.enabled", "false").config("spark.driver.memory", "4g")
             .config("spark.sql.shuffle.partitions", "2").config("spark.sql.session.timeZone", "UTC").config("spark.driver.bindAddress", "127.0.0.1")
             .config("spark.driver.host", "127.0.0.1").config("spark.sql.ansi.enabled", "false").getOrCreate())
    spark.sparkContext.setLogLevel("ERROR")
    for name in SOURCES:
        spark.read.parquet(f"{source}/{name}.parquet").createOrReplaceTempView(name)
    for _ in range(int(count)):
        spent, began = machine.cpu_s(machine.tree([os.getpid()])), time.monotonic()
        for name, sql in VIEWS.items():
            spark.sql(sql.format(clock=clock)).write.mode("overwrite").parquet(f"{out}/{name}")
            if name in READ_AGAIN:
                spark.read.parquet(f"{out}/{name}").createOrReplaceTempView(name)
        wall, tree = time.monotonic() - began, machine.tree([os.getpid()])
        print(json.dumps({"wall_s": wall, "cpu_s": machine.cpu_s(tree) - spent, "rss_mb": machine.rss_mb(tree)}), flush=True)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
