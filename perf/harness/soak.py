"""What perf/soak samples of a gateway, and what it asks of the samples."""

import csv
import dataclasses
import json
import os
import re
import time

# What memory may drift by, in KiB a minute, once it is warm: four bytes of every exchange are as much at the usual rate of
# 150 a second ...
SLOPE_KIB = 35.0
# ... and what a short run, in which the allocator's steps weigh more, may end above its beginning.
STEP_KIB = 3072.0
# What the highest sample of a warm gateway may be above the middle one: uploads and long answers at once.
PEAK_KIB = 48 * 1024
# What may stay when the load has ended, above the middle of the warm gateway: nothing, but for the same steps.
LEFT_KIB = STEP_KIB
# The part of a run in which the gateway warms up: pools, buffers, the tables of metrics.
WARM_UP = 1 / 3
# What a run must last for its memory and descriptors to say anything.
TELLING_S = 60

GAUGES = {
    "requests": "ringway_requests_in_flight",
    "upstream_open": "ringway_upstream_connections_open",
    "upstream_idle": "ringway_upstream_connections_idle",
    "clients": "ringway_client_connections_open",
}


@dataclasses.dataclass
class Sample:
    """The gateway at one time."""
    at_s: float
    rss_kib: int
    descriptors: int
    threads: int
    cpu_s: float
    requests: int = 0
    upstream_open: int = 0
    upstream_idle: int = 0
    clients: int = 0
    # Of the resident set, what is nobody's file: the code's pages come and go with the machine's memory.
    anonymous_kib: int = 0


@dataclasses.dataclass
class Verdict:
    """One thing that was asked."""
    what: str
    found: str
    allowed: str
    holds: bool


class Watch:
    """Samples a gateway; `scrape` returns its metrics as text."""

    def __init__(self, gateway, scrape):
        self.gateway, self.scrape, self.samples, self.started = gateway, scrape, [], time.monotonic()

    def sample(self):
        if self.gateway.child.poll() is not None:
            raise RuntimeError(f"the gateway ended:\n{self.gateway.log()[-4000:]}")
        # First, so that its own connection is over before descriptors are counted.
        gauges = read_gauges(self.scrape())
        pid = self.gateway.pid
        with open(f"/proc/{pid}/status") as text:
            status = dict(re.findall(r"^(\w+):\s+(\d+)", text.read(), re.M))
        with open(f"/proc/{pid}/stat") as text:
            fields = text.read().rsplit(")", 1)[1].split()
        ticks = int(fields[11]) + int(fields[12])
        self.samples.append(Sample(
            time.monotonic() - self.started, int(status["VmRSS"]), len(os.listdir(f"/proc/{pid}/fd")),
            int(status["Threads"]), ticks / os.sysconf("SC_CLK_TCK"), anonymous_kib=int(status["RssAnon"]), **gauges))
        return self.samples[-1]

    def save(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(field.name for field in dataclasses.fields(Sample))
            writer.writerows(dataclasses.astuple(sample) for sample in self.samples)


def read_gauges(text):
    gauges = {}
    for short, name in GAUGES.items():
        found = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.M)
        gauges[short] = round(sum(float(value) for value in found))
    return gauges


def is_at_rest(sample, base):
    idle = sample.upstream_open == sample.upstream_idle
    return sample.requests == 0 and sample.clients == 0 and idle and sample.descriptors <= base.descriptors + sample.upstream_idle


