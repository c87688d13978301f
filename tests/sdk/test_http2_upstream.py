"""Providers that speak HTTP/2: the simulated one behind nginx, HAProxy and nghttpx, over TLS and in the clear."""

import asyncio
import re
import signal
import socket
import subprocess
import time
import urllib.request

import httpx
import pytest

from conftest import CONFIG, DEFAULT_ROUTE, KEY, PATIENCE_S, certify, openai_client, start_gateway

pytestmark = pytest.mark.gateway

MESSAGES = [{"role": "user", "content": "Say hello."}]
HEADERS = {"authorization": f"Bearer {KEY}"}

NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off; client_max_body_size 0; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    ssl_certificate {chain}; ssl_certificate_key {key}; keepalive_requests {requests};
    upstream mock {{ server {origin}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{secure} ssl http2; listen 127.0.0.1:{clear} http2;
        add_header x-seen $server_protocol always;
        location / {{
            proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_buffering off; proxy_request_buffering off;
        }}
    }}
}}
"""

HAPROXY = """
global
    maxconn 512
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend f
    bind 127.0.0.1:{secure} ssl crt {folder}/both.pem alpn h2,http/1.1
    bind 127.0.0.1:{clear} proto h2
    http-request set-var(txn.version) req.ver
    http-response set-header x-seen HTTP/%[var(txn.version)]
    default_backend mock
backend mock
    server mock {origin}
