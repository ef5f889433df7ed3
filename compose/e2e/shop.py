"""A seeded shop: its database's change events and its pageviews, as lines of two files that grow.

Everything that makes tables hard is in it: updates and deletes, keys that come again, keys that move, truncates, stretches that
are sent again, stale and position-less rows of snapshots, values that the database did not send, prices that do not fit, lines that
are no pageview. What the tables must hold is no concern of this file: `shop_views` works it out from the lines alone.
"""

import datetime
import json
import random
import threading

from shop_views import CHANGES, PAGEVIEWS, PLACEHOLDER

FIRST = ("Ana", "Bo", "Łukasz", "李", "Zoë", "", None)
LAST = ("Smith", "Müller", "王", "de la Cruz", None)
EMAILS = ("{0}@example.org", "user.{0}@shop.example.com", "a{0}@b", "x_%-{0}@a-b.info", None)
CATEGORIES = ("mugs", "straße", "Hüte", None, "Hats")
CHANNELS = ("organic search", "paid search", "referral", "social", "display")
URLS = ("/about", "/products/9223372036854775808", "/products/0007", "/x/y/1", "products/1", "/products/1 ", "/items/12")
DEFECTS = (b"not json", b"{}x", b'{"user_id": NaN, "url": "/products/1", "received_at": 1}', b"[1]", b'{"user_id": 1.0, "url": "/products/1", "received_at": 1}',
           b'{"user_id": 1, "received_at": 1}', b'{"user_id": 1, "url": "/products/1", "received_at": -1}', b'{"user_id": 1, "url": "/\xff"}',
           b'{"user_id": 9223372036854775808, "url": "/products/3", "channel": "social", "received_at": 1}')
USERS, ITEMS = 80, 40
# Purchases that are there at a time: beyond it some go.
PURCHASES_MAX = 600
# Lines of the database's file of which a stretch may be sent again.
AGAIN_MAX = 60
DAY_S = 86_400


