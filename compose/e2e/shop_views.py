"""What the lakehouse's tables must hold: SEMANTICS' views as plain SQL over the input files, worked out once by DuckDB.

    lines ─► current rows (last applicable change of each key, in file order) ─► silver ─► gold

Shares no code with the product, and nothing is incremental here. Text that is JSON is taken apart by Python's parser: DuckDB's is laxer.
"""

import json
import re

import duckdb
import pyarrow

CHANGES, PAGEVIEWS = "oneshop.ndjson", "pageviews.ndjson"
PLACEHOLDER = "__debezium_unavailable_value"
RECEIVED_AT_MAX = 253_402_300_799

# The columns that views read. Money is an exact text.
TABLES = {
    "users": {"first_name": "VARCHAR", "last_name": "VARCHAR", "email": "VARCHAR", "created_at": "TIMESTAMP", "updated_at": "TIMESTAMP"},
    "items": {"name": "VARCHAR", "category": "VARCHAR", "price": "DECIMAL(10, 2)", "inventory": "INTEGER",
              "created_at": "TIMESTAMP", "updated_at": "TIMESTAMP"},
    "purchases": {"user_id": "BIGINT", "item_id": "BIGINT", "quantity": "INTEGER", "purchase_price": "DECIMAL(12, 2)",
                  "deleted": "BOOLEAN", "created_at": "TIMESTAMP", "updated_at": "TIMESTAMP"},
}
SCALE = 2

# Of each change: whether it applies. A truncate applies unless it is older than one before it; a change must be above the last one.
APPLIED = """
CREATE TABLE applied_{table} AS
WITH truncates AS (
    SELECT rank, lsn, max(lsn) OVER (ORDER BY rank ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS known
    FROM changes_{table} WHERE op = 't'
), placed AS (
    SELECT *, max(lsn) FILTER (op = 't') OVER (ORDER BY rank ROWS UNBOUNDED PRECEDING) AS truncated,
           max(lsn) FILTER (op <> 't') OVER (PARTITION BY id ORDER BY rank ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS known
    FROM changes_{table}
), applied AS (
    SELECT * FROM placed
    WHERE op <> 't' AND (lsn IS NULL OR lsn >= coalesce(known, -1) AND lsn > coalesce(truncated, -1))
)
SELECT *, greatest(coalesce(max(rank) FILTER (op = 'd') OVER (PARTITION BY id), -1),
                   coalesce((SELECT max(rank) FROM truncates WHERE lsn IS NULL OR lsn >= coalesce(known, -1)), -1)) AS gone
FROM applied
"""

