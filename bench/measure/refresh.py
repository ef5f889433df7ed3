"""The gold views of a shop with many purchases: from a change to there, kept current by the job; and made anew by Spark from the same tables, which
is the least that a change waits for on a batch platform."""

import json
import os
import statistics
import subprocess

import lake
import pyarrow.parquet
from engines import PEERS
from scene import RUN_SECONDS, BenchFailed

SPARK = "spark/spark"
FORMAT = 2
# Views that no clock changes, with columns in which both must agree.
COMPARED = {"top_selling_items": ("rank", "item_id", "total_revenue"),
            "top_converting_items": ("item_id", "unique_pageview_users", "unique_purchase_users", "total_purchases", "total_pageviews", "conversion_rate"),
            "pageviews_by_channel": ("channel", "total_pageviews")}
# What Spark begins with, from what the job keeps.
SOURCES = {"users": ("silver.users", ("id", "email", "full_name", "valid_email")), "items": ("silver.items", ("id", "name", "category")),
           "purchases": ("silver.purchases_enriched", ("id", "user_id", "item_id", "quantity", "purchase_price", "created_at", "updated_at")),
           "pageviews": ("silver.pageviews_by_items", ("user_id", "item_id", "page", "channel", "received_at"))}


class Loaded:
    """A run of the job over a shop with so many purchases; its warehouse."""

    def __init__(self, scene, options):
        self.scene, self.count = scene, options.refreshes
        self.shop = lake.Shop(scene, options.events, options.purchases)
        self.shop.views(FORMAT)
        self.table = lake.catalog_of(self.shop.left(FORMAT)).load_table

    def ours(self):
        rows = self.table("silver.purchases_enriched").scan().count()
        return self.shop.live(FORMAT) | {"rows": rows}

    def spark(self):
        given, out = self.scene.data(), self.scene.data()
        given.mkdir(exist_ok=True)
        for name, (table, columns) in SOURCES.items():
            pyarrow.parquet.write_table(self.table(table).scan(selected_fields=columns).to_arrow(), given / f"{name}.parquet")
        epochs = self.table("dataflow.epochs").scan(selected_fields=("clock",)).to_arrow()
        clock = max(epochs["clock"].to_pylist()).strftime("%Y-%m-%d %H:%M:%S")
        command = [PEERS / SPARK, "refresh", given, out, clock, str(self.count)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False, timeout=RUN_SECONDS, env=os.environ)
        if done.returncode:
            raise BenchFailed(f"Spark ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        for name, columns in COMPARED.items():
            ours, theirs = (sorted(map(repr, table.select(columns).to_pylist())) for table in
                            (self.table(f"gold.{name}").scan().to_arrow(), pyarrow.parquet.read_table(out / name)))
            if ours != theirs:
                raise BenchFailed(f"'{name}' is not the same: ours {ours[:2]}, Spark's {theirs[:2]}")
        first, *warm = map(json.loads, done.stdout.splitlines())
        took = [refresh["wall_s"] * 1000 for refresh in warm]
        return {"p50_ms": round(statistics.median(took)), "max_ms": round(max(took)), "first_ms": round(first["wall_s"] * 1000),
                "cpu_s": round(statistics.median(refresh["cpu_s"] for refresh in warm), 2), "rss_peak_mb": round(max(refresh["rss_mb"] for refresh in warm)),
                "command": self.scene.text_of(command)}
