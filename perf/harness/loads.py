"""What is offered: the loads and their sizes."""

import json
import os
import subprocess
import time

from .peers import FILES, HEADER, MODELS, PATH, SPLIT
from .process import Failed

MIB = 1 << 20


class Sizes:
    """How much of each load. The smoke sizes only see that nothing rots; their figures mean nothing."""

    def __init__(self, smoke):
        self.answer_bytes = self.body_bytes = 1024
        self.connections = 16 if smoke else 64
        self.seconds = 0.25 if smoke else 3.0
        self.warm_up = 0.05 if smoke else 0.3
        self.rate = 1000 if smoke else 5000
        self.streams = 20 if smoke else 200
        self.stream_gap_ms = 20
        self.stream_tokens = 5 if smoke else 50
        self.stream_repeats = 1 if smoke else 3
        self.h2_connections = 2 if smoke else 8
        self.h2_requests = 8 if smoke else 32
        self.h2_streams = 10 if smoke else 25
        self.stall_streams = 10 if smoke else 100
        self.stall_tokens = 5 if smoke else 150
        self.stall_token_bytes = 1024
        self.first_streams = 200 if smoke else 3000
        self.first_rate = 1000
        self.slow_streams = 100 if smoke else 4000
        self.slow_gap_ms = 100 if smoke else 500
        self.slow_tokens = 3 if smoke else 12
        self.handshakes = 8 if smoke else 32
        self.file_mib = 1 if smoke else 10
        self.file_connections = 2 if smoke else 8
        self.file_chunk_bytes = 16 << 10
        self.idle = 200 if smoke else 9000
        self.settle = 0.1 if smoke else 4.0
        self.starts = 1 if smoke else 7


class Load:
    """One load: its arguments for `ringway-perf load`, the upstream it goes to, the unit it is divided by.

    Over TLS only peers that speak it are visited; over HTTP/2, which is over TLS too, those that do and are compared there. A
    request holds `units` of the unit, and its answer `answer_bytes` if that is said. With `only` no others are visited.
    """

    def __init__(self, key, title, upstream, unit, arguments, tls=False, h2=False, path=PATH, units=1, answer_bytes=None, only=None):
        self.key, self.title, self.upstream, self.unit, self.arguments = key, title, upstream, unit, arguments
        self.tls, self.h2, self.path, self.units, self.answer_bytes, self.only = tls or h2, h2, path, units, answer_bytes, only

    def fits(self, peer):
        if self.only or peer.only:
            return peer.name in (self.only or ()) or self.key in (peer.only or ())
        if self.h2:
            return self.upstream in peer.tls_ports and peer.name != "sighted"
        # What is told of an exchange is told once, however long it is.
        if peer.name == "sighted" and self.unit == "MiB":
            return False
        return not peer.h2_only and (not self.tls or self.upstream in peer.tls_ports)