VIEWS = {
    "silver.users": r"""
        SELECT id, first_name, last_name, email, created_at, updated_at,
               coalesce(regexp_full_match(email, '[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}'), false) AS valid_email,
               concat_ws(' ', first_name, last_name) AS full_name
        FROM users""",
    "silver.items": """
        SELECT id, name, upper_case AS category, CASE WHEN price < 0 THEN 0 ELSE price END::DECIMAL(10, 2) AS price, inventory,
               created_at, updated_at
        FROM items LEFT JOIN uppers USING (category)""",
    "silver.purchases_enriched": """
        SELECT p.id, user_id, item_id, quantity, purchase_price, try_cast(quantity * purchase_price::DECIMAL(24, 2) AS DECIMAL(14, 2)) AS total_price,
               u.email AS user_email, i.name AS item_name, i.category AS item_category, p.created_at::DATE AS purchase_date,
               hour(p.created_at)::INTEGER AS purchase_hour, p.created_at, p.updated_at
        FROM purchases p LEFT JOIN users u ON u.id = user_id LEFT JOIN items i ON i.id = item_id
        WHERE deleted IS NOT TRUE""",
    "silver.pageviews_by_items": r"""
        SELECT user_id, v.item_id, page, name AS item_name, category AS item_category, channel, received_at
        FROM (SELECT *, regexp_extract(url, '^/([^/]+)/(\d+)$', 1) AS page,
                     try_cast(coalesce(nullif(ltrim(regexp_extract(url, '^/([^/]+)/(\d+)$', 2), '0'), ''), '0') AS BIGINT) AS item_id
              FROM pageviews WHERE regexp_full_match(url, '/([^/]+)/(\d+)')) v LEFT JOIN items ON id = v.item_id
        WHERE v.item_id IS NOT NULL""",
    "gold.top_selling_items": """
        SELECT item_id, any_value(item_name) AS item_name, any_value(item_category) AS item_category,
               sum(coalesce(total_price, 0))::DECIMAL(24, 2) AS total_revenue,
               row_number() OVER (ORDER BY sum(coalesce(total_price, 0)) DESC, item_id)::INTEGER AS rank
        FROM silver.purchases_enriched WHERE item_id IS NOT NULL GROUP BY item_id ORDER BY rank LIMIT 10""",
    "gold.top_converting_items": """
        WITH viewed AS (SELECT item_id, any_value(item_name) AS item_name, any_value(item_category) AS item_category,
                               count(DISTINCT user_id) AS viewers, count(*) AS views FROM silver.pageviews_by_items GROUP BY item_id),
             bought AS (SELECT item_id, count(DISTINCT user_id) AS buyers, count(*) AS purchases FROM silver.purchases_enriched
                        WHERE (user_id, item_id, purchase_date) IN (SELECT (user_id, item_id, received_at::DATE) FROM silver.pageviews_by_items)
                        GROUP BY item_id)
        SELECT item_id, item_name, item_category, viewers AS unique_pageview_users, coalesce(buyers, 0) AS unique_purchase_users,
               coalesce(purchases, 0) AS total_purchases, views AS total_pageviews, coalesce(purchases, 0) / views::DOUBLE AS conversion_rate
        FROM viewed LEFT JOIN bought USING (item_id) ORDER BY conversion_rate DESC, total_purchases DESC, item_id LIMIT 10""",
    "gold.pageviews_by_channel": """
        SELECT channel, count(*) AS total_pageviews FROM silver.pageviews_by_items GROUP BY channel""",
    "bronze.pageviews_dlq": "SELECT raw_record, reason, user_id, url FROM pageviews_dlq",
    "bronze.dead_letters": "SELECT place, reason FROM dead_letters",
    "bronze.users": "SELECT * FROM landed_users",
    "bronze.items": "SELECT * FROM landed_items",
    "bronze.purchases": "SELECT * FROM landed_purchases",
    "bronze.pageviews": "SELECT * FROM landed_pageviews",
}

# Functions of the clock too: the last 24 hours, and of the segments the rows of the newest date.
CLOCK_VIEWS = {
    "gold.sales_performance_24h": """
        SELECT purchase_hour, sum(coalesce(total_price, 0))::DECIMAL(24, 2) AS total_revenue FROM silver.purchases_enriched
        WHERE $clock::TIMESTAMP - INTERVAL 24 HOUR < created_at AND created_at <= $clock::TIMESTAMP GROUP BY purchase_hour""",
    "gold.user_engagement_segments": """
        SELECT id AS user_id, email, full_name, total_pageviews, active_days, last_active_date,
               days_since_last_active::INTEGER AS days_since_last_active,
               CASE WHEN total_pageviews >= 50 AND days_since_last_active <= 3 THEN 'high_engagement'
                    WHEN total_pageviews BETWEEN 10 AND 49 AND days_since_last_active <= 7 THEN 'medium_engagement'
                    ELSE 'low_engagement' END AS engagement_segment, segment_date
        FROM (SELECT id, email, full_name, count(v.user_id) AS total_pageviews, count(DISTINCT received_at::DATE) AS active_days,
                     max(received_at)::DATE AS last_active_date, $clock::TIMESTAMP::DATE AS segment_date,
                     $clock::TIMESTAMP::DATE - max(received_at)::DATE AS days_since_last_active
              FROM silver.users LEFT JOIN silver.pageviews_by_items v ON v.user_id = id WHERE valid_email GROUP BY ALL)""",
}
KEYS = {
    "silver.users": "id", "silver.items": "id", "silver.purchases_enriched": "id", "gold.top_selling_items": "rank",
    "gold.top_converting_items": "item_id", "gold.pageviews_by_channel": "channel", "gold.sales_performance_24h": "purchase_hour",
    "gold.user_engagement_segments": "segment_date, user_id",
}


