"""What is compared: how each proxy is configured and started, and the upstreams behind them."""

import hashlib
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import time

from .process import Failed, first_answer, free_port

TEMPLATES = pathlib.Path(__file__).resolve().parent.parent / "peers"
PINGORA = TEMPLATES / "pingora" / "Cargo.toml"
PINGORA_LOCK = PINGORA.with_name("Cargo.lock")
KEY = "perf-key"
HEADER = f"Authorization: Bearer {KEY}"
# The upstreams, and the model that makes Ringway choose each.
MODELS = {"fixed": "mock", "stream": "mock-stream", "stall": "mock-stall", "slow": "mock-slow", "first": "mock-first"}
# Those that are reached over TLS as well.
OVER_TLS = ("fixed", "stream", "stall")
PATH = "/v1/chat/completions"
FILES = "/v1/files"
# What a gateway for chat alone can be offered.
CHAT = ("post", "rate", "sse", "first")
# One worker on the first core, one on the last, and one on each: compared with each other only.
SPLIT = ("one-first", "one-last", "two")
URL = r"listening on http://127\.0\.0\.1:(\d+)"


def require_installed():
    missing = [name for name in ("nginx", "haproxy") if not find(name)]
    if missing:
        raise Failed(f"{' and '.join(missing)} not found; perf/run --install, or: apt-get install -y nginx haproxy")