def decay(watch, base, within):
    """The load has ended: samples until all is given back, or the time is over."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        last = watch.sample()
        if is_at_rest(last, base) and last.rss_kib <= middle(warm(watch.samples)) + LEFT_KIB:
            return
        time.sleep(0.5)


def warm(samples, seconds=None):
    """The samples under load without those of the warm-up."""
    seconds = seconds or samples[-1].at_s
    return [sample for sample in samples[1:] if seconds * WARM_UP <= sample.at_s <= seconds] or samples[-1:]


def middle(samples):
    return sorted(sample.rss_kib for sample in samples)[len(samples) // 2]


def slope(samples, value):
    """Least squares, per minute."""
    count = len(samples)
    if count < 2:
        return 0.0
    at = [sample.at_s / 60 for sample in samples]
    values = [value(sample) for sample in samples]
    mean_at, mean = sum(at) / count, sum(values) / count
    spread = sum((x - mean_at) ** 2 for x in at)
    return sum((x - mean_at) * (y - mean) for x, y in zip(at, values)) / spread if spread else 0.0


def judge(samples, base, seconds):
    """Is it flat, and is everything given back?"""
    under_load = warm(samples, seconds)
    minutes = max((under_load[-1].at_s - under_load[0].at_s) / 60, 1 / 60)
    last, mid = samples[-1], middle(under_load)
    allowed = SLOPE_KIB + STEP_KIB / minutes
    drift = slope(under_load, lambda sample: sample.rss_kib)
    anonymous = slope(under_load, lambda sample: sample.anonymous_kib)
    peak = max(sample.rss_kib for sample in under_load) - mid
    # Descriptors follow the load; what they must not do is rise.
    rise = slope(under_load, lambda sample: sample.descriptors)
    rise_max = 0.2 + 40 / minutes
    threads = max(sample.threads for sample in under_load) - min(sample.threads for sample in under_load)
    held = last.descriptors - last.upstream_idle
    telling = [
        Verdict("memory, drift", f"{drift:+.1f} KiB/min", f"{allowed:.1f}", drift <= allowed),
        Verdict("anonymous memory, drift", f"{anonymous:+.1f} KiB/min", f"{allowed:.1f}", anonymous <= allowed),
        Verdict("memory, peak above the middle", f"{peak} KiB", f"{PEAK_KIB}", peak <= PEAK_KIB),
        Verdict("memory, left when idle", f"{last.rss_kib - mid:+} KiB", f"{LEFT_KIB:.0f}", last.rss_kib - mid <= LEFT_KIB),
        Verdict("descriptors, drift", f"{rise:+.2f} /min", f"{rise_max:.2f}", rise <= rise_max),
    ]
    verdicts = [
        *(telling if seconds >= TELLING_S else []),
        Verdict("descriptors, left when idle", f"{held - base.descriptors:+}", "0", held <= base.descriptors),
        Verdict("threads, highest less lowest", str(threads), "2", threads <= 2),
    ]
    for gauge in ("requests", "clients"):
        left = getattr(last, gauge)
        verdicts.append(Verdict(f"{gauge}, left when idle", str(left), "0", left == 0))
    busy = last.upstream_open - last.upstream_idle
    verdicts.append(Verdict("busy upstream connections, left when idle", str(busy), "0", busy == 0))
    return verdicts


def judge_ends(outcome):
    examples = "; ".join(outcome["examples"][:5])
    found = f"{outcome['unexpected']}" + (f" ({examples})" if examples else "")
    return [Verdict("unexpected ends", found, "0", outcome["unexpected"] == 0)]


def judge_records(outcome, files):
    """Every request has its record, once."""
    seen = [bytearray(count) for count in outcome["requests"]]
    twice = strange = anonymous = broken = 0
    for file in files:
        with open(file) as lines:
            for line in lines:
                try:
                    request_id = json.loads(line)["request_id"]
                except (ValueError, KeyError):
                    broken += 1
                    continue
                own = re.fullmatch(r"s(\d+)-(\d+)", request_id)
                if not own:
                    anonymous += 1
                    continue
                actor, number = int(own[1]), int(own[2])
                if actor >= len(seen) or number >= len(seen[actor]):
                    strange += 1
                    continue
                twice += seen[actor][number]
                seen[actor][number] = 1
    total = sum(outcome["requests"])
    lost = total - sum(map(sum, seen))
    rest = anonymous - outcome["anonymous"]
    return [
        Verdict("records lost", f"{lost} of {total}", "0", lost == 0),
        Verdict("records too many, or broken", f"{twice + strange}, {broken}", "0, 0", twice + strange + broken == 0),
        Verdict("records without a request's id, less such requests", f"{rest:+}", "0", rest == 0),
    ]


def judge_log(text, code):
    panics = sum("panicked" in line for line in text.splitlines())
    # The providers' failures, each with the request it belongs to, are part of the load.
    of_itself = [line for line in text.splitlines() if "request_id=" not in line]
    complaints = [line for line in of_itself if re.search(r" (warn|error) |dropped|lost|cannot|failed", line)]
    found = f"{len(complaints)}" + (f" ({complaints[0]})" if complaints else "")
    return [
        Verdict("panics", str(panics), "0", panics == 0),
        Verdict("complaints of its own on standard error", found, "0", not complaints),
        Verdict("exit code after SIGTERM", str(code), "0", code == 0),
    ]


def table(samples, base, outcome, verdicts, seconds):
    under_load = [sample for sample in samples[1:] if sample.at_s <= seconds] or samples[-1:]
    cpu = (under_load[-1].cpu_s - base.cpu_s) / max(under_load[-1].at_s - base.at_s, 1e-9)
    total = sum(outcome["requests"])
    lines = [
        f"{seconds:.0f} s, {total} requests on {outcome['connections']} connections, {len(outcome['ends'])} kinds; "
        f"{100 * cpu:.0f} % of a core",
        "",
        f"| | {'start':>8} | {'a third':>8} | {'two':>8} | {'the end':>8} | {'idle':>8} |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    columns = [base, under_load[len(under_load) // 3], under_load[2 * len(under_load) // 3], under_load[-1], samples[-1]]
    for name, field in (("resident, KiB", "rss_kib"), ("of it anonymous, KiB", "anonymous_kib"),
                        ("descriptors", "descriptors"), ("threads", "threads"),
                        ("requests in flight", "requests"), ("upstream connections", "upstream_open"),
                        ("client connections", "clients")):
        lines.append(f"| {name} | " + " | ".join(f"{getattr(sample, field):>8}" for sample in columns) + " |")
    lines += ["", "| | found | allowed | |", "|---|--:|--:|---|"]
    lines += [f"| {verdict.what} | {verdict.found} | {verdict.allowed} | {'holds' if verdict.holds else '**NOT**'} |"
              for verdict in verdicts]
    return "\n".join(lines)