def relayed(sizes, events):
    """The loads that every peer relays in turn. `events` has the stamped events of one stream, by upstream."""
    common = ["--body-bytes", sizes.body_bytes]
    timed = [*common, "--connections", sizes.connections, "--seconds", sizes.seconds, "--warm-up", sizes.warm_up]
    once = [*common, "--connections", sizes.handshakes, "--seconds", sizes.seconds, "--warm-up", sizes.warm_up, "--once"]
    h2_streams = sizes.h2_connections * sizes.h2_streams
    files = ["--connections", sizes.file_connections, "--seconds", sizes.seconds, "--warm-up", sizes.warm_up]
    file_bytes = sizes.file_mib * MIB
    def file(key, what, path, arguments, answer_bytes=None):
        return Load(key, f"{sizes.file_mib} MiB {what}, closed loop, {sizes.file_connections} connections", "fixed", "MiB",
                    ["closed", *files, *arguments], path=path, units=sizes.file_mib, answer_bytes=answer_bytes)
    sent = ["--send", "file", "--body-bytes", file_bytes]
    def streams(upstream, count, gap_ms, repeats):
        return ["sse", *common, "--streams", count, "--gap-ms", gap_ms, "--repeats", repeats, "--events", events[upstream]]
    return [
        Load("post", f"POST {sizes.body_bytes} B → {sizes.answer_bytes} B, closed loop, {sizes.connections} connections",
             "fixed", "request", ["closed", *timed]),
        Load("rate", f"the same at {sizes.rate:,}/s, Poisson, latency from the scheduled time",
             "fixed", "request", ["open", *timed, "--rate", sizes.rate, "--poisson"]),
        Load("tls", f"POST over TLS 1.3, closed loop, {sizes.connections} connections", "fixed", "request",
             ["closed", *timed], tls=True),
        Load("shake", f"TLS 1.3 handshake, POST and close, {sizes.handshakes} at a time", "fixed", "request",
             ["closed", *once], tls=True),
        Load("resume", "the same, the session resumed", "fixed", "request", ["closed", *once, "--resume"], tls=True),
        Load("sse", f"{sizes.streams} streams, an event each {sizes.stream_gap_ms} ms",
             "stream", "event", streams("stream", sizes.streams, sizes.stream_gap_ms, sizes.stream_repeats)),
        # The provider of the other streams keeps to a phase of its own, which hides the time to the first event.
        Load("first", f"{sizes.first_rate:,} streams a second, one event each, sent at once", "first", "event",
             ["sse", *common, "--streams", sizes.first_streams, "--gap-ms", 1, "--events", events["first"],
              "--starts-per-second", sizes.first_rate]),
        Load("fan", f"{sizes.slow_streams:,} streams, an event each {sizes.slow_gap_ms} ms",
             "slow", "event", streams("slow", sizes.slow_streams, sizes.slow_gap_ms, 1)),
        file("up", "up", FILES, sent),
        file("up-chunked", "up, chunked", FILES, [*sent, "--chunk-bytes", sizes.file_chunk_bytes]),
        file("down", "down", f"{FILES}/{file_bytes}/content", ["--send", "get"], file_bytes),
        file("down-chunked", "down, chunked", f"{FILES}/{file_bytes}-chunked/content", ["--send", "get"], file_bytes),
        Load("two", f"POST {sizes.body_bytes} B at {sizes.rate:,}/s, one worker on either core and two on both, beside the generator",
             "fixed", "request", ["open", *timed, "--rate", sizes.rate, "--poisson"], only=SPLIT),
        Load("h2", f"POST over TLS 1.3 HTTP/2, closed loop, {sizes.h2_connections} connections × {sizes.h2_requests} streams",
             "fixed", "request",
             ["closed", *common, "--seconds", sizes.seconds, "--warm-up", sizes.warm_up, "--connections", sizes.h2_connections,
              "--h2", sizes.h2_requests], h2=True),
        Load("h2-sse", f"{h2_streams} streams on {sizes.h2_connections} HTTP/2 connections, an event each {sizes.stream_gap_ms} ms",
             "stream", "event",
             [*streams("stream", h2_streams, sizes.stream_gap_ms, sizes.stream_repeats), "--h2", sizes.h2_streams], h2=True),
        # Both at once, so that what the machine does to one it does to the other.
        Load("h2-stall", f"{sizes.stall_streams} streams on one HTTP/2 connection, one of them never read, and as many on another, "
             "all read", "stall", "event",
             [*streams("stall", 2 * sizes.stall_streams, sizes.stream_gap_ms, sizes.stream_repeats), "--h2", sizes.stall_streams, "--stalled", 1],
             h2=True),
    ]


def idles(sizes):
    """The idle connections, by what they speak."""
    arguments = ["idle", "--body-bytes", sizes.body_bytes, "--connections", sizes.idle, "--settle", sizes.settle,
                 "--wave", min(64, sizes.idle)]
    def load(key, what, arguments, **over):
        return Load(key, f"{sizes.idle:,} idle {what} connections", "fixed", "connection", arguments, **over)
    return [load("idle", "keep-alive", arguments), load("tls-idle", "TLS", arguments, tls=True),
            load("h2-idle", "TLS HTTP/2", [*arguments, "--h2", 1], h2=True),
            # On a port that takes either version only Ringway does.
            load("h2c-idle", "HTTP/2 in the clear", [*arguments, "--h2", 1], only=("ringway", "before"))]


def offer(tools, load, peer, cpus, timeout=180):
    """Runs the load against the peer; its JSON. Failed requests are in it, not raised."""
    way = peer.tls_way(load.upstream) if load.tls else ["--url", peer.url(load.upstream, load.path)]
    argv = [tools, "load", *load.arguments, *way, "--model", MODELS[load.upstream],
            "--header", HEADER]
    for pid in peer.pids():
        argv += ["--pid", pid]
    argv = [str(part) for part in argv]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout,
                          preexec_fn=lambda: os.sched_setaffinity(0, cpus))
    if done.returncode not in (0, 1) or not done.stdout:
        raise Failed(f"{' '.join(argv)}\nexit {done.returncode}: {done.stderr}")
    answer = json.loads(done.stdout)
    got = answer.get("body_bytes")
    if load.answer_bytes not in (None, got):
        raise Failed(f"{load.key} {peer.name}: answers of {got} bytes instead of {load.answer_bytes}")
    if "cpu_us_per_unit" in answer:
        answer["cpu_us_per_unit"] /= load.units
    if "per_second" in answer:
        answer["per_second"] *= load.units
    return answer


def visit(tools, load, peer, cpus):
    """Wakes a waiting peer for one load, then stops it again."""
    peer.resume()
    try:
        # Time to take note of what happened to its idle connections meanwhile.
        time.sleep(0.1)
        return offer(tools, load, peer, cpus)
    finally:
        peer.pause()


def events_per_stream(tools, upstreams, direct, cpus):
    """How many stamped events one stream of each upstream brings when nobody is in between."""
    counts = {}
    for upstream in ("stream", "stall", "slow", "first"):
        probe = Load("probe", "", upstream, "event", ["sse", "--streams", 1, "--events", 1, "--gap-ms", 1])
        answer = offer(tools, probe, direct, cpus)
        if answer["errors"]:
            raise Failed(f"upstream {upstream}: {answer['reasons']}")
        counts[upstream] = answer["events"]
    return counts
