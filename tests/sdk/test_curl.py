"""curl: what an engineer types first, and the corners of HTTP/1 that SDKs do not reach."""

import json
import subprocess

import pytest

from conftest import KEY

FAST = "ttft=1ms,gap=1ms"


def curl(*args, stdin=None, status=0):
    """Runs curl and returns what it wrote. `status` is its exit code: 18 is a transfer that was cut."""
    command = ["curl", "--silent", "--show-error", "--max-time", "30", *args]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60)
    assert done.returncode == status, f"exit {done.returncode}: {done.stderr.decode()}\n{done.stdout[:2000]!r}"
    return done.stdout


def chat(gateway, *args, body=None, model=f"mock:{FAST},tokens=5", stream=False, **options):
    if body is None:
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream})
    data = () if body is False else ("-d", body)
    headers = ("-H", f"Authorization: Bearer {KEY}", "-H", "Content-Type: application/json")
    return curl(gateway.origin + "/v1/chat/completions", *headers, *data, *args, **options)


def test_a_stream_is_printed_as_it_comes(gateway):
    lines = chat(gateway, "-N", stream=True).decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    assert all(line.startswith("data: ") for line in lines[:-1])


def test_a_cut_stream_is_no_success(gateway):
    answer = chat(gateway, "-N", model=f"mock:{FAST},tokens=50,fault=cut@5", stream=True, status=18)
    assert b"[DONE]" not in answer


def test_the_head_says_what_it_is(gateway):
    whole, stream = (chat(gateway, "-D", "-", "-o", "/dev/null", stream=s).decode().lower() for s in (False, True))
    assert whole.startswith("http/1.1 200") and "content-type: application/json" in whole
    assert stream.startswith("http/1.1 200") and "content-type: text/event-stream" in stream
    assert "content-length" not in stream and "transfer-encoding: chunked" in stream


def test_head_has_no_body(gateway):
    answer = curl("--head", gateway.origin + "/v1/models", "-H", f"Authorization: Bearer {KEY}").decode()
    assert answer.startswith("HTTP/1.1 ")
    assert answer.endswith("\r\n\r\n")


def test_http_1_0_is_answered_without_chunks(gateway):
    head = chat(gateway, "--http1.0", "-D", "-", "-o", "/dev/null", stream=True).decode().lower()
    assert "transfer-encoding" not in head
    lines = chat(gateway, "--http1.0", "-N", stream=True).decode()
    assert lines.endswith("data: [DONE]\n\n")


def large_body(size, model=f"mock:{FAST},tokens=5"):
    frame = json.dumps({"model": model, "messages": [{"role": "user", "content": ""}]})
    front, back = frame.rsplit('""', 1)
    return (front + '"' + "x" * (size - len(frame)) + '"' + back).encode()


def test_a_large_body_waits_for_100_continue(gateway):
    body = large_body(2 << 20)
    answer = chat(gateway, "-H", "Expect: 100-continue", "-v", "--data-binary", "@-", body=False, stdin=body)
    assert json.loads(answer)["object"] == "chat.completion"


def test_16_mib_pass(gateway):
    answer = chat(gateway, "--data-binary", "@-", body=False, stdin=large_body(16 << 20))
    assert json.loads(answer)["object"] == "chat.completion"


@pytest.mark.gateway
def test_more_than_the_limit_is_413(gateway):
    body = large_body((32 << 20) + 1)
    answer = chat(gateway, "--data-binary", "@-", "-w", "\n%{http_code}", body=False, stdin=body)
    assert answer.endswith(b"\n413")
    assert json.loads(answer[:-4])["error"]["message"]


def test_a_chunked_upload_is_read(gateway):
    for size in (200, 300_000):
        body = large_body(size)
        answer = chat(gateway, "-H", "Transfer-Encoding: chunked", "--data-binary", "@-", body=False, stdin=body)
        assert json.loads(answer)["object"] == "chat.completion", size


def test_multipart_with_the_file_before_the_model(gateway, tmp_path):
    sound = tmp_path / "speech.wav"
    sound.write_bytes(bytes(range(256)) * 4096)
    code = curl(
        gateway.origin + "/v1/audio/transcriptions",
        *("-H", f"Authorization: Bearer {KEY}"),
        *("-F", f"file=@{sound}", "-F", f"model=mock:{FAST}"),
        *("-w", "\n%{http_code}"),
    )
    # The provider has no such endpoint and says so itself; a gateway that could not route would say 400 or drop it.
    status, body = code.rsplit(b"\n", 1)[1], code.rsplit(b"\n", 1)[0]
    assert status in (b"200", b"404"), code[:500]
    assert body


def test_many_requests_share_a_connection(gateway):
    url = gateway.origin + "/v1/models"
    out = curl("-H", f"Authorization: Bearer {KEY}", "-w", "%{num_connects}\n", "-o", "/dev/null", url, "-o", "/dev/null", url)
    assert sorted(out.decode().split()) == ["0", "1"]


@pytest.mark.gateway
def test_no_key_is_401_and_a_key_is_never_shown(gateway):
    answer = curl(gateway.origin + "/v1/models", "-D", "-").decode()
    assert answer.startswith("HTTP/1.1 401")
    assert "x-ringway-error-origin: client" in answer.lower()


@pytest.mark.gateway
def test_credentials_and_cookies_stay_here(gateway):
    echo = json.loads(chat(gateway, "-H", "Cookie: secret=1", "-H", "X-Custom: kept", model="mock:echo=on"))
    text = json.dumps(echo).lower()
    assert KEY not in text and "secret=1" not in text
    assert "kept" in text
    assert "sk-sdk-provider" in text
    assert "accept-encoding" in text and "identity" in text


@pytest.mark.gateway
def test_an_absolute_target_is_understood(gateway):
    answer = chat(gateway, "--request-target", gateway.origin + "/v1/chat/completions")
    assert json.loads(answer)["object"] == "chat.completion"


def test_an_encoded_answer_passes_unharmed(gateway):
    plain = json.loads(chat(gateway))
    packed = json.loads(chat(gateway, "--compressed", model=f"mock:{FAST},tokens=5,gzip=on"))
    assert packed["choices"] == plain["choices"]