def find(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def request(model):
    """One chat request, which closes its connection."""
    body = f'{{"model":"{model}","messages":[{{"role":"user","content":"hello"}}]}}'
    return (f"POST {PATH} HTTP/1.1\r\nHost: perf\r\n{HEADER}\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}").encode()


class Upstreams:
    """The simulated provider, five times: fixed answers; events at a short gap; more and longer ones, which no buffer that
    is worth its name holds; events at a long gap; one event at once."""

    def __init__(self, processes, ringway, cpus, sizes):
        self.ports, self.processes, self.answer_bytes = {}, {}, sizes.answer_bytes
        for name, options in (
            ("fixed", ["--fixed-bytes", sizes.answer_bytes]),
            ("first", ["--stamp", "--gap", "0ms", "--ttft", "0ms", "--tokens", 1]),
            ("stream", ["--stamp", "--ttft", "0ms", "--gap", f"{sizes.stream_gap_ms}ms", "--tokens", sizes.stream_tokens]),
            ("stall", ["--stamp", "--ttft", "0ms", "--gap", f"{sizes.stream_gap_ms}ms", "--tokens", sizes.stall_tokens,
                       "--token-bytes", sizes.stall_token_bytes]),
            ("slow", ["--stamp", "--ttft", "0ms", "--gap", f"{sizes.slow_gap_ms}ms", "--tokens", sizes.slow_tokens]),
        ):
            process = processes.start(
                f"upstream-{name}", [ringway, "mock", "--address", "127.0.0.1:0", "--fixed", *options], cpus)
            self.processes[name] = process
            self.ports[name] = int(process.announced(URL)[0])

    def addresses(self):
        return {name.upper(): f"127.0.0.1:{port}" for name, port in self.ports.items()}


class Peer:
    """A proxy that is running. `ports` has a port for each upstream; no `process` for the direct way.

    `tls_ports` lead to some of them over TLS, under the certificate `ca`. With `h2_only`, or `only` some loads (by key), it is
    compared nowhere else.
    """

    def __init__(self, name, ports, process=None, tls_ports=None, ca=None, h2_only=False, only=None):
        self.name, self.ports, self.process, self.tls_ports, self.ca = name, ports, process, tls_ports or {}, ca
        self.h2_only, self.only = h2_only, only

    def url(self, upstream, path=PATH):
        return f"http://127.0.0.1:{self.ports[upstream]}{path}"

    def tls_way(self, upstream):
        return ["--url", f"https://127.0.0.1:{self.tls_ports[upstream]}{PATH}", "--ca", self.ca]

    def speaks_h2(self):
        """True if TLS settles on HTTP/2 where it is offered alone."""
        if not self.tls_ports:
            return False
        context = ssl.create_default_context(cafile=self.ca)
        context.set_alpn_protocols(["h2"])
        try:
            with socket.create_connection(("127.0.0.1", self.tls_ports["fixed"]), timeout=5) as stream:
                with context.wrap_socket(stream, server_hostname="127.0.0.1") as session:
                    return session.selected_alpn_protocol() == "h2"
        except OSError:
            return False

    def pids(self):
        return self.process.pids() if self.process else []

    def ready(self):
        """Waits until every port relays, and TLS settles on HTTP/2 if that is all it is here for."""
        for upstream, port in self.ports.items():
            first_answer(port, request(MODELS[upstream]), 0.0)
        end = time.monotonic() + 20
        while self.h2_only and not self.speaks_h2():
            if time.monotonic() > end:
                raise Failed(f"{self.name} does not speak HTTP/2\n{self.process.log()[-2000:]}")
            time.sleep(0.01)
        return self

    def pause(self):
        if self.process:
            self.process.pause()

    def resume(self):
        if self.process:
            self.process.resume()


class Starter:
    """Starts any of the proxies, as often as asked."""

    def __init__(self, processes, binaries, core, open_files, upstreams, directory):
        self.processes, self.binaries, self.core = processes, binaries, core
        self.last_core = max(os.sched_getaffinity(0))
        self.open_files, self.upstreams, self.directory = open_files, upstreams, pathlib.Path(directory)
        self._count = 0
        self.certificates = self.directory / "certificates"
        self.certificates.mkdir()
        subprocess.run([binaries.tools, "certificate", self.certificates], check=True)

    def start(self, name, driver="auto"):
        """The peer, started but perhaps not ready yet."""
        self._count += 1
        home = self.directory / f"{name}-{self._count}"
        home.mkdir()
        return getattr(self, "_" + name.replace("-", "_"))(home, driver)

    def direct(self):
        return Peer("direct", dict(self.upstreams.ports))

    def direct_h2(self):
        """No proxy either, for none of the upstreams speaks HTTP/2: nginx that answers by itself."""
        home = self.directory / "direct-h2"
        home.mkdir()
        tls_ports = {"fixed": free_port()}
        config = fill("nginx-alone.conf", home, {
            "DIR": home, "CPU_MASK": bin(1 << self.core)[2:], "CERTIFICATES": self.certificates,
            "TLS_FIXED": tls_ports["fixed"], "ANSWER": "x" * self.upstreams.answer_bytes})
        process = self.processes.start(
            "direct-h2", [find("nginx"), "-p", home, "-c", config, "-e", home / "start.log"], {self.core})
        return self._peer("direct", {}, tls_ports, process, h2_only=True)

    def _ports(self):
        """(a port for each upstream, a port for TLS for some, their names for the templates)"""
        wanted = [*(("PORT", name) for name in MODELS), *(("TLS", name) for name in OVER_TLS)]
        taken = []
        while len(set(taken)) < len(wanted):
            taken = [free_port() for _ in wanted]
        ports, tls_ports = ({name: port for (kind, name), port in zip(wanted, taken) if kind == own} for own in ("PORT", "TLS"))
        names = {f"{kind}_{name.upper()}": port for (kind, name), port in zip(wanted, taken)}
        return ports, tls_ports, {**names, "CERTIFICATES": self.certificates}

    def _peer(self, name, ports, tls_ports, process, h2_only=False):
        return Peer(name, ports, process, tls_ports, self.certificates / "cert.pem", h2_only)

    def _nginx(self, home, _):
        ports, tls_ports, names = self._ports()
        config = fill("nginx.conf", home, {
            **names, **self.upstreams.addresses(), "DIR": home, "CPU_MASK": bin(1 << self.core)[2:],
            "OPEN_FILES": self.open_files,
            # nginx allocates all of them at once; a limit of a million would cost half a gigabyte.
            "CONNECTIONS": min(19_800, self.open_files - 100)})
        return self._peer("nginx", ports, tls_ports, self.processes.start(
            "nginx", [find("nginx"), "-p", home, "-c", config, "-e", home / "start.log"], {self.core}))

    def _haproxy(self, home, _):
        ports, tls_ports, names = self._ports()
        config = fill("haproxy.conf", home, {
            **names, **self.upstreams.addresses(), "CPU": self.core,
            # Two descriptors a connection, two a pipe, and some for itself.
            "CONNECTIONS": min(9800, (self.open_files - 300) // 2)})
        return self._peer("haproxy", ports, tls_ports, self.processes.start(
            "haproxy", [find("haproxy"), "-db", "-f", config], {self.core}))

    def _pingora(self, _home, _):
        ports, tls_ports, _ = self._ports()
        argv = [self.binaries.pingora, self.certificates / "cert.pem", self.certificates / "key.pem"]
        for prefix, own in (("", ports), ("tls:", tls_ports)):
            argv += [f"{prefix}127.0.0.1:{port}=127.0.0.1:{self.upstreams.ports[name]}" for name, port in own.items()]
        return self._peer("pingora", ports, tls_ports, self.processes.start("pingora", argv, {self.core}))

    def _busbar(self, home, _):
        port, admin = free_port(), free_port()
        names = {**self.upstreams.addresses(), "DIR": home, "PORT": port, "PORT_ADMIN": admin}
        fill("busbar-providers.yaml", home, names)
        process = self.processes.start("busbar", [self.binaries.busbar], {self.core}, {
            "BUSBAR_CONFIG": str(fill("busbar.yaml", home, names)), "BUSBAR_ADMIN_TOKEN": "a" * 32, "PERF_KEY": KEY,
            "RUST_LOG": "error"})
        return Peer("busbar", {upstream: port for upstream in MODELS}, process, only=CHAT)

    def _relay(self, _home, _):
        argv = [self.binaries.tools, "relay"]
        for port in self.upstreams.ports.values():
            argv += ["--pair", f"127.0.0.1:0=127.0.0.1:{port}"]
        process = self.processes.start("relay", argv, {self.core})
        taken = [int(port) for port in process.announced(URL, count=len(self.upstreams.ports))]
        return Peer("relay", dict(zip(self.upstreams.ports, taken)), process)

    def _sighted(self, home, driver):
        """Ringway with its metrics and access log on."""
        sight = f'[admin]\naddress = "127.0.0.1:{free_port()}"\n[access_log]\npath = "{home}/access.log"\n'
        return self._ringway(home, driver, "sighted", sight)

    def _before(self, home, driver):
        """The other build, with the defaults."""
        return self._ringway(home, driver, "before", binary=self.binaries.against)

    def _one_first(self, home, driver):
        return self._ringway(home, driver, "one-first", only=("two",))

    def _one_last(self, home, driver):
        return self._ringway(home, driver, "one-last", cores={self.last_core}, only=("two",))

    def _two(self, home, driver):
        return self._ringway(home, driver, "two", cores={self.core, self.last_core}, only=("two",))

    def _ringway(self, home, driver, name="ringway", sight="", binary=None, cores=None, only=None):
        port, tls_port = free_port(), free_port()
        cores = cores or {self.core}
        config = fill("ringway.toml", home, {
            **self.upstreams.addresses(), "CPU": ",".join(map(str, sorted(cores))), "DRIVER": driver, "PORT": port,
            "PORT_TLS": tls_port, "RING": "" if binary else self.binaries.ring,
            "CERTIFICATES": self.certificates, "SIGHT": sight,
            "KEY_HASH": "sha256:" + hashlib.sha256(KEY.encode()).hexdigest()})
        process = self.processes.start(
            name, [*self.binaries.wrapper(home), binary or self.binaries.ringway, "serve", "--config", config], cores)
        return Peer(name, {upstream: port for upstream in MODELS}, process, {upstream: tls_port for upstream in OVER_TLS},
                    self.certificates / "cert.pem", only=only)


class Binaries:
    """What was built, what to run Ringway under (callgrind), another build to compare it with, and lines of TOML for the
    [ring] of the first."""

    def __init__(self, ringway, tools, wrapper=lambda home: [], pingora=None, against=None, busbar=None, ring=""):
        self.ringway, self.tools, self.wrapper, self.pingora = pathlib.Path(ringway), pathlib.Path(tools), wrapper, pingora
        self.against, self.busbar = (file and pathlib.Path(file).resolve() for file in (against, busbar))
        self.ring = ring


def fill(template, home, values):
    """Writes the template with its @NAMES@ filled in; returns where."""
    text = (TEMPLATES / template).read_text()
    text = re.sub(r"@([A-Z_]+)@", lambda name: str(values[name[1]]), text.replace("the @NAMES@", "the names"))
    path = home / template
    path.write_text(text)
    return path


def versions(binaries):
    """What each peer calls itself; pingora by its lock file, and only where it was built."""
    def first_line(*argv):
        done = subprocess.run([str(part) for part in argv], capture_output=True, text=True, timeout=10)
        return next(iter((done.stdout + done.stderr).strip().splitlines()), "unknown")
    return {
        "nginx": first_line(find("nginx"), "-v").removeprefix("nginx version: nginx/"),
        "haproxy": first_line(find("haproxy"), "-v").removeprefix("HAProxy version ").split(" ")[0],
        "ringway": first_line(binaries.ringway, "--version").removeprefix("ringway "),
        **({"pingora": re.search(r'name = "pingora-core"\nversion = "(.*)"', PINGORA_LOCK.read_text())[1]}
           if binaries.pingora else {}),
        **({"busbar": first_line(binaries.busbar, "--version").split(" ")[1]} if binaries.busbar else {}),
        **({"before": first_line(binaries.against, "--version").removeprefix("ringway ")} if binaries.against else {}),
    }
