"""Figures to tables: medians over rounds, ratios inside rounds, and whether what must hold does."""

from statistics import median

from .peers import SPLIT

# Those of them that were visited.
BARS = ("nginx", "haproxy", "pingora")
IDLE = ("idle", "tls-idle", "h2-idle", "h2c-idle")
# CPU per unit over that of the best peer: what must be, and what would be good.
CPU = {"post": (0.90, 0.80), "tls": (0.80, 0.70), "h2": (0.85, 0.75), "sse": (0.75, 0.60), "h2-sse": (0.75, 0.60),
       "shake": (0.80, 0.70), "resume": (0.80, 0.70), "up": (1.00, 0.70), "up-chunked": (1.00, 0.70), "down": (1.00, 0.70),
       "down-chunked": (1.00, 0.70)}
# KiB of an idle connection, and of what is kept of one that has gone.
IDLE_KIB = {"idle": (2, 1, 0.5), "tls-idle": (8, 6, None), "h2-idle": (12, 8, None), "h2c-idle": (None, None, None)}
# CPU µs of Busbar 1.5.5 per chat request and event, taken once on the machine that Ringway is developed on.
BUSBAR_US = {"post": 61, "sse": 40}
MIB = 1 << 20


def render(results):
    """(text for the terminal, failed requests, whether every must held)."""
    failures = list(failed(results))
    rows = musts(results)
    parts = [heading(results)]
    for key in results["figures"]:
        title, header, table = table_of(results, key)
        parts.append(f"\n{title}\n" + columns([header, *table]))
    if failures:
        parts.append("\nFAILED REQUESTS\n" + "\n".join(failures))
    if results["smoke"]:
        parts.append("\nSmoke run: everything works; the figures mean nothing and are not judged.")
    elif rows:
        parts.append("\nWhat must hold\n" + columns([VERDICTS, *[row.cells("MISSED") for row in rows]]))
    if pair := against(results):
        parts.append("\nThis build over the one before, ratios inside rounds\n" + columns(pair))
    return "\n".join(parts), failures, all(row.held for row in rows)


def results_md(results):
    """The whole of perf/RESULTS.md."""
    machine, versions = results["machine"], results["versions"]
    lines = [
        "# Results", "",
        f"`{results['command']}`, {results['date']}", "",
        f"- Machine: {machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, loopback only; the proxy on core "
        f"{machine['proxy_core']}, load and upstream on {', '.join(map(str, machine['other_cores']))}.",
        f"- {versions_line(versions, ', ')}.",
        f"- Ringway's start-up line: `{results['ring']}`",
        f"- {results['rounds']} rounds (3 for the longest loads); medians; ratios are taken inside each round against the best of "
        f"{', '.join(name for name in BARS if name in results['peers'])} and then the median, with the lowest and highest of the rounds in brackets.",
        "- `relay` copies bytes on a monoio ring without reading them; `direct` has no proxy: what the generator and the upstream can do "
        "(over HTTP/2 it is nginx that answers by itself).",
        "- How to read and repeat this: [README.md](README.md).", "",
        "## What must hold", "", *markdown(VERDICTS, [row.cells("**missed**") for row in musts(results)]),
    ]
    if pair := against(results):
        lines += ["", "## This build over the one before", "", *markdown(pair[0], pair[1:])]
    for key in results["figures"]:
        title, header, table = table_of(results, key)
        lines += ["", f"## {title}", "", *markdown(header, table)]
    failures = list(failed(results))
    lines += ["", *(["## Failed requests", "", *[f"- {line}" for line in failures]] if failures else ["No request failed."])]
    return "\n".join(lines) + "\n"


def heading(results):
    machine, versions = results["machine"], results["versions"]
    return (f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']} · {versions_line(versions, ' · ')} · "
            f"{results['rounds']} rounds · {results['date']}")


def versions_line(versions, between):
    names = {"nginx": "nginx", "haproxy": "HAProxy", "pingora": "pingora", "ringway": "Ringway", "before": "before",
             "busbar": "Busbar"}
    return between.join(f"{name} {versions[key]}" for key, name in names.items() if key in versions)


