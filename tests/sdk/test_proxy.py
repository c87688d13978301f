"""A provider behind tinyproxy, with and without the password that it wants."""

import socket
import subprocess
import tempfile
import time

import openai
import pytest

from conftest import CONFIG, PATIENCE_S, openai_client, start_gateway

pytestmark = pytest.mark.gateway

PROXY = """
Port {port}
Listen 127.0.0.1
Allow 127.0.0.1
Timeout 60
BasicAuth team p4ssw0rd
"""


def start_proxy():
    """It takes no port 0, so one that was free a moment ago is tried, more than once."""
    for _ in range(10):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            file.write(PROXY.format(port=port))
            file.flush()
            child = subprocess.Popen(["tinyproxy", "-d", "-c", file.name], stdout=subprocess.DEVNULL)
            start = time.monotonic()
            while child.poll() is None and time.monotonic() - start < PATIENCE_S:
                try:
                    socket.create_connection(("127.0.0.1", port), PATIENCE_S).close()
                    return child, port
                except ConnectionRefusedError:
                    time.sleep(0.005)
        child.kill()
        child.wait()
    raise AssertionError("tinyproxy found no free port")


@pytest.fixture(scope="module")
def proxy():
    child, port = start_proxy()
    yield port
    child.kill()
    child.wait()


def ask(mock, proxy, credentials, stream):
    line = f'proxy = "http://{credentials}127.0.0.1:{proxy}"\n[[providers.endpoints]]'
    gateway = start_gateway(mock, CONFIG.replace("[[providers.endpoints]]", line))
    try:
        with openai_client(gateway) as client:
            messages = [{"role": "user", "content": "hi"}]
            answer = client.chat.completions.create(model="mock", messages=messages, stream=stream)
            return len(list(answer)) if stream else answer.choices[0].message.content
    finally:
        gateway.process.stop()


def test_calls_and_streams_go_through_the_tunnel(mock, proxy):
    assert ask(mock, proxy, "team:p4ssw0rd@", stream=False)
    assert ask(mock, proxy, "team:p4ssw0rd@", stream=True) > 2


@pytest.mark.parametrize("credentials", ["", "team:wrong@"])
def test_a_proxy_that_wants_other_credentials_is_named_as_the_one_at_fault(mock, proxy, credentials):
    with pytest.raises(openai.APIStatusError) as refused:
        ask(mock, proxy, credentials, stream=False)
    assert refused.value.status_code == 502
    assert refused.value.code == "proxy_failed"
    assert "its proxy refused" in refused.value.message and "wrong" not in refused.value.message
