"""A real gateway in front of the simulated provider, on ports of the kernel's choice.

RINGWAY_BIN names the built binary. `--direct` points the SDKs at the simulated provider itself, without the tests of
what only a gateway does: that tells a fault of the gateway from one of the provider or of a test.
"""

import json
import os
import signal
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

import anthropic
import openai
import pytest

KEY = "sk-sdk-client"
NARROW_KEY = "sk-sdk-narrow"
PROVIDER_KEY = "sk-sdk-provider"
PATIENCE_S = 20.0

CONFIG = """
cores = "0"
[[listeners]]
address = "127.0.0.1:0"
[[keys]]
name = "team-a"
secret = {{ env = "SDK_KEY" }}
models = ["*"]
[[keys]]
name = "narrow"
secret = {{ env = "SDK_NARROW_KEY" }}
models = ["mock"]
[[providers]]
name = "mock"
[[providers.endpoints]]
url = "{url}"
key = {{ env = "SDK_PROVIDER_KEY" }}
[[models]]
name = "mock"
route = [{{ provider = "mock" }}]
[[models]]
name = "renamed"
route = [{{ provider = "mock", model = "mock:tokens=3" }}]
[[models]]
name = "never-begins"
route = [{{ provider = "mock", model = "mock:fault=never" }}]
timers = {{ first_token = "300ms" }}
[[models]]
name = "stalls"
route = [{{ provider = "mock", model = "mock:fault=stall@2,ttft=1ms,gap=1ms" }}]
timers = {{ between_tokens = "300ms" }}
[admin]
address = "127.0.0.1:0"
"""

DEFAULT_ROUTE = """
[[models]]
name = "*"
route = [{ provider = "mock" }]
"""


def pytest_addoption(parser):
    parser.addoption("--direct", action="store_true", help="test the simulated provider, without a gateway")


def pytest_configure(config):
    config.addinivalue_line("markers", "gateway: what only a gateway does")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--direct"):
        chosen = [item for item in items if item.get_closest_marker("gateway") is None]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


def binary():
    path = os.environ.get("RINGWAY_BIN")
    if not path:
        pytest.exit("RINGWAY_BIN must name the built binary; tests/run does that", returncode=2)
    return path


class Process:
    """A process whose lines are kept; killed by its number."""

    def __init__(self, args, pipe, env=None):
        pipes = {"stdout": subprocess.DEVNULL, "stderr": None} | {pipe: subprocess.PIPE}
        environment = os.environ | (env or {})
        self.child = subprocess.Popen([binary(), *args], stdin=subprocess.DEVNULL, env=environment, **pipes)
        self.lines = []
        self.ended = False
        self.more = threading.Condition()
        threading.Thread(target=self._read, args=(getattr(self.child, pipe),), daemon=True).start()

    def _read(self, pipe):
        for line in pipe:
            with self.more:
                self.lines.append(line.decode(errors="replace").rstrip("\n"))
                self.more.notify_all()
        with self.more:
            self.ended = True
            self.more.notify_all()

    def lines_until(self, words):
        def there():
            return any(words in line for line in self.lines)

        with self.more:
            self.more.wait_for(lambda: there() or self.ended, PATIENCE_S)
            assert there(), f'no "{words}" in:\n' + "\n".join(self.lines)
            return list(self.lines)

    def stop(self):
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()


def address(lines, mark="listening on http://"):
    line = next(line for line in lines if mark in line)
    return line.split(mark, 1)[1].replace("/", " ").split()[0]


