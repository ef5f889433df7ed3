"""What is read off a job, a process and a reader of its output."""

import os
import subprocess
import sys
import time
import unittest

import machine
import traffic
from recovery import longest_gap
from scene import BenchFailed
from state import Look, checkpoints, dip, parse

METRICS = """# TYPE dataflow_records_total counter
dataflow_records_total{worker="0"} 30
dataflow_records_total{worker="1"} 12
dataflow_checkpoints_total 2
dataflow_checkpoint_seconds 0.5
dataflow_checkpoint_cut_seconds 0.01
dataflow_checkpoint_bytes 1000
dataflow_state_keys{operator="by user {a}",worker="0"} 7
process_other 9
"""


class MeasuresTest(unittest.TestCase):
    def test_metrics(self):
        self.assertEqual(parse(METRICS, 5.0), Look(5.0, 42, 2, 0.5, 0.01, 1000, 7))

    def test_a_checkpoint_that_halves_the_rate(self):
        # A second's look each: 100 records a second, 50 while the checkpoint of the seconds 4 to 6 is under way.
        records, looks = 0, []
        for second in range(11):
            looks.append(Look(float(second), records, int(second >= 6), 2.0, 0.01, 1, 1))
            records += 50 if 4 <= second < 6 else 100
        self.assertEqual([one.at for one in checkpoints(looks)], [6.0])
        self.assertEqual(dip(looks), 0.5)
        self.assertIsNone(dip(looks[:4]))

    def test_the_silence_around_a_kill(self):
        second = 1_000_000
        # What was committed before the kill at 10 s still comes 0.2 s after it; then nothing until 12.5 s.
        times = [int(at * second) for at in (9.0, 9.5, 9.9, 10.2, 12.5, 12.6, 14.0, 16.0, 18.0, 18.1, 40.0)]
        self.assertEqual(longest_gap(times, 10 * second), (int(10.2 * second), int(12.5 * second)))
        with self.assertRaises(BenchFailed):
            longest_gap(times[:1], 10 * second)

    def test_a_tree_is_metered_with_what_it_has_waited_for(self):
        burn = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
        parent = subprocess.Popen([sys.executable, "-c", f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', '''{burn}''']); time.sleep(30)"])
        try:
            meter, deadline = machine.Meter([], [parent.pid]), time.monotonic() + 20
            while meter.samples[-1].engine_s < 0.3 and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertIn(parent.pid, machine.tree([os.getpid()]))
            meter.stop()
            self.assertGreaterEqual(meter.cpu_s(time.time()), 0.3)
            self.assertGreater(meter.peak_mb(), 1)
            self.assertGreater(meter.cores(0, time.time()), 0)
            self.assertEqual(set(meter.others(0, time.time())), {"services_cores", "others_cores"})
        finally:
            parent.kill()
            parent.wait()

    def test_users_in_turn_have_no_attacks_among_them(self):
        words = traffic.Backlog(10, "2026-03-02T08:00:00Z", users=10, in_turn=True).words()
        self.assertEqual(words[-3:], ["--in-turn", "--attacks", "0"])
        self.assertNotIn("--in-turn", traffic.Backlog(10, "2026-03-02T08:00:00Z").words())


if __name__ == "__main__":
    unittest.main()
