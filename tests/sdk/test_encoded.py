"""Encoded bodies, by encoders and decoders that are not the gateway's: Python's zlib, Google's brotli, Python's zstd."""

import gzip
import json
import threading
import urllib.request
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import brotli
import openai
import pytest
from backports import zstd

from conftest import CONFIG, DEFAULT_ROUTE, KEY, start_gateway
from test_curl import curl

pytestmark = pytest.mark.gateway

CODINGS = ["gzip", "deflate", "raw-deflate", "br", "zstd"]
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
WORDS = ["Grüße", ", ", "深度"]


class Encoder:
    """One body, flushed after each piece."""

    def __init__(self, coding):
        window = {"gzip": 31, "deflate": 15, "raw-deflate": -15}
        if coding in window:
            one = zlib.compressobj(6, zlib.DEFLATED, window[coding])
            self.piece = lambda data: one.compress(data) + one.flush(zlib.Z_SYNC_FLUSH)
            self.end = one.flush
        elif coding == "br":
            one = brotli.Compressor()
            self.piece = lambda data: one.process(data) + one.flush()
            self.end = one.finish
        else:
            one = zstd.ZstdCompressor(options={zstd.CompressionParameter.checksum_flag: 1})
            self.piece = lambda data: one.compress(data, zstd.ZstdCompressor.FLUSH_BLOCK)
            self.end = one.flush


class Provider(BaseHTTPRequestHandler):
    """Answers every call in the coding that its model names. Sends an event only once the one before it was seen."""

    protocol_version = "HTTP/1.1"
    seen = threading.Semaphore(0)

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        call = json.loads(body)
        seen = Provider.seen
        encoder = Encoder(call["model"])
        self.send_response(200)
        self.send_header("content-encoding", call["model"].removeprefix("raw-"))
        if call.get("stream"):
            self.send_header("content-type", "text/event-stream")
        else:
            self.send_header("content-type", "application/json")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        if not call.get("stream"):
            echo = {"was_encoded": "content-encoding" in self.headers, "bytes": len(body)}
            message = {"role": "assistant", "content": json.dumps(echo)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": USAGE}
            self.chunk(encoder.piece(json.dumps(answer).encode()))
        else:
            for word in WORDS:
                self.event(encoder, [{"index": 0, "delta": {"content": word}}])
                assert seen.acquire(timeout=20), "an event was held back"
            self.event(encoder, [{"index": 0, "delta": {}, "finish_reason": "stop"}])
            if call.get("stream_options", {}).get("include_usage"):
                self.event(encoder, [], USAGE)
            self.chunk(encoder.piece(b"data: [DONE]\n\n"))
        self.chunk(encoder.end())
        self.wfile.write(b"0\r\n\r\n")

    def event(self, encoder, choices, usage=None):
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices, "usage": usage}
        self.chunk(encoder.piece(b"data: " + json.dumps(chunk).encode() + b"\n\n"))

    def chunk(self, data):
        if data:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()


class Origin:
    def __init__(self, server):
        self.origin = f"http://127.0.0.1:{server.server_port}"


@pytest.fixture(scope="module")
def encoding():
    """A gateway in front of a provider that encodes whatever it says."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    gateway = start_gateway(Origin(server), CONFIG + DEFAULT_ROUTE.replace("{", "{{").replace("}", "}}"))
    yield gateway
    gateway.process.stop()
    server.shutdown()


def sdk(gateway):
    return openai.OpenAI(base_url=gateway.origin + "/v1", api_key=KEY, max_retries=0, timeout=30)


@pytest.mark.parametrize("usage", [True, False], ids=["passes", "is-decoded"])
@pytest.mark.parametrize("coding", CODINGS)
def test_the_sdk_has_each_event_before_the_next_is_sent(encoding, coding, usage):
    Provider.seen = threading.Semaphore(0)
    options = {"stream_options": {"include_usage": True}} if usage else {}
    messages = [{"role": "user", "content": "hi"}]
    stream = sdk(encoding).chat.completions.create(model=coding, messages=messages, stream=True, **options)
    assert stream.response.headers.get("content-encoding") == (coding.removeprefix("raw-") if usage else None)
    words, told = [], None
    for chunk in stream:
        told = chunk.usage or told
        if chunk.choices and chunk.choices[0].delta.content:
            words.append(chunk.choices[0].delta.content)
            Provider.seen.release()
    assert words == WORDS
    assert (told.total_tokens if told else None) == (10 if usage else None)


@pytest.mark.parametrize("coding", CODINGS)
def test_the_sdk_reads_a_whole_answer(encoding, coding):
    messages = [{"role": "user", "content": "hi"}]
    answer = sdk(encoding).chat.completions.create(model=coding, messages=messages)
    assert answer.usage.total_tokens == 10


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("coding", CODINGS)
def test_curl_reads_what_it_takes_and_is_sent_the_rest_decoded(encoding, coding, compressed):
    # A coding that this build of curl does not know is none that it takes.
    takes = ["--compressed"] if compressed else ["-H", "Accept-Encoding: identity"]
    body = json.dumps({"model": coding, "messages": []})
    answer = curl(encoding.origin + "/v1/chat/completions", "-H", f"Authorization: Bearer {KEY}", "-d", body, *takes)
    assert json.loads(answer)["usage"] == USAGE


@pytest.mark.parametrize("coding", CODINGS)
def test_an_encoded_request_is_understood(encoding, coding):
    body = json.dumps({"model": "gzip", "messages": [{"role": "user", "content": "深度" * 50_000}]}).encode()
    encoder = Encoder(coding)
    packed = encoder.piece(body) + encoder.end()
    headers = {"authorization": f"Bearer {KEY}", "content-encoding": coding.removeprefix("raw-")}
    headers |= {"accept-encoding": "identity", "content-type": "application/json"}
    call = urllib.request.Request(encoding.origin + "/v1/chat/completions", data=packed, headers=headers)
    with urllib.request.urlopen(call, timeout=30) as answer:
        echo = json.loads(json.load(answer)["choices"][0]["message"]["content"])
    assert echo == {"was_encoded": False, "bytes": len(body)}


def test_curl_sends_a_gzip_file(encoding):
    body = gzip.compress(json.dumps({"model": "br", "messages": []}).encode())
    headers = ["-H", f"Authorization: Bearer {KEY}", "-H", "Content-Encoding: gzip", "-H", "Accept-Encoding: identity"]
    url = encoding.origin + "/v1/chat/completions"
    assert json.loads(curl(url, *headers, "--data-binary", "@-", stdin=body))["usage"] == USAGE
    chunked = ["-H", "Transfer-Encoding: chunked"]
    assert json.loads(curl(url, *headers, *chunked, "--data-binary", "@-", stdin=body))["usage"] == USAGE
    refused = curl(url, *headers, "-H", "Content-Encoding: compress", "-i", "--data-binary", "@-", stdin=body).decode()
    assert refused.startswith("HTTP/1.1 415") and "accept-encoding: gzip, deflate, br, zstd" in refused
