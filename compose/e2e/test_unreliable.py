"""The unreliable proxy passes everything on but what it says, to whom has the token and knows the prefix; the proxy that ends TLS all."""

import http.client
import http.server
import json
import pathlib
import ssl
import tempfile
import threading
import unittest
import urllib.error
import urllib.request

from tls import Authority, Terminator
from unreliable import CONFIG, FAILED, FATES, LOST, NOT_PASSED_ON, PREFIX, TOKEN, UnreliableCatalog

COMMIT = f"/v1/{PREFIX}/namespaces/silver/tables/users"
COMMIT_UPSTREAM = "/v1/namespaces/silver/tables/users"


class Upstream(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.seen.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(409)
        self.send_header("x-kept", "yes")
        self.end_headers()
        self.wfile.write(b"conflict")

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"defaults": {"a": "b"}}')

    def log_message(self, *_):
        pass


class UnreliableTest(unittest.TestCase):
    def setUp(self):
        self.upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
        self.upstream.seen = []
        threading.Thread(target=self.upstream.serve_forever, daemon=True).start()
        self.addCleanup(self.upstream.server_close)
        self.addCleanup(self.upstream.shutdown)

    def proxy(self, share):
        return UnreliableCatalog(f"http://127.0.0.1:{self.upstream.server_port}", 1, share)

    def post(self, proxy, path, token=TOKEN):
        """The status of the answer; None without one."""
        request = urllib.request.Request(proxy.address + path, b"body", {"Authorization": f"Bearer {token}"})
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except urllib.error.HTTPError as answer:
            if answer.code == 409:
                self.assertEqual((answer.read(), answer.headers["x-kept"]), (b"conflict", "yes"))
            return answer.code
        except (urllib.error.URLError, http.client.HTTPException, OSError):
            return None
        return 200

    def test_passes_on(self):
        with self.proxy(0) as proxy:
            self.assertEqual(self.post(proxy, f"{COMMIT}?a=b"), 409)
        self.assertEqual(self.upstream.seen, [(f"{COMMIT_UPSTREAM}?a=b", b"body")])

    def test_gate(self):
        with self.proxy(1) as proxy:
            self.assertEqual(self.post(proxy, COMMIT, "another"), 401)
            self.assertEqual(self.post(proxy, COMMIT_UPSTREAM), 404)
        self.assertEqual((self.upstream.seen, sum(proxy.met.values())), ([], 0))

    def test_tls(self):
        with tempfile.TemporaryDirectory() as folder:
            authority = Authority(pathlib.Path(folder) / "authority.pem")
            trusting = ssl.create_default_context(cafile=authority.file)
            upstream = f"http://127.0.0.1:{self.upstream.server_port}"
            with UnreliableCatalog(upstream, 1, 0, authority.server()) as proxy, Terminator(upstream, authority) as terminator:
                request = urllib.request.Request(proxy.address + CONFIG, headers={"Authorization": f"Bearer {TOKEN}"})
                with urllib.request.urlopen(request, timeout=10, context=trusting) as answer:
                    self.assertEqual(json.load(answer), {"defaults": {"a": "b"}, "overrides": {"prefix": PREFIX}})
                with urllib.request.urlopen(f"{terminator.address}/any", timeout=10, context=trusting) as answer:
                    self.assertEqual(json.load(answer), {"defaults": {"a": "b"}})
                with self.assertRaises(urllib.error.URLError):
                    urllib.request.urlopen(terminator.address, timeout=10)

    def test_fates(self):
        answers = {NOT_PASSED_ON: 503, FAILED: 500, LOST: None}
        with self.proxy(1) as proxy:
            got = [self.post(proxy, COMMIT) for _ in range(30)]
            passed_on = len(self.upstream.seen)
            for other in (f"/v1/{PREFIX}/namespaces/silver/tables", CONFIG, f"{COMMIT}/metrics"):
                self.assertEqual(self.post(proxy, other), 409)
        self.assertEqual({fate: got.count(answers[fate]) for fate in FATES}, dict(proxy.met))
        self.assertTrue(all(proxy.met[fate] for fate in FATES))
        self.assertEqual(passed_on, 30 - proxy.met[NOT_PASSED_ON])

    def test_nobody_there(self):
        self.upstream.shutdown()
        self.upstream.server_close()
        with self.proxy(0) as proxy:
            self.assertIsNone(self.post(proxy, COMMIT))
