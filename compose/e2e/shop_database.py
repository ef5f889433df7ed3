"""The shop's database and its pageviews while `loadgen shop` writes them, what Postgres itself makes of its tables, and how long a change
takes from its commit there until a query in Trino shows it.
"""

import gzip
import os
import signal
import subprocess
import threading
import time

import psycopg
import pyarrow.fs
import trino
from scene import Failure, until
from shop_views import TABLES
from warehouse import check

OBJECTS = "s3://pageviews/raw"
OBJECT_SECONDS = 2
LAST_OBJECT = "pageviews-last.ndjson"
USERS, ITEMS = 300, 60
# From its start until its tables are there.
SECONDS = 60
# What the generator may take longer than told: the database and the bucket may be away for a while.
LATE_SECONDS = 120
# loadgen leaves the ids above to others.
IDS_OF_OTHERS = 1_000_000_000
MARK_SECONDS = 1.3
LOOK_SECONDS = 0.1

# SEMANTICS' silver views over the tables as they are, in Postgres' own SQL. Its upper case leaves the sharp s alone.
VIEWS = {
    "silver.users": r"""
        SELECT id, first_name, last_name, email, created_at, updated_at,
               coalesce(email ~ '^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$', false) AS valid_email,
               concat_ws(' ', first_name, last_name) AS full_name
        FROM users""",
    "silver.items": """
        SELECT id, name, upper(replace(category, 'ß', 'SS')) AS category, CASE WHEN price < 0 THEN 0 ELSE price END AS price, inventory, created_at, updated_at
        FROM items""",
    "silver.purchases_enriched": """
        SELECT p.id, user_id, item_id, quantity, purchase_price, (quantity * purchase_price)::decimal(14, 2) AS total_price,
               u.email AS user_email, i.name AS item_name, i.category AS item_category, p.created_at::date AS purchase_date,
               extract(hour FROM p.created_at)::int AS purchase_hour, p.created_at, p.updated_at
        FROM purchases p LEFT JOIN users u ON u.id = user_id LEFT JOIN items i ON i.id = item_id
        WHERE deleted IS NOT TRUE""",
}