"""


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Server:
    """A server that others have written, in front of the simulated provider: on one port over TLS, on another in the clear."""

    def __init__(self, kind, mock, folder, requests=1000000):
        self.kind = kind
        authority = certify(folder, "authority")
        chain, key = certify(folder, "server", authority)
        (folder / "both.pem").write_text(chain.read_text() + key.read_text())
        self.authority, origin = authority[0], mock.origin.removeprefix("http://")
        # Others may take a port between our look and its bind: then it ends, and others are tried.
        for _ in range(10):
            self.secure, self.clear = free_ports(2)
            values = {"folder": folder, "chain": chain, "key": key, "requests": requests, "origin": origin,
                      "secure": self.secure, "clear": self.clear}
            if kind == "nginx":
                (folder / "nginx.conf").write_text(NGINX.format(**values))
                command = ["nginx", "-p", folder, "-e", folder / "error.log", "-c", folder / "nginx.conf"]
            elif kind == "haproxy":
                (folder / "haproxy.cfg").write_text(HAPROXY.format(**values))
                command = ["haproxy", "-db", "-f", folder / "haproxy.cfg"]
            else:
                # It speaks nothing else over TLS, so that an answer shows what was spoken.
                command = ["nghttpx", f"--frontend=127.0.0.1,{self.secure}", "--alpn-list=h2", "--conf=/dev/null",
                           f"--frontend=127.0.0.1,{self.clear};no-tls", f"--backend={origin.replace(':', ',')}",
                           "--workers=1", "--errorlog-file=/dev/null", key, chain]
                if "--alpn-list" not in subprocess.run(["nghttpx", "--help"], capture_output=True, text=True).stdout:
                    command[2] = "--npn-list=h2"
            self.child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if all(self.is_open(port) for port in (self.secure, self.clear)):
                return
            self.stop()
        raise AssertionError(f"{kind} found no free ports")

    def is_open(self, port):
        start = time.monotonic()
        while self.child.poll() is None and time.monotonic() - start < PATIENCE_S:
            try:
                socket.create_connection(("127.0.0.1", port), PATIENCE_S).close()
                return True
            except ConnectionRefusedError:
                time.sleep(0.005)
        return False

    def stop(self):
        # nginx's workers go with their master only if that is asked to go.
        self.child.terminate()
        try:
            self.child.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


def gateway_to(server, door, mock):
    url = f"https://localhost:{server.secure}" if door == "tls" else f"http://127.0.0.1:{server.clear}"
    more = f'ca = "{server.authority}"' if door == "tls" else 'http2 = "prior-knowledge"'
    config = CONFIG.replace('url = "{url}"', f'url = "{url}/v1"\n{more}')
    return start_gateway(mock, config + DEFAULT_ROUTE.replace("{", "{{").replace("}", "}}"))


@pytest.fixture(scope="module", params=["nginx", "haproxy", "nghttpx"])
def server(request, mock, tmp_path_factory):
    server = Server(request.param, mock, tmp_path_factory.mktemp(request.param))
    yield server
    server.stop()


@pytest.fixture(scope="module", params=["tls", "clear"])
def through(request, server, mock):
    gateway = gateway_to(server, request.param, mock)
    gateway.kind = server.kind
    yield gateway
    alive = gateway.process.child.poll() is None
    gateway.process.stop()
    assert alive, "the gateway died:\n" + "\n".join(gateway.process.lines)


def is_http2(gateway, headers):
    return gateway.kind == "nghttpx" or headers["x-seen"].startswith("HTTP/2")


def opened(gateway):
    with urllib.request.urlopen(gateway.admin + "/metrics", timeout=PATIENCE_S) as answer:
        text = answer.read().decode()
    return sum(float(value) for value in re.findall(r"^ringway_upstream_connections_opened_total\{.*\} (\S+)$", text, re.M))


def test_a_stream_by_the_sdk(through):
    with openai_client(through) as client:
        raw = client.chat.completions.with_raw_response.create(model="mock:tokens=20,gap=1ms", messages=MESSAGES, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in raw.parse() if chunk.choices)
        whole = client.chat.completions.create(model="mock:tokens=20", messages=MESSAGES)
    assert is_http2(through, raw.headers)
    assert text == whole.choices[0].message.content


def ask_all(gateway, requests):
    async def run():
        limits = httpx.Limits(max_connections=200)
        client = httpx.AsyncClient(base_url=gateway.origin, headers=HEADERS, timeout=PATIENCE_S, limits=limits)
        async with client:
            async def ask(n):
                body = {"model": f"mock:tokens=5,seed={n}", "messages": MESSAGES, "stream": n % 2 == 0}
                answer = await client.post("/v1/chat/completions", json=body)
                return answer.status_code, answer.text

            return await asyncio.gather(*(ask(n) for n in range(requests)))

    for n, (status, text) in enumerate(asyncio.run(run())):
        assert status == 200, text
        assert text.endswith("data: [DONE]\n\n") if n % 2 == 0 else '"completion_tokens":5' in text.replace(" ", ""), text


def test_a_hundred_requests_at_once_share_connections(through):
    before = opened(through)
    ask_all(through, 100)
    # As many as fit on one go over one; the provider may allow fewer than a hundred.
    assert opened(through) - before <= 2


def test_a_large_body_each_way(through):
    with httpx.Client(base_url=through.origin, headers=HEADERS, timeout=PATIENCE_S) as client:
        body = {"model": "mock:tokens=1", "messages": [{"role": "user", "content": "x" * (5 << 20)}]}
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        answer = client.post("/v1/chat/completions", json={"model": "mock:tokens=100000", "messages": MESSAGES})
        assert answer.json()["usage"]["completion_tokens"] == 100000
        files = {"file": ("a.bin", b"y" * (5 << 20)), "model": (None, "mock")}
        assert client.post("/v1/audio/transcriptions", files=files).status_code < 500


def test_a_client_that_leaves_is_cancelled(through, mock, name):
    name = f"{name}-{through.kind}"
    model = f"mock:id={name},ttft=1ms,gap=1ms,fault=stall@2"
    with openai_client(through) as client:
        stream = client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
        next(iter(stream))
        stream.close()
    mock.request_when(name, "cancelled")


@pytest.mark.parametrize("door", ["tls", "clear"])
def test_nothing_is_lost_when_connections_are_ended_every_ten_requests(door, mock, tmp_path):
    server = Server("nginx", mock, tmp_path, requests=10)
    gateway = gateway_to(server, door, mock)
    try:
        for _ in range(5):
            ask_all(gateway, 60)
    finally:
        gateway.process.stop()
        server.stop()


@pytest.mark.parametrize("door", ["tls", "clear"])
def test_nothing_is_lost_when_the_server_reloads(door, mock, tmp_path):
    server = Server("nginx", mock, tmp_path)
    gateway = gateway_to(server, door, mock)
    try:
        for _ in range(5):
            server.child.send_signal(signal.SIGHUP)
            ask_all(gateway, 60)
    finally:
        gateway.process.stop()
        server.stop()