class Input:
    """The lines of a folder's two files, and of each what its reader makes of it. `ends` of an epoch cut them to what it had read."""

    def __init__(self, folder):
        self.changes = {table: [] for table in TABLES}
        for line in (folder / CHANGES).read_bytes().splitlines():
            change = json.loads(line)
            self.changes[change["table"]].append(change)
        pageviews = folder / PAGEVIEWS
        lines = pageviews.read_bytes().split(b"\n")[:-1] if pageviews.exists() else []
        self.pageviews = [pageview(line) for line in lines]

    def ends(self):
        """All of it, as the last row of a bindings file says it."""
        ends = {f"dbz.public.{table}/0": len(changes) for table, changes in self.changes.items()}
        return ends | {"pageviews/0": len(self.pageviews)}


def pageview(line):
    """None (blank), ("pageview", row) or ("defective", row of the dead letters)."""
    if not line.strip(b" \t\r\n\f"):
        return None
    record = {"raw_record": line.decode(errors="replace"), "reason": None, "user_id": None, "url": None}
    try:
        value = json.loads(line.decode(), parse_constant=lambda name: int(name), parse_int=Integer, object_pairs_hook=dict)
    except (ValueError, RecursionError):
        return "defective", record | {"reason": "not_json"}
    if not isinstance(value, dict):
        return "defective", record | {"reason": "not_object"}
    integer = lambda name, low, high: int(value[name]) if isinstance(value.get(name), Integer) and low <= int(value[name]) <= high else None
    text = lambda name: value[name] if isinstance(value.get(name), str) and is_text(value[name]) else None
    user_id, url, at = integer("user_id", -1 << 63, (1 << 63) - 1), text("url"), integer("received_at", 0, RECEIVED_AT_MAX)
    for name, found in (("no_user_id", user_id), ("no_url", url), ("no_received_at", at)):
        if found is None:
            return "defective", record | {"reason": name, "user_id": user_id, "url": url}
    channel = text("channel")
    return "pageview", {"user_id": user_id, "url": url, "channel": channel, "received_at": at}


class Integer:
    """A JSON number without fraction and exponent; not a bool, which Python takes for an int."""

    def __init__(self, text):
        self.text = text

    def __int__(self):
        return int(self.text)


def is_text(text):
    """Whether it has no half of a surrogate pair."""
    return not re.search("[\ud800-\udfff]", text)


def is_inexact(row):
    """A price with more digits than the column has: the record is a dead letter."""
    prices = (row.get(name) for name in ("price", "purchase_price"))
    return any(price and re.search(r"\.\d{%d}\d*[1-9]" % SCALE, price) for price in prices)