def failed(results):
    """A line for each visit with failed requests."""
    for key, visits in results["figures"].items():
        if key == "start":
            continue
        for number, round_ in enumerate([visits] if key in IDLE else visits):
            for peer, figures in round_.items():
                if figures["errors"]:
                    yield f"{key} round {number + 1} {peer}: {figures['errors']} of them: {figures['reasons']}"
                # The first handshake of each connection that runs beside others has no session to take up.
                if key == "shake" and figures["resumed"] or key == "resume" and figures["resumed"] < 0.9 * figures["requests"]:
                    yield f"{key} round {number + 1} {peer}: {figures['resumed']} of {figures['requests']} sessions resumed"


# ---- figures over rounds ----

def each(rounds, peer, *path):
    """The figure of a peer in each round; None where it has none."""
    return [dig(round_.get(peer), path) for round_ in rounds]


def dig(value, path):
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def bars_of(rounds):
    """The peers that a load is judged against: those that were visited."""
    return tuple(bar for bar in BARS if any(bar in round_ for round_ in rounds))


def over_bar(rounds, peer, *path):
    """Ratios inside rounds: the peer's figure over that of the best peer in that round."""
    bars, ratios = bars_of(rounds), []
    for round_ in rounds:
        bars_here = [dig(round_.get(bar), path) for bar in bars]
        own = dig(round_.get(peer), path)
        if own is not None and bars_here and None not in bars_here and min(bars_here) > 0:
            ratios.append(own / min(bars_here))
    return ratios


def over(rounds, peer, other, *path):
    """Ratios inside rounds of two peers' figures."""
    pairs = [[dig(round_.get(name), path) for name in (peer, other)] for round_ in rounds]
    return [own / others for own, others in pairs if own is not None and others]


def added(rounds, *path):
    """Ratios inside rounds: what Ringway adds to the direct way over the least that a peer adds."""
    bars, ratios = bars_of(rounds), []
    for round_ in rounds:
        direct, own = (dig(round_.get(name), path) for name in ("direct", "ringway"))
        others = [dig(round_.get(bar), path) for bar in bars]
        # Where a peer seems to add nothing the machine was busy with something else.
        if None not in (direct, own, *others) and others and min(others) > direct:
            ratios.append((own - direct) / (min(others) - direct))
    return ratios


def over_one(rounds, peer):
    """Ratios inside rounds: CPU over the mean of one worker's on either core."""
    ones = SPLIT[:2]
    figures = [[dig(round_.get(name), ["cpu_us_per_unit"]) for name in (peer, *ones)] for round_ in rounds]
    return [2 * own / (first + last) for own, first, last in figures if None not in (own, first, last) and first + last > 0]


def over_beside(rounds, peer):
    """Ratios inside rounds: the delay of events beside a stream that nobody reads, over that on another connection."""
    pairs = [[dig(round_.get(peer), (name, "p99_us")) for name in ("delay", "delay_beside")] for round_ in rounds]
    return [own / beside for own, beside in pairs if own is not None and beside]


def beyond(rounds, peer, other, *path):
    """Differences inside rounds between a peer's figure and another's; `other` may be several: the best of them."""
    differences = []
    for round_ in rounds:
        own = dig(round_.get(peer), path)
        others = [dig(round_.get(name), path) for name in ([other] if isinstance(other, str) else other)]
        if own is not None and None not in others:
            differences.append(own - min(others))
    return differences


def middle(values):
    values = [value for value in values if value is not None]
    return median(values) if values else None


# ---- tables ----

