"""What is compared: how each proxy is configured and started, and the upstreams behind them."""

import hashlib
import os
import pathlib
import re
import shutil
import subprocess

from .process import Failed, first_answer, free_port

TEMPLATES = pathlib.Path(__file__).resolve().parent.parent / "peers"
KEY = "perf-key"
HEADER = f"Authorization: Bearer {KEY}"
# The upstreams, and the model that makes Ringway choose each.
MODELS = {"fixed": "mock", "stream": "mock-stream", "slow": "mock-slow", "first": "mock-first"}
PATH = "/v1/chat/completions"
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
    """The simulated provider, four times: fixed answers; events at a short gap; at a long one; one event at once."""

    def __init__(self, processes, ringway, cpus, sizes):
        self.ports, self.processes = {}, {}
        for name, options in (
            ("fixed", ["--fixed-bytes", sizes.answer_bytes]),
            ("first", ["--stamp", "--gap", "0ms", "--ttft", "0ms", "--tokens", 1]),
            ("stream", ["--stamp", "--ttft", "0ms", "--gap", f"{sizes.stream_gap_ms}ms", "--tokens", sizes.stream_tokens]),
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

    `tls_port` leads to the upstream `fixed` over TLS, under the certificate `ca`.
    """

    def __init__(self, name, ports, process=None, tls_port=None, ca=None):
        self.name, self.ports, self.process, self.tls_port, self.ca = name, ports, process, tls_port, ca

    def url(self, upstream):
        return f"http://127.0.0.1:{self.ports[upstream]}{PATH}"

    def tls_way(self):
        return ["--url", f"https://127.0.0.1:{self.tls_port}{PATH}", "--ca", self.ca]

    def pids(self):
        return self.process.pids() if self.process else []

    def ready(self):
        """Waits until every port relays."""
        for upstream, port in self.ports.items():
            first_answer(port, request(MODELS[upstream]), 0.0)
        return self

    def pause(self):
        if self.process:
            self.process.pause()

    def resume(self):
        if self.process:
            self.process.resume()


class Starter:
    """Starts any of the proxies, as often as asked."""

    NAMES = ("nginx", "haproxy", "relay", "ringway", "sighted")

    def __init__(self, processes, binaries, core, open_files, upstreams, directory):
        self.processes, self.binaries, self.core = processes, binaries, core
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
        return getattr(self, f"_{name}")(home, driver)

    def direct(self):
        return Peer("direct", dict(self.upstreams.ports))

    def _ports(self):
        """(a port for each upstream, a port for TLS, their names for the templates)"""
        ports = {}
        while len(set(ports.values())) < len(MODELS) + 1:
            ports = {name: free_port() for name in (*MODELS, "tls")}
        names = {f"PORT_{name.upper()}": port for name, port in ports.items()}
        return ports, ports.pop("tls"), {**names, "CERTIFICATES": self.certificates}

    def _peer(self, name, ports, tls_port, process):
        return Peer(name, ports, process, tls_port, self.certificates / "cert.pem")

    def _nginx(self, home, _):
        ports, tls_port, names = self._ports()
        config = fill("nginx.conf", home, {
            **names, **self.upstreams.addresses(), "DIR": home, "CPU_MASK": bin(1 << self.core)[2:],
            "OPEN_FILES": self.open_files,
            # nginx allocates all of them at once; a limit of a million would cost half a gigabyte.
            "CONNECTIONS": min(19_800, self.open_files - 100)})
        return self._peer("nginx", ports, tls_port, self.processes.start(
            "nginx", [find("nginx"), "-p", home, "-c", config, "-e", home / "start.log"], {self.core}))

    def _haproxy(self, home, _):
        ports, tls_port, names = self._ports()
        config = fill("haproxy.conf", home, {
            **names, **self.upstreams.addresses(), "CPU": self.core,
            # Two descriptors a connection, and some for itself.
            "CONNECTIONS": min(9900, (self.open_files - 150) // 2)})
        return self._peer("haproxy", ports, tls_port, self.processes.start(
            "haproxy", [find("haproxy"), "-db", "-f", config], {self.core}))

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

    def _ringway(self, home, driver, name="ringway", sight=""):
        port, tls_port = free_port(), free_port()
        config = fill("ringway.toml", home, {
            **self.upstreams.addresses(), "CPU": self.core, "DRIVER": driver, "PORT": port, "PORT_TLS": tls_port,
            "CERTIFICATES": self.certificates, "SIGHT": sight,
            "KEY_HASH": "sha256:" + hashlib.sha256(KEY.encode()).hexdigest()})
        process = self.processes.start(
            name, [*self.binaries.wrapper(home), self.binaries.ringway, "serve", "--config", config], {self.core})
        return self._peer(name, {upstream: port for upstream in MODELS}, tls_port, process)


class Binaries:
    """What was built, and what to run Ringway under (callgrind)."""

    def __init__(self, ringway, tools, wrapper=lambda home: []):
        self.ringway, self.tools, self.wrapper = pathlib.Path(ringway), pathlib.Path(tools), wrapper


def fill(template, home, values):
    """Writes the template with its @NAMES@ filled in; returns where."""
    text = (TEMPLATES / template).read_text()
    text = re.sub(r"@([A-Z_]+)@", lambda name: str(values[name[1]]), text.replace("the @NAMES@", "the names"))
    path = home / template
    path.write_text(text)
    return path


def versions(ringway):
    """What each peer calls itself."""
    def first_line(*argv):
        done = subprocess.run([str(part) for part in argv], capture_output=True, text=True, timeout=10)
        return next(iter((done.stdout + done.stderr).strip().splitlines()), "unknown")
    return {
        "nginx": first_line(find("nginx"), "-v").removeprefix("nginx version: nginx/"),
        "haproxy": first_line(find("haproxy"), "-v").removeprefix("HAProxy version ").split(" ")[0],
        "ringway": first_line(ringway, "--version").removeprefix("ringway "),
    }
