"""What perf/soak asks of its samples, on made-up ones."""

import os
import random
import tempfile
import unittest

from . import soak


def samples(seconds, rss_kib, descriptors=lambda minute: 100, idle_rss_kib=None, idle_descriptors=10):
    """One a second, with an allocator's steps in them, and one after the load."""
    dice = random.Random(7)
    made = [soak.Sample(0.0, 20_000, 10, 5, 0.0)]
    for second in range(1, seconds + 1):
        noise = dice.choice([0, 0, 0, 64, 512, 4096])
        made.append(soak.Sample(second, round(rss_kib(second / 60)) + noise, round(descriptors(second / 60)), 5, 0.0))
    made.append(soak.Sample(seconds + 2.0, idle_rss_kib or made[-1].rss_kib, idle_descriptors, 5, 0.0))
    return made


def failed(made, seconds):
    return [verdict.what for verdict in soak.judge(made, made[0], seconds) if not verdict.holds]


class Judging(unittest.TestCase):
    def test_what_is_flat_holds_in_short_runs_and_long_ones(self):
        for seconds in (20, 300, 3600):
            # It warms up in the first third, and descriptors breathe.
            made = samples(seconds, lambda minute: 30_000 + 3_000 * min(minute * 180 / seconds, 1),
                           lambda minute: 100 + 20 * random.Random(minute).random(), 30_000)
            self.assertEqual(failed(made, seconds), [], seconds)

    def test_a_leak_shows(self):
        hour = samples(3600, lambda minute: 30_000 + 160 * minute, idle_rss_kib=30_000)
        self.assertEqual(failed(hour, 3600), ["memory, drift"])
        kept = samples(3600, lambda minute: 30_000, idle_rss_kib=36_000)
        self.assertEqual(failed(kept, 3600), ["memory, left when idle"])
        peak = samples(3600, lambda minute: 90_000 if 40 < minute < 41 else 30_000, idle_rss_kib=30_000)
        self.assertEqual(failed(peak, 3600), ["memory, peak above the middle"])

    def test_a_run_too_short_to_warm_up_says_nothing_of_memory_but_all_of_what_is_kept(self):
        steep = samples(20, lambda minute: 30_000 + 60_000 * minute, lambda minute: 100 + 300 * minute, idle_descriptors=11)
        self.assertEqual(failed(steep, 20), ["descriptors, left when idle"])
        longer = samples(60, lambda minute: 30_000 + 60_000 * minute)
        self.assertIn("memory, drift", failed(longer, 60))

    def test_a_descriptor_that_stays_shows(self):
        self.assertEqual(failed(samples(300, lambda _: 30_000, idle_descriptors=11), 300), ["descriptors, left when idle"])
        rising = samples(3600, lambda _: 30_000, lambda minute: 100 + 3 * minute)
        self.assertEqual(failed(rising, 3600), ["descriptors, drift"])

    def test_a_slope_is_per_minute(self):
        made = [soak.Sample(second, 1000 + 2 * second, 0, 0, 0.0) for second in range(100)]
        self.assertAlmostEqual(soak.slope(made, lambda sample: sample.rss_kib), 120)
        self.assertEqual(soak.slope(made[:1], lambda sample: sample.rss_kib), 0.0)

    def test_gauges_are_summed_over_workers(self):
        text = ('# HELP ringway_requests_in_flight x\nringway_requests_in_flight{worker="0"} 2\n'
                'ringway_requests_in_flight{worker="1"} 3\nringway_client_connections_open 4\n')
        found = soak.read_gauges(text)
        self.assertEqual((found["requests"], found["clients"], found["upstream_open"]), (5, 4, 0))


    def test_anonymous_memory_is_judged_by_itself(self):
        made = samples(3600, lambda _: 30_000)
        for sample in made:
            sample.anonymous_kib = round(10_000 + 160 * sample.at_s / 60)
        self.assertEqual(failed(made, 3600), ["anonymous memory, drift"])


class Log(unittest.TestCase):
    def test_a_providers_failure_is_no_complaint_of_the_gateways_own(self):
        told = "2026-01-01T00:00:00.0Z warn  ringway: The provider failed: endpoint a/0: it broke. request_id=s1-2\n"
        start = "2026-01-01T00:00:00.0Z info  ringway: ready: 1 worker on core 0\n"

        def failed(text, code=0):
            return [verdict.what for verdict in soak.judge_log(text, code) if not verdict.holds]

        self.assertEqual(failed(start + told), [])
        own = "2026-01-01T00:00:00.0Z warn  ringway: 3 access log lines were dropped\n"
        self.assertEqual(failed(start + told + own), ["complaints of its own on standard error"])
        self.assertEqual(failed("thread 'x' panicked at y"), ["panics"])
        self.assertEqual(failed(start, 1), ["exit code after SIGTERM"])


class Records(unittest.TestCase):
    def judge(self, *lines):
        with tempfile.NamedTemporaryFile("w", delete=False) as file:
            file.write("".join(f"{line}\n" for line in lines))
        try:
            return [verdict.found for verdict in soak.judge_records({"requests": [2, 1], "anonymous": 1}, [file.name])]
        finally:
            os.unlink(file.name)

    def test_each_request_has_one_record(self):
        def line(request_id):
            return f'{{"request_id":"{request_id}"}}'

        all_there = [line("s0-0"), line("s0-1"), line("s1-0"), line("0123abcd")]
        self.assertEqual(self.judge(*all_there), ["0 of 3", "0, 0", "+0"])
        self.assertEqual(self.judge(*all_there[1:]), ["1 of 3", "0, 0", "+0"])
        self.assertEqual(self.judge(*all_there, line("s0-0")), ["0 of 3", "1, 0", "+0"])
        self.assertEqual(self.judge(*all_there, line("s0-7"), '{"request_id'), ["0 of 3", "1, 1", "+0"])
        self.assertEqual(self.judge(*all_there[:3]), ["0 of 3", "0, 0", "-1"])


if __name__ == "__main__":
    unittest.main()