def table_of(results, key):
    """(title, header, rows) of one load."""
    visits = results["figures"][key]
    if key == "start":
        rows = [[peer, number(middle(times), 1), number(max(times), 1)] for peer, times in visits.items()]
        return "Start to first relayed answer, ms", ["peer", "median", "worst"], rows
    if key in IDLE:
        return results["loads"][key] + ", resident KiB each", ["peer", "held", "kept after", "given back", "before, MiB"], [
            [peer, number(idle["kib_per_connection"], 2), number(idle["kept_kib_per_connection"], 2),
             f"{idle['given_back']:.0%}", number(idle["before"]["rss_kib"] / 1024, 1)]
            for peer, idle in visits.items()]
    unit = results["units"][key]
    beside = "one worker" if key == "two" else best_of(bars_of(visits))
    header = ["peer", f"CPU µs / {unit}", f"× {beside}", f"{unit}s/s" if unit != "MiB" else "MiB/s"]
    if unit in ("request", "MiB"):
        spans = [("latency", name) for name in ("p50_us", "p99_us", "p999_us")]
        header += ["p50 µs", "p99 µs", "p99.9 µs"]
    elif key == "first":
        spans = [("ttft", name) for name in ("p50_us", "p99_us", "p999_us")]
        header += ["first event p50 µs", "p99 µs", "p99.9 µs", "lumps"]
    else:
        spans = [("delay", name) for name in ("p50_us", "p99_us", "p999_us")]
        header += ["delay p50 µs", "p99 µs", "p99.9 µs", "lumps"]
    rows = []
    for peer in results["peers"]:
        if not any(peer in round_ for round_ in visits):
            continue
        ratios = over_one(visits, peer) if key == "two" else over_bar(visits, peer, "cpu_us_per_unit")
        row = [peer, number(middle(each(visits, peer, "cpu_us_per_unit")), 1), spread(ratios),
               number(middle(each(visits, peer, "per_second")), 0)]
        for span in spans:
            row.append(number(middle(each(visits, peer, *span)), 0))
        if unit == "event":
            row.append(number(middle(each(visits, peer, "lumps")), 0))
        if key == "h2-stall":
            row += [number(middle(each(visits, peer, "delay_beside", "p99_us")), 0), number(middle(over_beside(visits, peer)), 2)]
        rows.append(row)
    if key == "h2-stall":
        header += ["p99 µs of the other", "× that"]
    return results["loads"][key], header, rows


def best_of(bars):
    return {1: bars[0] if bars else "", 2: "better of the two", 3: "best of the three"}.get(len(bars), "nobody")


def spread(ratios):
    return f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})" if ratios else "–"


def against(results):
    """The table of this build over another in every load both were visited in; nothing if there is none."""
    rows = []
    for key, visits in results["figures"].items():
        if key == "start" or not visits:
            continue
        rounds = [visits] if key in IDLE else visits
        tail = "delay" if results["units"][key] == "event" else "latency"
        if key in IDLE:
            ratios = [over(rounds, "ringway", "before", "kib_per_connection")]
        else:
            ratios = [over(rounds, "ringway", "before", *path) for path in (["cpu_us_per_unit"], [tail, "p50_us"], [tail, "p99_us"])]
        if ratios[0]:
            rows.append([key, *map(spread, ratios), *["–"] * (3 - len(ratios)), str(len(ratios[0]))])
    return rows and [["load", "CPU (idle: memory)", "p50", "p99", "rounds"], *rows]


def number(value, digits):
    return "–" if value is None else f"{value:,.{digits}f}"


def columns(rows):
    """Aligned text: the first column to the left, the others to the right."""
    widths = [max(len(str(row[at])) for row in rows) for at in range(len(rows[0]))]
    return "\n".join("  " + "  ".join(
        str(cell).ljust(width) if at == 0 else str(cell).rjust(width)
        for at, (cell, width) in enumerate(zip(row, widths))) for row in rows)


def markdown(header, rows):
    yield "| " + " | ".join(header) + " |"
    yield "|---|" + "--:|" * (len(header) - 1)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


# ---- what must hold ----

VERDICTS = ["work", "must", "goal", "is", ""]


class Row:
    """One figure that was measured, and what it must be; with no limits it is only told."""

    def __init__(self, work, must, goal, value, limit, target, shown, least=False):
        """`limit` and `target` are what `value` may be at most; at least if `least`."""
        sign = -1 if least else 1
        self.work, self.must, self.goal, self.shown = work, must, goal, shown
        self.held = limit is None or sign * value <= sign * limit
        self.good = target is not None and sign * value <= sign * target
        self.told = limit is None and target is None

    def cells(self, missed):
        verdict = "" if self.told else missed if not self.held else "goal" if self.good else "pass"
        return [self.work, self.must, self.goal, self.shown, verdict]