def expected(given, ends, clock):
    """{table: (columns, rows)} of all views, of what lies below `ends`, at this clock."""
    duck = duckdb.connect()
    dead = []
    for table, columns in TABLES.items():
        load_changes(duck, table, columns, given.changes[table][:ends.get(f"dbz.public.{table}/0", 0)], dead)
    numbered = [(offset, line) for offset, line in enumerate(given.pageviews[:ends.get("pageviews/0", 0)]) if line]
    lines = [line for _, line in numbered]
    landed = [row | {"offset": offset} for offset, (what, row) in numbered if what == "pageview"]
    fill(duck, "landed_pageviews", {"user_id": "int64", "url": "string", "channel": "string", "offset": "int64"}, landed)
    of = lambda kind: [row for what, row in lines if what == kind]
    fill(duck, "raw_pageviews", {"user_id": "int64", "url": "string", "channel": "string", "received_at": "int64"}, of("pageview"))
    duck.execute("CREATE TABLE pageviews AS SELECT * REPLACE (make_timestamp(received_at * 1000000) AS received_at) FROM raw_pageviews")
    fill(duck, "pageviews_dlq", {"raw_record": "string", "reason": "string", "user_id": "int64", "url": "string"}, of("defective"))
    fill(duck, "dead_letters", {"place": "string", "reason": "string"}, dead)
    # Python's upper case is Unicode's full mapping, DuckDB's is not.
    categories = [row[0] for row in duck.execute("SELECT DISTINCT category FROM items WHERE category IS NOT NULL").fetchall()]
    fill(duck, "uppers", {"category": "string", "upper_case": "string"}, [{"category": c, "upper_case": c.upper()} for c in categories])
    duck.execute("CREATE SCHEMA silver; CREATE SCHEMA gold; CREATE SCHEMA bronze")
    views = {}
    for name, sql in (VIEWS | CLOCK_VIEWS).items():
        duck.execute(f"CREATE TABLE {name} AS {sql.replace('$clock', quoted(clock.removesuffix('Z')))}")
        views[name] = rows(duck.execute(f"SELECT * FROM {name}"))
    return views


def load_changes(duck, table, columns, changes, dead):
    """The table `table`: its current rows."""
    found, landed = [], []
    for rank, change in enumerate(changes):
        if change is None:  # a record that is no change
            continue
        op, before, after = change["op"], change["before"] or {}, change["after"] or {}
        event = {"rank": 2 * rank, "op": op, "lsn": change["lsn"]}
        if op in "rcudt" and not (op not in "dt" and is_inexact(after)):
            landed.append({"id": None if op == "t" else (before if op == "d" else after)["id"], "op": op, "topic": f"dbz.public.{table}", "offset": rank})
        if op != "d" and is_inexact(after):
            dead.append({"place": f"dbz.public.{table}/0@{rank}", "reason": "inexact"})
        elif op == "t":
            found.append(event)
        elif op == "d":
            found.append(event | {"id": before["id"]})
        else:
            if op == "u" and before.get("id", after["id"]) != after["id"]:  # a key that moved
                found.append(event | {"op": "d", "id": before["id"]})
            found.append(event | {"rank": 2 * rank + 1, "id": after["id"]} | {name: after.get(name) for name in columns})
    types = {name: {"BOOLEAN": "bool", "INTEGER": "int32", "BIGINT": "int64"}.get(kind, "string") for name, kind in columns.items()}
    fill(duck, f"changes_{table}", {"rank": "int64", "op": "string", "lsn": "int64", "id": "int32"} | types, found)
    fill(duck, f"landed_{table}", {"id": "int32", "op": "string", "topic": "string", "offset": "int64"}, landed)
    duck.execute(APPLIED.format(table=table))
    newest = []
    for name, kind in columns.items():
        # The placeholder stands for what the row had; a row that is new had nothing.
        known = f"arg_max_null({name}, rank) FILTER ({name} IS DISTINCT FROM '{PLACEHOLDER}')" if kind == "VARCHAR" else f"arg_max_null({name}, rank)"
        newest.append(f"CAST({known} AS {kind}) AS {name}")
    duck.execute(f"CREATE TABLE {table} AS SELECT id, {', '.join(newest)} FROM applied_{table} WHERE rank > gone GROUP BY id")


def fill(duck, name, columns, given):
    """A table of dicts; what one of them does not have is null."""
    arrays = {column: pyarrow.array([row.get(column) for row in given], getattr(pyarrow, kind if kind != "bool" else "bool_")())
              for column, kind in columns.items()}
    duck.register(f"given_{name}", pyarrow.table(arrays))
    duck.execute(f"CREATE TABLE {name} AS SELECT * FROM given_{name}")
    duck.unregister(f"given_{name}")


def rows(result):
    """(columns, rows) of a query."""
    table = result.to_arrow_table()
    return table.column_names, [tuple(row.values()) for row in table.to_pylist()]


def quoted(text):
    return "'" + text.replace("'", "''") + "'"
