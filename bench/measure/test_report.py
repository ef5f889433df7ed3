"""Comparisons, ratios, and what a page and a picture hold."""

import unittest
import xml.etree.ElementTree

import compare
import plot
import report


def runs(*rates, **more):
    return [{"events_per_s": rate, "command": "run"} | more for rate in rates]


def results(**kinds):
    """A file's content of one group."""
    return {"summary": {"g": {kind.replace("_", ", "): report.summary(of) for kind, of in kinds.items()}}}


class ReportTest(unittest.TestCase):
    def test_which_kinds_are_compared(self):
        kinds = ["ours, alo", "peer, alo", "ours, eo", "peer, eo"]
        self.assertEqual(report.pairs(kinds), [("ours, alo", "peer, alo"), ("ours, eo", "peer, eo"), ("ours, eo", "ours, alo"), ("peer, eo", "peer, alo")])
        self.assertEqual(report.pairs(["ours", "flink"]), [("ours", "flink")])
        self.assertEqual(report.pairs(["flink", "ours (all detectors)"]), [("ours (all detectors)", "flink")])
        self.assertEqual(report.pairs(["ours, 4 partitions", "ours, 64 partitions"]), [("ours, 64 partitions", "ours, 4 partitions")])

    def test_ratios_are_taken_run_by_run(self):
        self.assertEqual(report.ratios({"ours": runs(30, 20), "peer": runs(10, 20, 40)}), {"ours / peer": {"events_per_s": [3, 1]}})

    def test_a_page_and_a_picture(self):
        group = {"g <1>": {"ours": runs(30_000, 20_000, p99_ms=3.25), "peer": runs(10_000, 20_000)}}
        summaries = {title: {kind: report.summary(of) for kind, of in kinds.items()} for title, kinds in group.items()}
        facts = {"commit": "c" * 40, "with_changes": False, "at": "now", "machine": "m", "command": "make bench", "minutes": 1, "failures": ["x: y"], "left_out": []}
        page = report.markdown("n", facts, group, summaries)
        for text in ("| ours | 2 | 25,000 (20,000..30,000) | 3.25 |", "| ours / peer | 2 (1..3) |", "**Failed**: x: y", "(n.svg)"):
            self.assertIn(text, page)
        picture = plot.svg(summaries, report.BETTER)
        xml.etree.ElementTree.fromstring(picture)
        self.assertEqual(picture.count("<rect"), 1 + 3)

    def test_what_got_worse(self):
        def check(old, new, expected):
            self.assertEqual([(who, text.partition(" ->")[0]) for who, text in compare.worse(results(**old), results(**new))], expected)

        ours = ("ours", "g: ours: events_per_s 100")
        check({"ours": runs(99, 100, 101)}, {"ours": runs(80, 81, 82)}, [ours])
        check({"ours": runs(99, 100, 101)}, {"ours": runs(95, 96, 97)}, [])
        check({"ours": runs(70, 100, 101)}, {"ours": runs(80, 81, 82)}, [])
        check({"ours": runs(100)}, {"ours": runs(120)}, [])
        check({"kafka-streams": runs(100)}, {"kafka-streams": runs(50)}, [("peer", "g: kafka-streams: events_per_s 100")])
        check({"ours": runs(100)}, {"ours_b": runs(50)}, [])
        slow = ("ours", "g: ours: p99_ms 10")
        check({"ours": runs(1, p99_ms=10.0)}, {"ours": runs(1, p99_ms=12.0)}, [slow])
        check({"ours": runs(1, p99_ms=10.0)}, {"ours": runs(1, p99_ms=8.0)}, [])


if __name__ == "__main__":
    unittest.main()
