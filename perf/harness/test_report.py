"""The report's arithmetic, on made-up figures."""

import unittest

from . import report


def visits(*rounds):
    """Rounds of CPU figures: nginx, haproxy, ringway."""
    return [{name: {"cpu_us_per_unit": cpu, "errors": 0, "reasons": {}}
             for name, cpu in zip(("nginx", "haproxy", "ringway"), round_)} for round_ in rounds]


def results(**figures):
    return {"figures": figures, "smoke": False, "rounds": 3, "date": "", "binary_bytes": 5 << 20, "command": "", "ring": "",
            "machine": {"cpu": "", "cores": 2, "kernel": "", "proxy_core": 0, "other_cores": [1]},
            "versions": {"nginx": "1", "haproxy": "2", "ringway": "3"}, "peers": ["direct", "nginx", "haproxy", "ringway"],
            "loads": dict.fromkeys(figures, "load"), "units": {key: "request" for key in figures}}


class Report(unittest.TestCase):
    def test_ratios_are_taken_inside_a_round_against_the_better_peer(self):
        # The middle round was slow for all; a ratio of medians would say 10 / 20 and not 0.9.
        rounds = visits((10, 20, 9), (40, 30, 27), (20, 21, 18))
        self.assertEqual(report.over_bar(rounds, "ringway", "cpu_us_per_unit"), [0.9, 0.9, 0.9])
        self.assertEqual(report.beyond(rounds, "ringway", report.bars_of(rounds), "cpu_us_per_unit"), [-1, -3, -2])

    def test_a_figure_without_its_peer_is_no_figure(self):
        rounds = visits((10, 20, 9), (10, 20, 9))
        del rounds[0]["nginx"]
        self.assertEqual(report.over_bar(rounds, "ringway", "cpu_us_per_unit"), [0.9])

    def test_musts_are_held_up_to_the_limit_and_missed_beyond(self):
        for own, held in ((9.0, True), (9.1, False)):
            rows = report.musts(results(post=visits((10, 20, own))))
            self.assertEqual([row.held for row in rows if row.work == "load: CPU per request"], [held], own)
        figures = {"ringway": {"kib_per_connection": 2.0, "kept_kib_per_connection": 3.0, "given_back": 0.2, "errors": 0,
                               "reasons": {}, "before": {"rss_kib": 1}}}
        rows = report.musts(results(idle=figures))
        self.assertEqual([row.held for row in rows], [True, False, True], rows)

    def test_a_goal_is_told_from_a_must(self):
        for own, verdict in ((8.0, "goal"), (8.1, "pass"), (9.1, "MISSED")):
            row = report.musts(results(post=visits((10, 20, own))))[0]
            self.assertEqual(row.cells("MISSED")[1:], ["≤ 0.90 × the better of the two", "0.80", f"{own / 10:.2f} ({own / 10:.2f}–{own / 10:.2f}) ×",
                                                       verdict])

    def test_beside_the_raw_relay_the_ratio_is_inside_a_round(self):
        rounds = visits((10, 20, 9), (20, 30, 18))
        for round_, relay in zip(rounds, (8, 15)):
            round_["relay"] = {"cpu_us_per_unit": relay, "errors": 0, "reasons": {}}
        rows = [row for row in report.musts(results(post=rounds)) if "relay" in row.work]
        self.assertEqual([(row.shown, row.held) for row in rows], [("1.16 (1.12–1.20) ×", False)])

    def test_what_is_added_is_what_is_above_direct_and_a_round_without_a_difference_says_nothing(self):
        rounds = visits((10, 20, 9), (10, 20, 9), (10, 20, 9))
        for round_, figures in zip(rounds, ((50, 150, 170, 140), (60, 260, 160, 140), (200, 190, 180, 300))):
            for name, p50 in zip(("direct", "nginx", "haproxy", "ringway"), figures):
                round_.setdefault(name, {"errors": 0, "reasons": {}})["latency"] = {"p50_us": p50}
        self.assertEqual(report.added(rounds, "latency", "p50_us"), [0.9, 0.8])

    def test_two_workers_are_compared_with_one_on_either_core(self):
        rounds = [{name: {"cpu_us_per_unit": cpu, "errors": 0, "reasons": {}} for name, cpu in zip(("one-first", "one-last", "two"), (40, 60, 53))}]
        rows = [row for row in report.musts(results(two=rounds)) if "one worker" in row.must]
        self.assertEqual([(row.shown, row.held) for row in rows], [("1.06 (1.06–1.06) ×", False)])

    def test_busbar_is_compared_inside_the_run_if_it_was_there(self):
        rounds = visits((10, 20, 20))
        for measured, shown, held in ((None, "3.05 × (61 µs, of another run)", True), (59, "2.95 (2.95–2.95) ×", False)):
            if measured:
                rounds[0]["busbar"] = {"cpu_us_per_unit": measured, "errors": 0, "reasons": {}}
            rows = [row for row in report.musts(results(post=rounds)) if "Busbar" in row.work]
            self.assertEqual([(row.shown, row.held) for row in rows], [(shown, held)])

    def test_another_build_is_compared_round_by_round(self):
        rounds = visits((10, 20, 9), (10, 20, 22))
        for round_, cpu in zip(rounds, (10, 20)):
            round_["before"] = {"cpu_us_per_unit": cpu, "errors": 0, "reasons": {}, "latency": {"p50_us": 4, "p99_us": 8}}
            round_["ringway"]["latency"] = {"p50_us": 2, "p99_us": 16}
        self.assertEqual(report.against(results(post=rounds))[1:], [
            ["post", "1.00 (0.90–1.10)", "0.50 (0.50–0.50)", "2.00 (2.00–2.00)", "2"]])
        self.assertEqual(report.against(results(post=visits((10, 20, 9)))), [])

    def test_what_sight_costs_is_a_ratio_inside_a_round(self):
        rounds = visits((10, 20, 9), (30, 40, 20), (10, 20, 10))
        for round_, cpu in zip(rounds, (9.9, 20.8, 10.4)):
            round_["sighted"] = {"cpu_us_per_unit": cpu, "errors": 0, "reasons": {}}
        rows = [row for row in report.musts(results(post=rounds)) if "access log" in row.work]
        self.assertEqual([(row.shown, row.held) for row in rows], [("1.04 (1.04–1.10) ×", True)])

    def test_failed_requests_are_named_and_make_the_run_fail(self):
        rounds = visits((10, 20, 9), (10, 20, 9))
        rounds[1]["haproxy"].update(errors=3, reasons={"status 503": 3})
        text, failures, _ = report.render(results(post=rounds))
        self.assertEqual(failures, ["post round 2 haproxy: 3 of them: {'status 503': 3}"])
        self.assertIn(failures[0], text)

    def test_a_handshake_of_the_wrong_kind_is_a_failure(self):
        for key, resumed, failed in (("shake", 0, 0), ("shake", 1, 3), ("resume", 90, 0), ("resume", 89, 3)):
            rounds = visits((10, 20, 9))
            for figures in rounds[0].values():
                figures.update(requests=100, resumed=resumed)
            self.assertEqual(len(report.render(results(**{key: rounds}))[1]), failed, (key, resumed))

    def test_the_bar_is_the_best_of_those_that_were_visited(self):
        rounds = visits((10, 20, 7.2), (10, 20, 7.2))
        for pingora, shown, held in ((None, "0.72 (0.72–0.72) ×", True), (9, "0.80 (0.80–0.80) ×", False)):
            for round_ in rounds:
                if pingora:
                    round_["pingora"] = {"cpu_us_per_unit": pingora, "errors": 0, "reasons": {}}
            row = [row for row in report.musts(results(**{"h2-sse": rounds})) if "CPU" in row.work]
            self.assertEqual([(row.shown, row.held) for row in row], [(shown, held)])
        self.assertIn("best of the three", report.render(results(h2=rounds))[0])
        self.assertIn("better of the two", report.render(results(post=visits((10, 20, 9))))[0])

    def test_what_a_stalled_stream_does_to_the_others_is_a_ratio_inside_a_round(self):
        for own, shown, held in (((315, 945, 90), "1.05 ×", True), ((318, 900, 900), "1.06 ×", False)):
            rounds = visits((10, 20, 9), (10, 20, 9), (10, 20, 9))
            for round_, p99, beside in zip(rounds, own, (300, 900, 100)):
                round_["ringway"].update(delay={"p99_us": p99}, delay_beside={"p99_us": beside})
            rows = [row for row in report.musts(results(**{"h2-stall": rounds})) if "delay of the 99" in row.work]
            self.assertEqual([(row.shown[:4], row.held) for row in rows], [(shown[:4], held)])

    def test_every_peer_has_a_row_in_the_page(self):
        page = report.results_md(results(post=visits((10, 20, 9)), start={"nginx": [40.0, 50.0, 60.0]}))
        for row in ("| nginx | 10.0 | 1.00 (1.00–1.00) |", "| ringway | 9.0 | 0.90 (0.90–0.90) |", "| nginx | 50.0 | 60.0 |"):
            self.assertIn(row, page)


if __name__ == "__main__":
    unittest.main()