class Mock:
    """The simulated provider, and what it saw."""

    def __init__(self):
        self.process = Process(["mock", "--address", "127.0.0.1:0"], "stdout")
        self.origin = "http://" + address(self.process.lines_until("listening on"))

    def get(self, path):
        with urllib.request.urlopen(self.origin + path, timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def request(self, name):
        """What became of the request that called itself `name`; None if none has come."""
        try:
            return self.get(f"/mock/requests/{name}")
        except urllib.error.HTTPError as error:
            assert error.code == 404, error
            return None

    def request_when(self, name, state):
        """Waits until the named request is in `state`. Only the provider can tell, and only when asked."""
        start = time.monotonic()
        while time.monotonic() - start < PATIENCE_S:
            seen = self.request(name)
            if seen and seen["state"] == state:
                return seen
            time.sleep(0.005)
        raise AssertionError(f"{name} is not {state} but {seen}")


class Gateway:
    """A gateway process, or the provider itself in the place of one."""

    def __init__(self, origin, process=None, admin=None):
        self.origin = origin
        self.process = process
        self.admin = admin


def start_gateway(mock, config):
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(config.format(url=mock.origin + "/v1"))
        file.flush()
        secrets = {"SDK_KEY": KEY, "SDK_NARROW_KEY": NARROW_KEY, "SDK_PROVIDER_KEY": PROVIDER_KEY}
        process = Process(["serve", "--config", file.name], "stderr", secrets)
        lines = process.lines_until("ringway: ready")
    scheme = "https" if any("listening on https://" in line for line in lines) else "http"
    origin = f"{scheme}://{address(lines, f'listening on {scheme}://')}"
    return Gateway(origin, process, "http://" + address(lines, "admin: http://"))


@pytest.fixture(scope="session")
def mock():
    mock = Mock()
    yield mock
    mock.process.stop()


@pytest.fixture(scope="session")
def gateway(request, mock):
    """Every model that the config does not name goes to the provider under its own name."""
    if request.config.getoption("--direct"):
        yield Gateway(mock.origin)
        return
    gateway = start_gateway(mock, CONFIG + DEFAULT_ROUTE.replace("{", "{{").replace("}", "}}"))
    yield gateway
    alive = gateway.process.child.poll() is None
    gateway.process.stop()
    assert alive, "the gateway died:\n" + "\n".join(gateway.process.lines)


@pytest.fixture(scope="session")
def strict(mock):
    """A gateway without a default route."""
    gateway = start_gateway(mock, CONFIG)
    yield gateway
    gateway.process.stop()


def certify(folder, name, signer=None):
    """A certificate for this machine and its key. Without a signer it vouches for itself, and may sign others."""
    chain, key, config = (folder / f"{name}.{end}" for end in ("pem", "key", "cnf"))
    config.write_text("[req]\ndistinguished_name = none\n[none]\n")
    ca = ["-CA", signer[0], "-CAkey", signer[1]] if signer else []
    subprocess.run(["openssl", "req", "-x509", "-config", config, *ca, "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                    "-addext", f"basicConstraints=critical,CA:{'FALSE' if signer else 'TRUE'}",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", chain],
                   check=True, capture_output=True, timeout=PATIENCE_S)
    return chain, key


class Doors:
    """A gateway with two listeners, one for TLS and one in the clear."""

    def __init__(self, mock, folder, more=""):
        authority = certify(folder, "authority")
        self.authority = authority[0]
        chain, key = certify(folder, "gateway", authority)
        listener = '[[listeners]]\naddress = "127.0.0.1:0"\n'
        tls = f'{listener}[listeners.tls]\ncertificates = [{{{{ chain = "{chain}", key = "{key}" }}}}]\n'
        routes = DEFAULT_ROUTE.replace("{", "{{").replace("}", "}}")
        self.gateway = start_gateway(mock, CONFIG.replace(listener, listener + tls, 1) + routes + more)
        lines = self.gateway.process.lines
        self.ports = {door: int(address(lines, f"listening on {scheme}://").rsplit(":", 1)[1])
                      for door, scheme in (("tls", "https"), ("clear", "http"))}

    def trust(self):
        return ssl.create_default_context(cafile=self.authority)

    def connect(self, door, *values, **options):
        """A client of HTTP/2 at one of the two."""
        from http2_peer import Peer  # which imports from here

        return Peer(self.ports[door], self.trust() if door == "tls" else None, *values, **options)

    def stop(self):
        alive = self.gateway.process.child.poll() is None
        self.gateway.process.stop()
        assert alive, "the gateway died:\n" + "\n".join(self.gateway.process.lines)


@pytest.fixture(scope="session")
def doors(mock, tmp_path_factory):
    doors = Doors(mock, tmp_path_factory.mktemp("doors"))
    yield doors
    doors.stop()


@pytest.fixture(params=["tls", "clear"])
def connect(request, doors):
    """Connects by HTTP/2; each test over TLS and in the clear."""
    peers = []

    def connect(*values, **options):
        peers.append(doors.connect(request.param, *values, **options))
        return peers[-1]

    connect.door = request.param
    yield connect
    for peer in peers:
        peer.close()


@pytest.fixture
def peer(connect):
    return connect()


def openai_client(gateway, key=KEY, **options):
    options = {"max_retries": 0, "timeout": PATIENCE_S} | options
    return openai.OpenAI(base_url=gateway.origin + "/v1", api_key=key, **options)


def anthropic_client(gateway, key=KEY, **options):
    options = {"max_retries": 0, "timeout": PATIENCE_S} | options
    return anthropic.Anthropic(base_url=gateway.origin, api_key=key, **options)


@pytest.fixture
def oai(gateway):
    with openai_client(gateway) as client:
        yield client


@pytest.fixture
def ant(gateway):
    with anthropic_client(gateway) as client:
        yield client


@pytest.fixture
def name(request):
    """A name for a request to the provider, unique to this test."""
    return "".join(c if c.isalnum() else "-" for c in request.node.name)