class ShopDatabase:
    """The database, the bucket, and who writes both."""

    def __init__(self, addresses, folder):
        self.addresses, self.log, self.writer = addresses, folder / "loadgen.log", None
        # {key: lines} of objects that were deleted.
        self.deleted = {}

    def connect(self):
        return psycopg.connect(self.addresses["POSTGRES_URL"], autocommit=True)

    def start(self, seed, rate, seconds):
        """Begins to write; returns once the tables are there."""
        command = [os.environ["DATAFLOW_LOADGEN"], "shop", "--postgres", self.addresses["POSTGRES_URL"], "--objects", OBJECTS, "--gzip",
                   "--objects-every", str(OBJECT_SECONDS), "--seed", str(seed), "--users", str(USERS), "--items", str(ITEMS),
                   "--rate", str(rate), "--seconds", str(seconds)]
        with self.log.open("wb") as log:
            self.writer = subprocess.Popen(command, env=os.environ | self.addresses, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        with self.connect() as database:
            made = lambda: all(database.execute("SELECT to_regclass(%s) IS NOT NULL", [table]).fetchone()[0] for table in TABLES)
            until(SECONDS, "loadgen has made the tables", lambda: self.is_sound() and made())

    def is_sound(self):
        if self.writer.poll():
            raise Failure(f"loadgen ended with {self.writer.returncode}: {self.log.read_text(errors='replace')[-2000:]}")
        return True

    def finish(self):
        """Waits until everything is written."""
        self.writer.wait(LATE_SECONDS)
        self.is_sound()

    def kill(self):
        if self.writer is not None and self.writer.poll() is None:
            self.writer.send_signal(signal.SIGKILL)
            self.writer.wait()

    def close_shop(self):
        """One last transaction, in all tables: {table: the id of its row}."""
        with self.connect() as database, database.transaction():
            one = lambda sql, *values: database.execute(f"{sql} RETURNING id", values).fetchone()[0]
            user = one("INSERT INTO users (first_name, email) VALUES ('the', 'last@example.org')")
            item = one("INSERT INTO items (name, price) VALUES ('last', 1.25)")
            return {"users": user, "items": item,
                    "purchases": one("INSERT INTO purchases (user_id, item_id, purchase_price) VALUES (%s, %s, 1.25)", user, item)}

    def change_all(self):
        """Every row of every table once more, a table a transaction."""
        with self.connect() as database:
            for table in TABLES:
                database.execute(f"UPDATE {table} SET updated_at = clock_timestamp()")

    def views(self):
        """{view: (columns, rows)}."""
        with self.connect() as database:
            cursors = {view: database.execute(sql) for view, sql in VIEWS.items()}
            return {view: ([column.name for column in cursor.description], cursor.fetchall()) for view, cursor in cursors.items()}

    def bucket(self):
        return pyarrow.fs.S3FileSystem(
            access_key=self.addresses["AWS_ACCESS_KEY_ID"], secret_key=self.addresses["AWS_SECRET_ACCESS_KEY"],
            region=self.addresses["AWS_REGION"], scheme="http", endpoint_override=self.addresses["S3_ENDPOINT"].removeprefix("http://"))

    def put_pageviews(self, lines):
        """An object that comes after all others."""
        with self.bucket().open_output_stream(f"{OBJECTS.removeprefix('s3://')}/{LAST_OBJECT}") as out:
            out.write(lines)

    def objects(self):
        """{key: lines} of the objects that are there, by key, which is the order in which they came."""
        bucket, found = self.bucket(), {}
        for file in bucket.get_file_info(pyarrow.fs.FileSelector(OBJECTS.removeprefix("s3://"), recursive=True)):
            if file.is_file:
                with bucket.open_input_stream(file.path, compression=None) as opened:
                    content = opened.readall()
                found[file.path] = (gzip.decompress(content) if file.path.endswith(".gz") else content).split(b"\n")[:-1]
        return dict(sorted(found.items()))

    def delete_read(self, end):
        """Deletes the objects whose lines all lie below this rank. How many."""
        bucket, there, rank, count = self.bucket(), self.objects(), 0, 0
        for path, lines in sorted((self.deleted | there).items()):
            rank += len(lines)
            if rank > end:
                break
            if path in there:
                bucket.delete_file(path)
                self.deleted[path] = lines
                count += 1
        return count

    def pageviews(self):
        """The lines of all objects that ever were, in the order of their keys."""
        return [line for _, lines in sorted((self.deleted | self.objects()).items()) for line in lines]


class Probe(threading.Thread):
    """Puts in a user every now and then, once Trino has the table, and looks for them there: seconds from the commit to the first answer with
    the row."""

    def __init__(self, database, warehouse_of):
        super().__init__(daemon=True)
        self.database, self.warehouse_of = database, warehouse_of
        self.stopping, self.open, self.took, self.failure = threading.Event(), {}, [], None

    def run(self):
        try:
            warehouse, due = self.warehouse_of(), 0.0
            while not self.stopping.is_set() and self.users(warehouse) is None:
                time.sleep(LOOK_SECONDS)
            with self.database.connect() as database:
                while not self.stopping.is_set() or self.open:
                    time.sleep(LOOK_SECONDS)
                    if not self.stopping.is_set() and time.monotonic() >= due:
                        row = database.execute("INSERT INTO users (first_name) VALUES ('marker') RETURNING id").fetchone()[0]
                        self.open[row] = time.monotonic()
                        due = time.monotonic() + MARK_SECONDS
                    self.look(warehouse)
        except BaseException as failure:  # told to whoever waits for the end
            self.failure = failure
            raise

    def users(self, warehouse):
        """The users that were put in by others than the generator; None when there is no table yet, or what it lies in is away."""
        try:
            return [row for (row,) in warehouse.ask(f"SELECT id FROM silver.users WHERE id > {IDS_OF_OTHERS}")]
        except trino.exceptions.TrinoQueryError:
            return None

    def look(self, warehouse):
        if self.open and (found := self.users(warehouse)):
            now = time.monotonic()
            self.took += [now - self.open.pop(row) for row in found if row in self.open]

    def finish(self, seconds):
        """Waits until the rows are seen that were put in so far."""
        self.stopping.set()
        self.join(seconds)
        if self.failure:
            raise self.failure
        check(not self.open and self.took, f"after {seconds} s Trino does not show the rows {sorted(self.open)}")

    def give_up(self):
        self.stopping.set()
        self.open.clear()

    def told(self):
        took = sorted(self.took)
        at = lambda share: took[min(int(share * len(took)), len(took) - 1)]
        return f"{len(took)} changes from Postgres to Trino in p50 {at(0.5):.1f} s, p99 {at(0.99):.1f} s, at most {took[-1]:.1f} s"
