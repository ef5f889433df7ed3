"""The definition of the two detectors, on logins so few that the answer can be seen."""

import json
import unittest

from expected import SECOND_US, Findings, Geography, findings, micros

ROWS = ["ip_prefix,country,city", "198.18.0,US,", "198.18.1.,DE,", "198.18.2.0/24,FR,", "198.18.2.128/25,IT,", "2001:db8:100::/48,JP,", "198.18.300,XX,",
        "198.18.0.7,CA,"]


def line(user, at, ip, partition=0):
    event = {"user_id": user, "timestamp": f"2026-03-02T08:{at // 60:02}:{at % 60:02}.000000Z", "ip": ip}
    return json.dumps({"partition": partition, "event": event})


class ExpectedTest(unittest.TestCase):
    def test_the_longest_prefix_says_the_country(self):
        geography = Geography(ROWS)
        for address, country in {"198.18.0.1": "US", "198.18.0.7": "CA", "198.18.1.9": "DE", "198.18.2.127": "FR", "198.18.2.128": "IT",
                                 "2001:db8:100::7": "JP", "2001:db8:101::7": None, "192.0.2.1": None}.items():
            self.assertEqual(geography.country(address), country, address)

    def test_what_fires(self):
        us, de, nowhere = "198.18.0.1", "198.18.1.1", "192.0.2.1"
        # The second login of a volley fires too: it is younger than a second. So does the first from no known place.
        lines = [line("a", 0, us), line("a", 0, us), line("a", 1, us), line("b", 1, us), line("a", 2, de), line("a", 3, nowhere), line("a", 9, nowhere),
                 line("a", 10, us)]
        self.assertEqual(findings(lines, Geography(ROWS)), Findings(5, 5))

    def test_what_a_watermark_has_passed(self):
        lines = [line("a", 0, "198.18.0.1"), line("b", 8, "198.18.0.1", 1), line("c", 20, "198.18.0.1")]
        self.assertEqual(findings(lines, Geography(ROWS)), Findings(3, 1))

    def test_six_digits(self):
        self.assertEqual(micros("1970-01-01T00:00:01.000007Z"), SECOND_US + 7)


if __name__ == "__main__":
    unittest.main()
