"""Figures to tables: medians over rounds, ratios inside rounds, and whether what must hold does."""

from statistics import median

BARS = ("nginx", "haproxy")
# Over HTTP/2, where it was built.
H2_BAR = "pingora"
IDLE = ("idle", "tls-idle", "h2-idle")
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
        parts.append("\nWhat must hold\n" + columns([["work", "must", "is", ""], *[
            [work, must, value, "pass" if held else "MISSED"] for work, must, value, held in rows]]))
    return "\n".join(parts), failures, all(row[3] for row in rows)


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
        f"- {results['rounds']} rounds (3 for the longest loads); medians; ratios are taken inside each round against the better of nginx and "
        "HAProxy (over HTTP/2 the best of these and pingora) and then the median, with the lowest and highest of the rounds in brackets.",
        "- `relay` copies bytes on a monoio ring without reading them; `direct` has no proxy: what the generator and the upstream can do "
        "(over HTTP/2 it is nginx that answers by itself).",
        "- How to read and repeat this: [README.md](README.md).", "",
        "## What must hold", "", *markdown(["work", "must", "is", ""], [
            [work, must, value, "pass" if held else "**missed**"] for work, must, value, held in musts(results)]),
    ]
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
    names = {"nginx": "nginx", "haproxy": "HAProxy", "pingora": "pingora", "ringway": "Ringway"}
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


def bars_of(key, rounds):
    """The peers that a load is judged against."""
    return (*BARS, *([H2_BAR] if key.startswith("h2") and any(H2_BAR in round_ for round_ in rounds) else []))


def over_bar(rounds, peer, *path, bars=BARS):
    """Ratios inside rounds: the peer's figure over the best of `bars` in that round."""
    ratios = []
    for round_ in rounds:
        bars_here = [dig(round_.get(bar), path) for bar in bars]
        own = dig(round_.get(peer), path)
        if own is not None and None not in bars_here and min(bars_here) > 0:
            ratios.append(own / min(bars_here))
    return ratios


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
    bars = bars_of(key, visits)
    header = ["peer", f"CPU µs / {unit}", f"× {better_of(bars)}", f"{unit}s/s"]
    if unit == "request":
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
        ratios = over_bar(visits, peer, "cpu_us_per_unit", bars=bars)
        ratio = f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})" if ratios else "–"
        row = [peer, number(middle(each(visits, peer, "cpu_us_per_unit")), 1), ratio,
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


def better_of(bars):
    return "better of the two" if len(bars) == 2 else "best of the three"


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

def musts(results):
    """(work, what must be, what is, whether it holds) for each figure that was measured."""
    figures = results["figures"]
    rows = []

    def at_most(work, value, limit, must, shown):
        if value is not None:
            rows.append((work, must, shown, value <= limit))

    for key, limit in (("post", 0.95), ("tls", 0.90), ("shake", 0.90), ("resume", 0.90), ("sse", 0.85), ("h2", 0.90), ("h2-sse", 0.75)):
        bars = bars_of(key, figures.get(key, []))
        ratio = middle(over_bar(figures.get(key, []), "ringway", "cpu_us_per_unit", bars=bars))
        must = "the better of nginx and HAProxy" if len(bars) == 2 else "the best of nginx, HAProxy and pingora"
        at_most(f"{results['loads'].get(key)}: CPU per {results['units'].get(key)}", ratio, limit,
                f"≤ {limit} × {must}", f"{ratio:.2f} ×" if ratio is not None else "")
    stalled = middle(over_beside(figures.get("h2-stall", []), "ringway"))
    at_most(f"{results['loads'].get('h2-stall')}: delay of the 99, p99", stalled, 1.05, "≤ 1.05 × that of the other 100",
            f"{stalled:.2f} ×" if stalled is not None else "")
    seen = middle([dig(round_.get("sighted"), ["cpu_us_per_unit"]) / dig(round_.get("ringway"), ["cpu_us_per_unit"])
                   for round_ in figures.get("post", []) if {"sighted", "ringway"} <= round_.keys()])
    at_most("metrics and access log on: CPU per request, all threads", seen, 1.05, "≤ 1.05 × without",
            f"{seen:.2f} ×" if seen is not None else "")
    for key, name, label in (("first", "ttft", "time to the first event"), ("sse", "delay", "delay per event")):
        # The direct way's share is the same for both in a round, so the added times differ by as much as the times.
        more = middle(beyond(figures.get(key, []), "ringway", BARS, name, "p99_us"))
        own = middle(beyond(figures.get(key, []), "ringway", "direct", name, "p99_us"))
        at_most(f"{results['loads'].get(key)}: {label}, p99", more, 0, "not above the better of the two",
                f"{more:+.0f} µs (adds {own:.0f} µs to direct)" if more is not None and own is not None else "")
    # What the allocator keeps of a session's many small pieces is in the table; nobody is promised a bound for it.
    for key, held, kept in (("idle", 4, 0.5), ("tls-idle", 10, None), ("h2-idle", 16, None)):
        idle = figures.get(key, {}).get("ringway")
        if idle:
            at_most(results["loads"][key], idle["kib_per_connection"], held, f"≤ {held} KiB each",
                    f"{idle['kib_per_connection']:.2f} KiB")
        if idle and kept:
            at_most("… given back after", idle["kept_kib_per_connection"], kept, f"≤ {kept} KiB each kept",
                    f"{idle['kept_kib_per_connection']:.2f} KiB kept, {idle['given_back']:.0%} given back")
    late = middle(beyond(figures.get("fan", []), "ringway", "direct", "delay", "p99_us"))
    at_most(f"{results['loads'].get('fan')}: delay p99", late, 50_000, "≤ 50 ms beyond direct",
            f"{late / 1e3:+.2f} ms" if late is not None else "")
    start = middle(figures.get("start", {}).get("ringway", []))
    at_most("start to first answer", start, 100, "≤ 100 ms", f"{start:.1f} ms" if start is not None else "")
    size = results["binary_bytes"]
    at_most("release binary", size, 20 * MIB, "≤ 20 MiB", f"{size / MIB:.1f} MiB")
    return rows
