"""Clients that others have written, over HTTP/2: httpx, the SDKs, curl, nghttp, h2load and a browser."""

import asyncio
import json
import re
import subprocess

import anthropic
import httpx
import openai
import pytest

import http2_peer as h2
from conftest import KEY, PATIENCE_S, Doors, Mock
from test_browser import Page, browse
from test_curl import curl, large_body

pytestmark = pytest.mark.gateway

MODEL = "mock:ttft=1ms,gap=1ms,tokens=20"
HELLO = [{"role": "user", "content": "Say hello."}]
HEADERS = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}


@pytest.fixture(params=["tls", "clear"])
def door(request, doors):
    """The origin of one of the two, and what a client needs to be told to speak HTTP/2 there."""
    doors.door = request.param
    return doors


def origin(doors):
    return f"http{'s' if doors.door == 'tls' else ''}://localhost:{doors.ports[doors.door]}"


def options(doors, **more):
    """In the clear only who knows before speaks HTTP/2."""
    return {"http2": True, "http1": doors.door == "tls", "verify": doors.trust(), "timeout": PATIENCE_S} | more


def chat(model=MODEL, stream=True):
    return {"model": model, "stream": stream, "messages": HELLO}


# httpx.


def test_a_hundred_requests_at_once_on_one_connection(door):
    async def run():
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(base_url=origin(door), headers=HEADERS, limits=limits, **options(door)) as client:
            async def ask(n):
                answer = await client.post("/v1/chat/completions", json=chat(f"{MODEL},seed={n}", stream=n % 2 == 0))
                return answer.http_version, answer.status_code, answer.text

            return await asyncio.gather(*(ask(n) for n in range(100)))

    for n, (version, status, text) in enumerate(asyncio.run(run())):
        assert (version, status) == ("HTTP/2", 200), text
        assert text.endswith("data: [DONE]\n\n") if n % 2 == 0 else json.loads(text)["usage"]["completion_tokens"] == 20


def test_a_hundred_requests_that_are_refused_before_they_have_ended(door):
    async def run():
        limits = httpx.Limits(max_connections=1)
        headers = HEADERS | {"authorization": "Bearer nobody"}
        async with httpx.AsyncClient(base_url=origin(door), headers=headers, limits=limits, **options(door)) as client:
            body = chat() | {"padding": "x" * 50_000}
            return await asyncio.gather(*(client.post("/v1/chat/completions", json=body) for _ in range(100)))

    for answer in asyncio.run(run()):
        assert (answer.http_version, answer.status_code) == ("HTTP/2", 401), answer.text


@pytest.mark.parametrize("events", range(1, 6))
def test_an_event_is_not_held_back_until_the_next(door, events):
    with httpx.Client(base_url=origin(door), headers=HEADERS, **options(door)) as client:
        # The provider says so many and then nothing, for ever.
        body = chat(f"mock:ttft=1ms,gap=1ms,role=off,fault=stall@{events}")
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
            lines = (line for line in answer.iter_lines() if line)
            assert [next(lines)[:5] for _ in range(events)] == ["data:"] * events


def test_each_event_comes_alone(door):
    with httpx.Client(base_url=origin(door), headers=HEADERS, **options(door)) as client:
        with client.stream("POST", "/v1/chat/completions", json=chat("mock:ttft=1ms,gap=50ms,tokens=10")) as answer:
            reads = list(answer.iter_raw())
    assert b"".join(reads).endswith(b"data: [DONE]\n\n")
    assert len(reads) >= 8, "ten events 50 ms apart came together"


def test_a_large_upload_and_a_large_answer(door):
    with httpx.Client(base_url=origin(door), headers=HEADERS, **options(door)) as client:
        body = chat("mock:ttft=1ms,tokens=1000,token-bytes=1000", stream=False)
        body["messages"] = [{"role": "user", "content": "x" * (5 << 20)}]
        answer = client.post("/v1/chat/completions", json=body)
    assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
    assert len(answer.json()["choices"][0]["message"]["content"]) >= 1_000_000


