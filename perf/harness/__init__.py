"""The parts of perf/run: processes, peers, loads, report."""
