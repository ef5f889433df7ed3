"""The unreliable proxy passes everything on but what it says."""

import http.client
import http.server
import threading
import unittest
import urllib.error
import urllib.request

from unreliable import FAILED, FATES, LOST, NOT_PASSED_ON, UnreliableCatalog

COMMIT = "/v1/namespaces/silver/tables/users"


class Upstream(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.seen.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(409)
        self.send_header("x-kept", "yes")
        self.end_headers()
        self.wfile.write(b"conflict")

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

    def post(self, proxy, path):
        """The status of the answer; None without one."""
        try:
            urllib.request.urlopen(proxy.address + path, b"body", timeout=10).close()
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
        self.assertEqual(self.upstream.seen, [(f"{COMMIT}?a=b", b"body")])

    def test_fates(self):
        answers = {NOT_PASSED_ON: 503, FAILED: 500, LOST: None}
        with self.proxy(1) as proxy:
            got = [self.post(proxy, COMMIT) for _ in range(30)]
            passed_on = len(self.upstream.seen)
            for other in ("/v1/namespaces/silver/tables", "/v1/config", f"{COMMIT}/metrics"):
                self.assertEqual(self.post(proxy, other), 409)
        self.assertEqual({fate: got.count(answers[fate]) for fate in FATES}, dict(proxy.met))
        self.assertTrue(all(proxy.met[fate] for fate in FATES))
        self.assertEqual(passed_on, 30 - proxy.met[NOT_PASSED_ON])

    def test_nobody_there(self):
        self.upstream.shutdown()
        self.upstream.server_close()
        with self.proxy(0) as proxy:
            self.assertIsNone(self.post(proxy, COMMIT))
