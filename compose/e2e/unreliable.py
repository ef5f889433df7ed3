"""What stands before the REST catalog: a gateway as hosted catalogs have one, and a network that loses things. It speaks TLS, wants a token, and
has its paths below a prefix that `/v1/config` says. Some commits are not passed on, of some the answer is lost or wrong.
"""

import collections
import http.client
import http.server
import json
import random
import re
import threading
import urllib.parse

# A commit to one table; everything else is passed on as it is.
COMMIT = re.compile(r"/v1/(?:.+/)?tables/[^/]+")
CONFIG, PREFIX, TOKEN = "/v1/config", "warehouses/the-shop", "a-token-of-the-suite"
NOT_PASSED_ON, FAILED, LOST = "commits answered by 503 and not passed on", "commits passed on and answered by 500", "commits passed on and not answered"
FATES = (NOT_PASSED_ON, FAILED, LOST)
ANSWER_SECONDS = 60
# What belongs to one connection and is said anew on the other.
OF_CONNECTION = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}


class UnreliableCatalog(http.server.ThreadingHTTPServer):
    """Stands before the catalog at `upstream` within `with`; this share of the commits meets a fate, each fate as often. `met` counts them. With
    `tls`, the context of a server, it speaks nothing else."""

    daemon_threads = True

    def __init__(self, upstream, seed, share, tls=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream, self.rng, self.share = urllib.parse.urlsplit(upstream).netloc, random.Random(seed), share
        self.lock, self.met = threading.Lock(), collections.Counter()
        self.scheme = "https" if tls else "http"
        if tls:
            # The handshake is with the first read, in the connection's own thread.
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def address(self):
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def fate(self, method, path):
        if method != "POST" or not COMMIT.fullmatch(urllib.parse.urlsplit(path).path):
            return None
        with self.lock:
            if self.rng.random() >= self.share:
                return None
            fate = self.rng.choice(FATES)
            self.met[fate] += 1
            return fate

    def ask(self, method, path, body, headers):
        """(status, headers, content) of the catalog."""
        connection = http.client.HTTPConnection(self.upstream, timeout=ANSWER_SECONDS)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def handle_error(self, *_):
        """A client that is killed in the middle of a request is this suite's doing."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def serve(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("authorization") != f"Bearer {TOKEN}":
            return self.answer(401, (), b"no token")
        if (path := upstream_path(self.path)) is None:
            return self.answer(404, (), b"no prefix")
        fate = self.server.fate(self.command, path)
        if fate == NOT_PASSED_ON:
            return self.answer(503, (), b"not passed on")
        try:
            status, headers, content = self.server.ask(self.command, path, body, of_message(self.headers.items()))
        except (OSError, http.client.HTTPException):
            fate = LOST  # the catalog is away
        if fate == LOST:
            self.close_connection = True
            return None
        if is_config(path) and status == 200:
            content = with_prefix(content)
        return self.answer(500, (), b"passed on") if fate == FAILED else self.answer(status, headers, content)

    do_DELETE = do_GET = do_HEAD = do_POST = serve

    def answer(self, status, headers, content):
        self.send_response(status)
        for name, value in of_message(headers).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        """Nothing: the job says what it meets."""


def is_config(path):
    return urllib.parse.urlsplit(path).path == CONFIG


def upstream_path(path):
    """Where the catalog has it; None for what is neither the configuration nor below the prefix."""
    if is_config(path):
        return path
    below = f"/v1/{PREFIX}/"
    return f"/v1/{path.removeprefix(below)}" if path.startswith(below) else None


def with_prefix(config):
    said = json.loads(config)
    said.setdefault("overrides", {})["prefix"] = PREFIX
    return json.dumps(said).encode()


def of_message(headers):
    return {name: value for name, value in headers if name.lower() not in OF_CONNECTION}