# The SDKs. Their http_client is httpx2's by now; they still take one of httpx.


class Versions(list):
    """Notes by which HTTP each answer came."""

    def hooks(self):
        return {"event_hooks": {"response": [lambda answer: self.append(answer.http_version)]}}


@pytest.fixture(params=["default", "httpx"])
def oai2(request, door):
    versions = Versions()
    make = openai.DefaultHttpxClient if request.param == "default" else httpx.Client
    http = make(**options(door, **versions.hooks()))
    more = {"max_retries": 0, "timeout": PATIENCE_S, "http_client": http}
    with openai.OpenAI(base_url=origin(door) + "/v1", api_key=KEY, **more) as client:
        yield client
    assert versions and set(versions) == {"HTTP/2"}


@pytest.fixture
def ant2(door):
    versions = Versions()
    http = anthropic.DefaultHttpxClient(**options(door, **versions.hooks()))
    more = {"max_retries": 0, "timeout": PATIENCE_S, "http_client": http}
    with anthropic.Anthropic(base_url=origin(door), api_key=KEY, **more) as client:
        yield client
    assert versions and set(versions) == {"HTTP/2"}


def test_openai_whole_and_streamed(oai2):
    whole = oai2.chat.completions.create(model=MODEL, messages=HELLO)
    assert whole.usage.completion_tokens == 20
    chunks = list(oai2.chat.completions.create(model=MODEL, messages=HELLO, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_openai_errors(oai2):
    with pytest.raises(openai.RateLimitError) as limited:
        oai2.chat.completions.create(model="mock:status=429,retry-after=7", messages=HELLO)
    assert limited.value.response.headers["retry-after"] == "7"
    assert limited.value.response.http_version == "HTTP/2"
    with pytest.raises(openai.AuthenticationError) as unknown:
        oai2.with_options(api_key="sk-nobody").models.list()
    assert unknown.value.response.headers["x-ringway-error-origin"] == "client"
    with pytest.raises(openai.APIError) as cut:
        list(oai2.chat.completions.create(model="mock:ttft=1ms,gap=1ms,fault=cut@5", messages=HELLO, stream=True))
    assert cut.value.code == "upstream_truncated"


def test_openai_gives_up_a_stream_and_goes_on(oai2, mock, name):
    stream = oai2.chat.completions.create(model=f"mock:ttft=1ms,gap=5ms,tokens=100,id={name}", messages=HELLO, stream=True)
    assert next(iter(stream))
    stream.close()
    assert oai2.chat.completions.create(model=MODEL, messages=HELLO).usage.completion_tokens == 20


def test_anthropic_whole_streamed_and_errors(ant2):
    whole = ant2.messages.create(model=MODEL, max_tokens=100, messages=HELLO)
    with ant2.messages.stream(model=MODEL, max_tokens=100, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text == whole.content[0].text and final.usage.output_tokens == 20
    with pytest.raises(anthropic.RateLimitError) as limited:
        ant2.messages.create(model="mock:status=429", max_tokens=100, messages=HELLO)
    assert limited.value.response.http_version == "HTTP/2"
    assert limited.value.body["type"] == "error"


# curl.


def curl2(doors, path, *args, **more):
    """curl by HTTP/2; a path more than once asks so often."""
    way = ["--http2", "--cacert", doors.authority] if doors.door == "tls" else ["--http2-prior-knowledge"]
    headers = (word for name, value in HEADERS.items() for word in ("-H", f"{name}: {value}"))
    return curl(*way, *headers, *args, origin(doors) + path, **more)


def test_curl_speaks_it(door):
    out = curl2(door, "/v1/models", "-w", "\n%{http_version} %{http_code}").decode()
    assert out.endswith("\n2 200") and json.loads(out[:-6])["object"] == "list"
    lines = curl2(door, "/v1/chat/completions", "-N", "-d", json.dumps(chat())).decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]


def test_curl_uploads_a_mebibyte(door):
    out = curl2(door, "/v1/chat/completions", "--data-binary", "@-", "-w", "\n%{http_version}", stdin=large_body(1 << 20))
    assert out.endswith(b"\n2") and json.loads(out[:-2])["object"] == "chat.completion"


def test_curl_waits_for_100_continue(door):
    answer = curl2(door, "/v1/chat/completions", "-H", "Expect: 100-continue", "--data-binary", "@-", stdin=large_body(2 << 20))
    assert json.loads(answer)["object"] == "chat.completion"


def test_curl_asks_twenty_times_at_once(door):
    url = "/v1/chat/completions"
    urls = [word for _ in range(19) for word in ("-o", "/dev/null", origin(door) + url)]
    body = json.dumps(chat("mock:ttft=20ms,gap=1ms,tokens=20"))
    # With prior knowledge curl 7.88 begins streams before the connection they share, and fails by itself: one for each then.
    more = [] if door.door == "tls" else ["--parallel-immediate"]
    out = curl2(door, url, "--parallel", "--parallel-max", "20", *more, "-d", body, "-o", "/dev/null",
                "-w", "%{http_version} %{http_code} %{num_connects}\n", *urls).decode().splitlines()
    assert [line[:5] for line in out] == ["2 200"] * 20
    assert more or sum(int(line.split()[2]) for line in out) == 1, "by ALPN they share one connection"


def test_curl_is_told_of_a_stream_that_was_cut(door):
    # 92: a stream error of HTTP/2.
    body = json.dumps(chat("mock:ttft=1ms,gap=1ms,tokens=50,fault=cut@5"))
    answer = curl2(door, "/v1/chat/completions", "-N", "-d", body, status=92)
    assert b"[DONE]" not in answer


# nghttp and h2load.


def run(*command):
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
    return done.stdout.decode()


def test_nghttp_speaks_it(door, tmp_path):
    body = tmp_path / "body"
    body.write_text(json.dumps(chat()))
    headers = [f"-H{name}: {value}" for name, value in HEADERS.items()]
    # Five times, padded and in frames of its own making.
    out = run("nghttp", "-v", "-m", "5", "-b", "100", "-d", str(body), *headers, origin(door) + "/v1/chat/completions")
    assert len(re.findall(r"\) :status: 200", out)) == 5, out
    assert out.count("data: [DONE]") == 5
    assert "RST_STREAM" not in out and "recv GOAWAY" not in out, out


def test_h2load_is_answered_each_time(door, tmp_path):
    body = tmp_path / "body"
    body.write_text(json.dumps(chat("mock:ttft=1ms,gap=0,tokens=5")))
    headers = [f"-H{name}: {value}" for name, value in HEADERS.items()]
    out = run("h2load", "-n", "600", "-c", "3", "-m", "50", "-d", str(body), *headers, origin(door) + "/v1/chat/completions")
    assert "requests: 600 total, 600 started, 600 done, 600 succeeded, 0 failed, 0 errored, 0 timeout" in out, out
    assert "status codes: 600 2xx" in out, out


def test_h2load_goes_on_where_connections_end(mock, tmp_path):
    doors = Doors(mock, tmp_path, "[client]\nrequests_max = 100\n")
    try:
        headers = [f"-H{name}: {value}" for name, value in HEADERS.items()]
        out = run("h2load", "-n", "100", "-c", "1", "-m", "10", *headers, f"https://localhost:{doors.ports['tls']}/v1/models")
        assert "100 succeeded, 0 failed, 0 errored" in out, out
    finally:
        doors.stop()


# A client that leaves.

PHASES = {
    "before-the-head": "mock:fault=never", "not-streamed": "mock:ttft=3600s",
    "before-the-first-event": "mock:ttft=3600s,head=early",
    "between-events": "mock:ttft=1ms,gap=1ms,fault=stall@3", "while-events-come": "mock:ttft=1ms,gap=5ms,tokens=100000"}


def begun(peer, mock, name, phase):
    """A stream in that phase."""
    stream = peer.chat(f"{PHASES[phase]},id={name}", phase != "not-streamed")
    if "-events" in phase and "before" not in phase:
        peer.pump(lambda: peer.on(stream).pieces)
    else:
        mock.request_when(name, "in_flight")
    return stream


@pytest.mark.parametrize("code", [h2.CANCEL, h2.NO_ERROR])
@pytest.mark.parametrize("phase", PHASES)
def test_a_stream_that_is_reset_cancels_the_provider_and_no_other(peer, mock, name, phase, code):
    other = peer.chat(f"mock:ttft=1ms,gap=1ms,fault=stall@3,id={name}-other")
    peer.pump(lambda: peer.on(other).pieces)
    stream = begun(peer, mock, name, phase)
    peer.send(h2.reset(stream, code))
    seen = mock.request_when(name, "cancelled")
    assert seen["events_out"] < 10_000
    assert mock.request(f"{name}-other")["state"] == "in_flight"
    peer.is_served()


@pytest.mark.parametrize("phase", PHASES)
def test_a_connection_that_is_closed_cancels_all(peer, mock, name, phase):
    names = [f"{name}-{n}" for n in range(3)]
    for each in names:
        begun(peer, mock, each, phase)
    peer.close()
    for each in names:
        mock.request_when(each, "cancelled")


def test_a_client_that_gives_up_waiting_cancels_the_provider(door, mock, name):
    with httpx.Client(base_url=origin(door), headers=HEADERS, **options(door, timeout=0.3)) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/chat/completions", json=chat(f"mock:fault=never,id={name}"))
    mock.request_when(name, "cancelled")


# A browser.

PAGE = """<!doctype html><title>page</title>
<script>
const base = "BASE", headers = { authorization: "Bearer KEY", "content-type": "application/json" };
const chat = (model) => ({ method: "POST", headers, body: JSON.stringify({ model, stream: true, messages: [] }) });
async function stream() {
  const answer = await fetch(base + "/v1/chat/completions", chat("mock:tokens=5,ttft=1ms,gap=100ms"));
  const reader = answer.body.getReader(), decoder = new TextDecoder();
  let text = "", reads = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return { status: answer.status, text, reads };
    reads += 1;
    text += decoder.decode(value, { stream: true });
  }
}
async function run() {
  const seen = {};
  try {
    seen.streams = await Promise.all([...Array(10)].map(stream));
    const cut = fetch(base + "/v1/chat/completions", chat("mock:tokens=5,ttft=1ms,gap=1ms,fault=cut@2"));
    seen.cut = await cut.then((answer) => answer.text()).catch(String);
    const control = new AbortController();
    const long = { ...chat("mock:tokens=100000,gap=5ms,id=aborted"), signal: control.signal };
    const aborted = await fetch(base + "/v1/chat/completions", long);
    await aborted.body.getReader().read();
    control.abort();
  } catch (error) { seen.error = String(error); }
  await fetch("/seen", { method: "POST", body: JSON.stringify(seen) });
}
run();
</script>
"""


def test_a_browser_streams_over_http2(tmp_path):
    mock, page = Mock(), Page()
    doors = Doors(mock, tmp_path, f'[cors]\norigins = ["{page.origin}"]\n')
    try:
        page.text = PAGE.replace("BASE", f"https://127.0.0.1:{doors.ports['tls']}").replace("KEY", KEY)
        netlog = tmp_path / "netlog.json"
        browse(page.origin + "/", [page], "--ignore-certificate-errors", f"--log-net-log={netlog}")
        seen = page.seen
        assert "error" not in seen, seen
        for stream in seen["streams"]:
            assert stream["status"] == 200 and stream["text"].endswith("data: [DONE]\n\n"), stream
            assert stream["reads"] >= 3, "events 100 ms apart came together"
        assert "Error" in seen["cut"] and "[DONE]" not in seen["cut"], seen["cut"]
        mock.request_when("aborted", "cancelled")
        assert '"next_proto":"h2"' in netlog.read_text() or '"negotiated_protocol":"h2"' in netlog.read_text()
    finally:
        doors.stop()
        mock.process.stop()
        page.server.shutdown()