def musts(results):
    """A row for each figure that was measured."""
    figures, rows = results["figures"], []

    def title(key):
        return results["loads"].get(key)

    def at_most(work, value, limit, must, shown, target=None, goal="–"):
        if value is not None:
            rows.append(Row(work, must, goal, value, limit, target, shown))

    def ratio(work, ratios, limit, of_what, target=None):
        if ratios:
            at_most(work, median(ratios), limit, f"≤ {limit:.2f} × {of_what}", f"{spread(ratios)} ×", target,
                    f"{target:.2f}" if target is not None else "–")

    for key, (limit, target) in CPU.items():
        rounds = figures.get(key, [])
        ratio(f"{title(key)}: CPU per {results['units'].get(key)}", over_bar(rounds, "ringway", "cpu_us_per_unit"), limit,
              f"the {best_of(bars_of(rounds))}", target)
        if key == "post":
            ratio("… beside the raw relay", over(rounds, "ringway", "relay", "cpu_us_per_unit"), 1.15, "the relay")
    for name in ("p50", "p99"):
        rounds = figures.get("rate", [])
        ratio(f"{title('rate')}: {name} added to direct", added(rounds, "latency", f"{name}_us"), 0.90,
              f"the least of {', '.join(bars_of(rounds))}", 0.75)
    ratio(f"{title('two')}: CPU per request", over_one(figures.get("two", []), "two"), 1.05, "one worker's")
    ratio(f"{title('h2-stall')}: delay of the 99, p99", over_beside(figures.get("h2-stall", []), "ringway"), 1.05,
          "that of the other 100")
    ratio("metrics and access log on: CPU per request, all threads",
          over(figures.get("post", []), "sighted", "ringway", "cpu_us_per_unit"), 1.05, "without")
    busbar(results, rows)
    for key, name, label in (("first", "ttft", "time to the first event"), ("sse", "delay", "delay per event")):
        # The direct way's share is the same for both in a round, so the added times differ by as much as the times.
        rounds = figures.get(key, [])
        more = middle(beyond(rounds, "ringway", bars_of(rounds), name, "p99_us")) if bars_of(rounds) else None
        own = middle(beyond(rounds, "ringway", "direct", name, "p99_us"))
        at_most(f"{title(key)}: {label}, p99", more, 0, f"not above the {best_of(bars_of(rounds))}",
                f"{more:+.0f} µs (adds {own:.0f} µs to direct)" if more is not None and own is not None else "")
    # What the allocator keeps of a session's many small pieces is in the table; nobody is promised a bound for it.
    for key, (held, target, kept) in IDLE_KIB.items():
        idle = figures.get(key, {}).get("ringway")
        if idle:
            each_kib = idle["kib_per_connection"]
            at_most(title(key), each_kib, held, f"≤ {held} KiB each" if held else "–", f"{each_kib:.2f} KiB", target,
                    str(target) if target else "–")
        if idle and kept:
            at_most("… given back after", idle["kept_kib_per_connection"], kept, f"≤ {kept} KiB each kept",
                    f"{idle['kept_kib_per_connection']:.2f} KiB kept, {idle['given_back']:.0%} given back")
    late = middle(beyond(figures.get("fan", []), "ringway", "direct", "delay", "p99_us"))
    at_most(f"{title('fan')}: delay p99", late, 50_000, "≤ 50 ms beyond direct",
            f"{late / 1e3:+.2f} ms" if late is not None else "")
    start = middle(figures.get("start", {}).get("ringway", []))
    at_most("start to first answer", start, 100, "≤ 100 ms", f"{start:.1f} ms" if start is not None else "")
    size = results["binary_bytes"]
    at_most("release binary", size, 20 * MIB, "≤ 20 MiB", f"{size / MIB:.1f} MiB")
    return rows


def busbar(results, rows):
    """How often Ringway's CPU goes into Busbar's: in the same run, or else into figures of another one."""
    for key, us in BUSBAR_US.items():
        rounds = results["figures"].get(key, [])
        measured = over(rounds, "busbar", "ringway", "cpu_us_per_unit")
        own = middle(each(rounds, "ringway", "cpu_us_per_unit"))
        must, limit, goal, target = ("≥ 3 × cheaper", 3, "4", 4) if key == "post" else ("–", None, "–", None)
        work = f"Busbar on {results['loads'].get(key)}: CPU per {results['units'].get(key)}"
        if measured:
            rows.append(Row(work, must, goal, median(measured), limit, target, f"{spread(measured)} ×", least=True))
        elif own:
            rows.append(Row(work, must, goal, us / own, limit, target, f"{us / own:.2f} × ({us} µs, of another run)", least=True))
