"""A web page in a real browser calls a gateway of another origin: Chromium decides what the page may see.

Two pages, each from a port and so an origin of its own, call two gateways with fetch and report to their own server what
they saw. One gateway lists one of the pages, the other has no [cors].
"""

import http.server
import json
import os
import signal
import subprocess
import tempfile
import threading

import pytest

from conftest import CONFIG, DEFAULT_ROUTE, KEY, start_gateway

pytestmark = pytest.mark.gateway

# Starting a browser takes its time where cores are few.
BROWSER_PATIENCE_S = 120.0

PAGE = """<!doctype html><title>page</title>
<script>
const gateways = GATEWAYS, key = "KEY", seen = {};
const headers = { authorization: "Bearer " + key, "content-type": "application/json", "x-stainless-os": "Browser" };
const chat = (model, stream) => ({ method: "POST", headers,
  body: JSON.stringify({ model, stream, messages: [{ role: "user", content: "hi" }] }) });
const attempts = {
  stream: async (base) => {
    const answer = await fetch(base + "/v1/chat/completions", chat("mock:tokens=5,ttft=1ms,gap=100ms", true));
    const reader = answer.body.getReader(), decoder = new TextDecoder();
    let text = "", reads = 0;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      reads += 1;
      text += decoder.decode(value, { stream: true });
    }
    return { status: answer.status, type: answer.type, reads, text, id: answer.headers.get("x-request-id") };
  },
  unkeyed: async (base) => {
    const answer = await fetch(base + "/v1/models");
    const { error } = await answer.json();
    return { status: answer.status, code: error.code, origin: answer.headers.get("x-ringway-error-origin") };
  },
  limited: async (base) => {
    const answer = await fetch(base + "/v1/chat/completions", chat("mock:status=429,retry-after=7", false));
    return { status: answer.status, retry: answer.headers.get("retry-after"), server: answer.headers.get("server") };
  },
  listed: async (base) => (await (await fetch(base + "/v1/models", { headers })).json()).object,
  deleted: async (base) => (await fetch(base + "/nowhere", { method: "DELETE", headers })).status,
  talk: (base) => new Promise((resolve, reject) => {
    const protocols = ["realtime", "openai-insecure-api-key." + key], heard = [];
    const socket = new WebSocket(base.replace("http", "ws") + "/v1/realtime?model=mock:tokens=3,ttft=1ms", protocols);
    socket.onopen = () => socket.send(JSON.stringify({ type: "response.create" }));
    socket.onerror = () => reject("refused");
    socket.onmessage = ({ data }) => {
      heard.push(JSON.parse(data).type);
      if (heard.at(-1) === "response.done") socket.close(1000);
    };
    socket.onclose = ({ code, wasClean }) => resolve({ protocol: socket.protocol, heard, code, wasClean });
  }),
};
async function run() {
  for (const [gateway, base] of Object.entries(gateways)) {
    seen[gateway] = {};
    for (const [name, attempt] of Object.entries(attempts)) {
      try { seen[gateway][name] = await attempt(base); } catch (error) { seen[gateway][name] = String(error); }
    }
  }
  await fetch("/seen", { method: "POST", body: JSON.stringify(seen) });
}
run();
</script>
OTHER
"""


class Page:
    """Serves one page from a port of its own, and takes what its script reports."""

    def __init__(self):
        page = self
        self.text = ""
        self.seen = None
        self.reported = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = page.text.encode() if self.path == "/" else b""
                self.answer(200 if body else 404, body)

            def do_POST(self):
                page.seen = json.loads(self.rfile.read(int(self.headers["content-length"])))
                self.answer(204, b"")
                page.reported.set()

            def answer(self, status, body):
                self.send_response(status)
                self.send_header("content-type", "text/html; charset=utf-8")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def browse(url, pages, *more):
    """Opens `url` in a browser until each of `pages` has reported."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", *more]
        # It is to talk to this machine only.
        flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        flags += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--user-data-dir={folder}/profile"]
        with open(f"{folder}/log", "w+b") as log:
            command = ["chromium", *flags, "--remote-debugging-port=0", url]
            # A group of its own, so that all of its processes can be ended by its number.
            browser = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
            try:
                for page in pages:
                    if not page.reported.wait(BROWSER_PATIENCE_S):
                        log.seek(0)
                        pytest.fail("the page did not report; chromium wrote:\n" + log.read().decode(errors="replace"))
            finally:
                os.killpg(browser.pid, signal.SIGKILL)
                browser.wait()


@pytest.fixture(scope="module")
def pages(mock):
    """What the listed page and the other one have seen."""
    listed, other = Page(), Page()
    default = DEFAULT_ROUTE.replace("{", "{{").replace("}", "}}")
    with_cors = start_gateway(mock, CONFIG + default + f'[cors]\norigins = ["{listed.origin}"]\n')
    without = start_gateway(mock, CONFIG + default)
    gateways = json.dumps({"with": with_cors.origin, "without": without.origin})
    text = PAGE.replace("GATEWAYS", gateways).replace("KEY", KEY)
    other.text = text.replace("OTHER", "")
    listed.text = text.replace("OTHER", f'<iframe src="{other.origin}/"></iframe>')
    browse(listed.origin + "/", [listed, other])
    for gateway in (with_cors, without):
        gateway.process.stop()
    yield listed.seen, other.seen
    for page in (listed, other):
        page.server.shutdown()


def test_a_listed_page_reads_a_stream_as_it_comes(pages):
    stream = pages[0]["with"]["stream"]
    assert (stream["status"], stream["type"]) == (200, "cors"), stream
    assert stream["text"].endswith("data: [DONE]\n\n"), stream
    assert stream["reads"] >= 3, "events 100 ms apart came together"
    assert stream["id"], "the request's id is exposed"


def test_a_listed_page_reads_errors_and_what_their_headers_say(pages):
    seen = pages[0]["with"]
    assert seen["unkeyed"] == {"status": 401, "code": "missing_api_key", "origin": "client"}
    assert (seen["limited"]["status"], seen["limited"]["retry"]) == (429, "7"), seen
    assert seen["limited"]["server"] is None, "what is not exposed is hidden"
    assert (seen["listed"], seen["deleted"]) == ("list", 404), seen


def test_a_listed_page_talks_over_a_websocket_with_its_key_among_the_protocols(pages):
    talk = pages[0]["with"]["talk"]
    assert (talk["protocol"], talk["code"], talk["wasClean"]) == ("realtime", 1000, True), talk
    assert talk["heard"].count("response.output_text.delta") == 3 and talk["heard"][0] == "session.created", talk


def test_nobody_else_sees_anything(pages):
    listed, other = pages
    for name, seen in {"other page": other["with"], "no [cors]": listed["without"], "both": other["without"]}.items():
        assert len(seen) == 6, seen
        for attempt, outcome in seen.items():
            refused = "refused" if attempt == "talk" else "TypeError: Failed to fetch"
            assert outcome == refused, f"{name}, {attempt}: {outcome}"