class Shop:
    """Makes lines. `now` in seconds; nothing happens within an hour of where the last 24 hours begin or end, so that their sums do not
    depend on when exactly they are looked at."""

    def __init__(self, rng, now):
        self.rng, self.now, self.lsn = rng, now, 24_000_000
        self.rows = {"users": {}, "items": {}, "purchases": {}}
        self.gone = {table: [] for table in self.rows}
        self.next_id = dict.fromkeys(self.rows, 1)
        self.recent, self.old = [], []
        self.counts = dict.fromkeys(("change", "pageview", "delete", "reused key", "moved key", "truncate", "sent again", "stale row", "dead letter"), 0)

    def lines(self):
        """Some lines, as (file, bytes with their line feed): what belongs together comes together."""
        rng = self.rng
        out = []
        if len(self.rows["users"]) < 10 or len(self.rows["items"]) < 10:
            self.change(out, rng.choice(("users", "items")), "create")
        elif (luck := rng.random()) < 0.0006:
            self.truncate(out, rng.choice(("purchases", "purchases", "purchases", "items", "users")))
        elif luck < 0.006 and self.recent:
            again = self.recent[-rng.randint(1, AGAIN_MAX):]
            self.counts["sent again"] += len(again)
            out += [(CHANGES, line) for line in again]
        elif luck < 0.016 and self.old:
            self.counts["stale row"] += 1
            table, row, lsn = rng.choice(self.old)
            self.say(out, table, "r", None, row, lsn)
        elif luck < 0.026:
            table = rng.choice(list(self.rows))
            for row in rng.sample(list(self.rows[table].values()), min(3, len(self.rows[table]))):
                self.say(out, table, "r", None, row, None)
        elif luck < 0.45:
            self.pageview(out)
        else:
            self.change(out, rng.choices(list(self.rows), (2, 2, 6))[0], rng.choices(("create", "update", "delete", "move"), (40, 45, 12, 3))[0])
        return out

    def change(self, out, table, what):
        rng, rows = self.rng, self.rows[table]
        self.lsn += rng.randint(1, 200)
        limit = {"users": USERS, "items": ITEMS, "purchases": PURCHASES_MAX}[table]
        if what == "create" and len(rows) >= limit:
            what = "delete"
        if what != "create" and not rows:
            what = "create"
        if what == "create":
            row_id = self.new_id(table)
            row = rows[row_id] = self.row(table, row_id)
            self.say(out, table, "c", None, row, self.lsn)
            if table == "purchases" and rng.random() < 0.6:
                self.pageview(out, row)
            return
        old = rows[rng.choice(list(rows))]
        if what == "update":
            new = old | {name: value for name, value in self.row(table, old["id"]).items() if name != "created_at" and rng.random() < 0.5}
            sent, said = dict(new), self.lsn
            if table == "users" and rng.random() < 0.1:
                sent["email"], new["email"] = PLACEHOLDER, old["email"]
            elif table != "users" and rng.random() < 0.03:
                name = "price" if table == "items" else "purchase_price"
                sent[name], new = f"{rng.randint(0, 99)}.{rng.randint(0, 99):02}5", old
                self.counts["dead letter"] += 1
            rows[old["id"]] = new
            self.say(out, table, "u", old if rng.random() < 0.5 else None, sent, said)
            return
        del rows[old["id"]]
        # Of a deleted row the key alone is true.
        self.say(out, table, "d", {"id": old["id"]} | {name: None for name in old if name != "id"}, None, self.lsn)
        self.counts["delete"] += 1
        if what == "move":
            self.counts["moved key"] += 1
            new = old | {"id": self.new_id(table)}
            rows[new["id"]] = new
            self.say(out, table, "c", None, new, self.lsn)
        else:
            self.gone[table].append(old["id"])

    def truncate(self, out, table):
        self.lsn += 1
        self.rows[table].clear()
        self.counts["truncate"] += 1
        self.say(out, table, "t", None, None, self.lsn)

    def new_id(self, table):
        if self.gone[table] and self.rng.random() < 0.4:
            self.counts["reused key"] += 1
            return self.gone[table].pop(self.rng.randrange(len(self.gone[table])))
        self.next_id[table] += 1
        return self.next_id[table] - 1

    def row(self, table, row_id):
        rng = self.rng
        stamps = {"created_at": instant(self.past()), "updated_at": instant(self.past())}
        if table == "users":
            email = rng.choice(EMAILS)
            return {"id": row_id, "first_name": rng.choice(FIRST), "last_name": rng.choice(LAST), "email": email and email.format(row_id)} | stamps
        if table == "items":
            price = rng.choice((None, money(rng.randint(-500, 50_000)), money(rng.randint(1, 9_999))))
            return {"id": row_id, "name": f"Item {row_id}.{rng.randint(1, 9)}", "category": rng.choice(CATEGORIES), "price": price,
                    "inventory": rng.choice((None, rng.randint(0, 500)))} | stamps
        # Few items sell most, so that the first ten change places.
        price = 39_999_999_999 if rng.random() < 0.002 else rng.randint(1, 20_000)
        return {"id": row_id, "user_id": rng.choice((None, *[rng.randint(1, USERS) for _ in range(20)])),
                "item_id": rng.choice((None, *[self.item() for _ in range(20)])), "campaign_id": None, "status": 1,
                "quantity": rng.choice((None, 2_500, 1, 2, 3, 4, 5)), "purchase_price": rng.choice((None, *[money(price)] * 20)),
                "deleted": rng.choice((False, False, False, False, None, True))} | stamps

    def item(self):
        return min(int(self.rng.expovariate(0.12)) + 1, 3 * ITEMS)

    def past(self):
        """A moment in the last 24 hours, or some days ago."""
        rng = self.rng
        return self.now - (rng.uniform(3_600, 22 * 3_600) if rng.random() < 0.3 else rng.uniform(2 * DAY_S, 9 * DAY_S))

    def pageview(self, out, purchase=None):
        rng = self.rng
        self.counts["pageview"] += 1
        user, item, at = rng.randint(1, USERS), self.item(), int(self.past())
        if purchase:
            user, item = purchase["user_id"] or user, purchase["item_id"] or item
            at = int(datetime.datetime.fromisoformat(purchase["created_at"]).timestamp())
        view = {"user_id": user, "url": rng.choice(URLS) if rng.random() < 0.1 else f"/products/{item}", "received_at": at}
        if (luck := rng.random()) < 0.95:
            view["channel"] = rng.choice(CHANNELS)
        elif luck < 0.97:
            view["channel"] = 7
        line = json.dumps(view, ensure_ascii=False).encode()
        if (luck := rng.random()) < 0.02:
            line = rng.choice((b"", b"  \r"))
        elif luck < 0.06:
            line = rng.choice(DEFECTS)
        out += [(PAGEVIEWS, line + b"\n")] * (2 if rng.random() < 0.03 else 1)

    def say(self, out, table, op, before, after, lsn):
        change = {"table": table, "op": op, "before": before, "after": after, "lsn": lsn, "ts_ms": int(self.now * 1000)}
        line = json.dumps(change, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        self.counts["change"] += 1
        out.append((CHANGES, line))
        self.recent = [*self.recent[-AGAIN_MAX:], line]
        if after is not None and lsn is not None and self.rng.random() < 0.05:
            self.old = [*self.old[-200:], (table, after, lsn)]


def money(cents):
    return f"{'-' if cents < 0 else ''}{abs(cents) // 100}.{abs(cents) % 100:02}"


def instant(seconds):
    at = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Till(threading.Thread):
    """Appends what a shop makes to the two files, `rate` lines a second, cut anywhere: a line may stand there in part for a while."""

    PAUSE_S = 0.02

    def __init__(self, shop, folder, rate):
        super().__init__(daemon=True)
        self.shop, self.rate, self.count, self.failure = shop, rate, 0, None
        self.rng = random.Random(shop.rng.random())  # of its own: what the shop makes does not depend on how fast it is written
        self.files = {name: (folder / name).open("ab", buffering=0) for name in (CHANGES, PAGEVIEWS)}
        self.rest = dict.fromkeys(self.files, b"")
        self.stopping = threading.Event()

    def run(self):
        try:
            due = 0.0
            while not self.stopping.wait(self.PAUSE_S):
                due += self.rate * self.PAUSE_S
                self.write(due)
        except BaseException as failure:  # told to whoever waits for the end of the input
            self.failure = failure
            raise

    def write(self, until):
        while self.count < until:
            for name, line in self.shop.lines():
                self.rest[name] += line
                self.count += 1
        for name, file in self.files.items():
            cut = len(self.rest[name]) if self.rng.random() < 0.7 else self.rng.randint(0, len(self.rest[name]))
            file.write(self.rest[name][:cut])
            self.rest[name] = self.rest[name][cut:]

    def finish(self):
        """Ends the input with a whole line."""
        self.stopping.set()
        self.join()
        if self.failure:
            raise self.failure
        for name, file in self.files.items():
            file.write(self.rest[name])
            file.close()
