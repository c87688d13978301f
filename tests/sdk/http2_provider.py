"""A provider that says in HTTP/2 whatever a test has it say to the gateway, its client, and watches what it is asked.

Nothing is answered that a test does not answer; settings are acknowledged and windows opened. Every frame from the gateway
is held against the rules that hold always for a client (`_judge`): how a connection begins, sizes, windows, states, numbers
of streams, what a request's head may be. A test of one rule so tests these too.
"""

import json
import socket
import ssl

import h11
import hpack

import http2_peer as h2
from conftest import CONFIG, DEFAULT_ROUTE, KEY, PATIENCE_S, certify, start_gateway
from http2_peer import frame

PATH = "/v1/chat/completions"
JSON_HEAD = [(":status", "200"), ("content-type", "application/json")]
EVENTS_HEAD = [(":status", "200"), ("content-type", "text/event-stream")]
WHOLE = b'{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant",' \
        b'"content":"whole"},"finish_reason":"stop"}]}'
BEGUN = b'data: {"choices":[{"index":0,"delta":{"content":"begun"}}]}\n\n'
REST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
PSEUDO = [b":method", b":scheme", b":authority", b":path"]


class Asked:
    """What has come on one stream."""

    def __init__(self, fields, window):
        self.fields = fields
        self.window = window
        self.pieces = []
        self.trailers = None
        self.ended = False
        self.reset = None
        # We have ended or reset it as well.
        self.closed = False

    @property
    def over(self):
        return self.ended or self.reset is not None

    @property
    def body(self):
        return b"".join(self.pieces)

    def get(self, name):
        return next((value for known, value in self.fields if known == name), None)

    def __repr__(self):
        return f"<{self.get(b':path')} ended={self.ended} reset={self.reset} {self.body[:100]!r}>"


class Host(h2.Peer):
    """One connection of the gateway's."""

    def __init__(self, sock, secure, values=(), hello=True):
        self.sock, self.scheme = sock, b"https" if secure else b"http"
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.input, self.prefaced, self.settings = b"", False, None
        self.acks, self.pongs, self.goaways, self.closed, self.frames = 0, [], [], False, []
        self.mine = {h2.INITIAL_WINDOW: h2.WINDOW, h2.FRAME_MAX: 16384, h2.STREAMS_MAX: 1 << 32}
        self.unacknowledged, self.window = [], h2.WINDOW
        # 3.4: neither ahead of our settings.
        self.grants = self.acknowledges = hello
        # What we may send, and on each stream.
        self.may_send, self.may_send_on = h2.WINDOW, {}
        self.asked, self.answered, self.last, self.open_block = {}, set(), 0, None
        if hello:
            self.send(self.own_settings(values))

    def _take(self):
        if not self.prefaced:
            if len(self.input) < len(h2.PREFACE):
                return None
            assert self.input.startswith(h2.PREFACE), f"3.4: {self.input[:50]}"
            self.prefaced, self.input = True, self.input[len(h2.PREFACE):]
        return super()._take()

    # What we are asked.

    def request(self):
        """Waits for the next whole request that was not taken yet; returns its stream."""
        self.pump(lambda: self.closed or any(self._is_new(stream) for stream in self.asked))
        stream = next((stream for stream in self.asked if self._is_new(stream)), None)
        assert stream, f"closed: {self!r}"
        self.answered.add(stream)
        return stream

    def _is_new(self, stream):
        return self.asked[stream].ended and stream not in self.answered

    def on(self, stream):
        return self.asked[stream]

    def _judge(self, got, length, flags):
        kind, stream = got.type, got.stream_id
        self.frames.append((kind, flags, stream, length))
        assert self.settings is not None or (kind == h2.SETTINGS and not flags & h2.ACK), f"3.4: first came {got!r}"
        assert length <= self.mine[h2.FRAME_MAX], f"4.2: {length} bytes: {got!r}"
        if self.open_block:
            assert (kind, stream) == (h2.CONTINUATION, self.open_block[0]), f"4.3: {got!r}"
        if stream and kind not in (h2.HEADERS, h2.PRIORITY, h2.CONTINUATION):
            assert stream in self.asked, f"5.1: an idle stream: {got!r}"
            asked = self.asked[stream]
            assert kind in (h2.WINDOW_UPDATE, h2.RST_STREAM) or not asked.ended, f"5.1: half-closed: {got!r}"
            assert asked.reset is None, f"5.1: closed: {got!r}"
        match kind:
            case h2.DATA:
                self._data(got, length)
            case h2.HEADERS | h2.CONTINUATION:
                self._block(got, stream, flags)
            case h2.RST_STREAM:
                self.asked[stream].reset = got.error_code
            case h2.SETTINGS if flags & h2.ACK:
                self.acks += 1
                assert self.unacknowledged, "6.5.3: more acknowledgements than settings"
                for key, value in self.unacknowledged.pop(0):
                    if key == h2.INITIAL_WINDOW:
                        for asked in self.asked.values():
                            asked.window += value - self.mine[key]
                    self.mine[key] = value
            case h2.SETTINGS:
                self._settings(got.settings)
            case h2.PING if flags & h2.ACK:
                self.pongs.append(got.opaque_data)
            case h2.PING:
                self.send(h2.ping(got.opaque_data, h2.ACK))
            case h2.GOAWAY:
                assert got.last_stream_id == 0, f"6.8: we have begun none: {got!r}"
                self.goaways.append((got.last_stream_id, got.error_code))
            case h2.WINDOW_UPDATE:
                assert 0 < got.window_increment < 1 << 31, f"6.9: {got!r}"
                if stream:
                    self.may_send_on[stream] = self.room(stream) + got.window_increment
                    assert self.may_send_on[stream] < 1 << 31, f"6.9.1: {got!r}"
                else:
                    self.may_send += got.window_increment
                    assert self.may_send < 1 << 31, f"6.9.1: {got!r}"
            case _:
                raise AssertionError(f"8.4, 5.3.2: not for a client to send: {got!r}")

    def _block(self, got, stream, flags):
        if got.type == h2.HEADERS:
            assert not flags & h2.PRIORITIZED, f"5.3.2: {got!r}"
            self.open_block = (stream, got.data, bool(flags & h2.END_STREAM))
        else:
            assert self.open_block, f"6.10: {got!r}"
            self.open_block = (stream, self.open_block[1] + got.data, self.open_block[2])
        if not flags & h2.END_HEADERS:
            return
        (_, block, end), self.open_block = self.open_block, None
        fields = [(bytes(name), bytes(value)) for name, value in self.decoder.decode(block, raw=True)]
        self._judge_fields(fields)
        if (asked := self.asked.get(stream)) is not None:
            assert asked.reset is None and not asked.ended, f"5.1: {got!r}"
            assert end, f"8.1: trailers that do not end it: {fields}"
            assert not any(name.startswith(b":") for name, _ in fields), f"8.1: {fields}"
            asked.trailers, asked.ended = fields, True
            return
        assert stream % 2 == 1 and stream > self.last, f"5.1.1: {stream} after {self.last}"
        self.last = stream
        self._judge_request(fields)
        self.asked[stream] = Asked(fields, self.mine[h2.INITIAL_WINDOW])
        self.asked[stream].ended = end
        assert len(self.under_way()) <= self.mine[h2.STREAMS_MAX], f"5.1.2: {self!r}"

    def under_way(self):
        """Streams that are open to the gateway, for all that it can know."""
        return [stream for stream, asked in self.asked.items() if asked.reset is None and not asked.closed]

    @staticmethod
    def _judge_fields(fields):
        for name, value in fields:
            assert name == name.lower(), f"8.2.1: {name}"
            assert not set(name[1:]) & set(b':\x7f "(),/;<=>?@[\\]{}'), f"8.2.1: {name}"
            assert value == value.strip(b" \t") and not set(value) & {0, 10, 13}, f"8.2.1: {name} {value}"
            assert name not in h2.HOP_BY_HOP, f"8.2.2: {name}"
            assert name != b"te" or value == b"trailers", f"8.2.2: {value}"

    def _judge_request(self, fields):
        pseudo = [name for name, _ in fields if name.startswith(b":")]
        assert sorted(pseudo) == sorted(PSEUDO), f"8.3.1: each once: {fields}"
        assert [name for name, _ in fields[:4]] == pseudo, f"8.3: ahead of all others: {fields}"
        head = dict(fields[:4])
        assert head[b":scheme"] == self.scheme and head[b":method"], f"8.3.1: {fields}"
        assert head[b":path"].startswith(b"/") or head[b":path"] == b"*", f"8.3.1: {fields}"
        assert head[b":authority"] and b"@" not in head[b":authority"], f"8.3.1: {fields}"
        assert b"host" not in dict(fields), f"8.3.1: {fields}"
        lengths = [value for name, value in fields if name == b"content-length"]
        assert len(lengths) <= 1 and all(value.isdigit() for value in lengths), f"8.1.1: {fields}"

    def _data(self, got, length):
        asked = self.asked[got.stream_id]
        self.window -= length
        asked.window -= length
        assert length == 0 or (self.window >= 0 and asked.window >= 0), f"6.9.1: {self.window}, {asked.window}: {got!r}"
        asked.pieces.append(got.data)
        asked.ended = "END_STREAM" in got.flags
        said = asked.get(b"content-length")
        if asked.ended and said is not None:
            assert len(asked.body) == int(said), f"8.1.1: {len(asked.body)} of {said}"
        if self.grants and length:
            self.grant(0, length)
            if not asked.ended:
                self.grant(got.stream_id, length)

    def _settings(self, values):
        assert values.get(h2.ENABLE_PUSH, 1) in (0, 1), f"6.5.2: {values}"
        assert values.get(h2.FRAME_MAX, 16384) in range(16384, 1 << 24), f"6.5.2: {values}"
        assert values.get(h2.INITIAL_WINDOW, 0) < 1 << 31, f"6.5.2: {values}"
        self.settings = dict(values)
        if self.acknowledges:
            self.send(frame(h2.SETTINGS, h2.ACK))

    # What we answer.

    def head(self, stream, fields, end=False, flags=0):
        return frame(h2.HEADERS, h2.END_HEADERS | (h2.END_STREAM if end else 0) | flags, stream, self.block(fields))

    def answer(self, stream, body=WHOLE, fields=JSON_HEAD):
        """A whole answer."""
        self.send(self.head(stream, fields), h2.data(stream, body, True))
        self.done(stream)

    def done(self, stream):
        """Both sides have ended `stream`: it no longer counts."""
        self.on(stream).closed = True

    def __repr__(self):
        return f"goaway={self.goaways} closed={self.closed} {self.asked} {self.frames[-8:]}"


class Client:
    """One request over HTTP/1.1 to the gateway, whose answer is taken when a test wants it."""

    def __init__(self, port, body=None, method="POST", path=PATH, fields=(), end=True):
        self.sock = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self.conn = h11.Connection(h11.CLIENT)
        self.interim, self.head, self.body, self.trailers, self.ended, self.broken = [], None, b"", [], False, False
        head = [("host", "localhost"), ("authorization", f"Bearer {KEY}"), *fields]
        if body is not None:
            head += [("content-type", "application/json"), ("content-length", str(len(body)))]
        out = self.conn.send(h11.Request(method=method, target=path, headers=head))
        if body is not None:
            out += self.conn.send(h11.Data(data=body))
        self.sock.sendall(out + (self.conn.send(h11.EndOfMessage()) if end else b""))

    @property
    def status(self):
        return self.head and self.head.status_code

    def get(self, name):
        return next((value for known, value in self.head.headers if known == name), None)

    def until(self, done):
        while not (done() or self.ended or self.broken):
            try:
                event = self.conn.next_event()
                if event is h11.NEED_DATA:
                    self.conn.receive_data(self.sock.recv(65536))
                    continue
            except (h11.RemoteProtocolError, ConnectionError):
                self.broken = True
                return
            match event:
                case h11.InformationalResponse():
                    self.interim.append(event)
                case h11.Response():
                    self.head = event
                case h11.Data():
                    self.body += bytes(event.data)
                case h11.EndOfMessage():
                    self.trailers, self.ended = event.headers, True
                case _:
                    self.broken = True

    def all(self):
        self.until(lambda: False)
        return self

    def is_whole(self, body=WHOLE):
        self.all()
        assert (self.status, self.body, self.broken) == (200, body, False), self

    def is_refused(self, codes=("upstream_failed", "upstream_malformed", "upstream_truncated")):
        """An honest failure: nothing of the answer has been passed on."""
        self.all()
        assert self.status == 502 and self.ended, self
        assert json.loads(self.body)["error"]["code"] in codes, self

    def is_truncated(self, begun=BEGUN):
        """What had come was passed on; that no more does is told, and cannot be taken for its end."""
        self.all()
        assert self.status == 200 and self.body.startswith(begun), self
        told = self.body[len(begun):]
        assert b"[DONE]" not in told and (self.broken or b"upstream_" in told), self

    def __repr__(self):
        return f"<{self.status} ended={self.ended} broken={self.broken} {self.interim} {self.body[:300]!r} {self.trailers}>"


class Provider:
    """A gateway, and the port of the provider that it leads to."""

    def __init__(self, door, folder, more=""):
        self.secure, self.hosts, self.clients = door == "tls", [], []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.listener.settimeout(PATIENCE_S)
        self.port = self.listener.getsockname()[1]
        if self.secure:
            authority, chain, key = folder
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(chain, key)
            self.context.set_alpn_protocols(["h2"])
            self.origin, how = f"https://localhost:{self.port}", f'ca = "{authority}"'
        else:
            self.origin, how = f"http://127.0.0.1:{self.port}", 'http2 = "prior-knowledge"'
        config = CONFIG.replace('url = "{url}"', f'url = "{{url}}"\n{how}')
        routes = DEFAULT_ROUTE.replace("{", "{{").replace("}", "}}")
        self.gateway = start_gateway(self, config + routes + more)
        self.gateway_port = int(self.gateway.origin.rsplit(":", 1)[1])

    def ask(self, model="m", stream=False, **options):
        """Sends a chat request to the gateway."""
        body = options.pop("body", None) or h2.chat_body(model, stream)
        return self.raw(body=body, **options)

    def raw(self, **options):
        self.clients.append(Client(self.gateway_port, **options))
        return self.clients[-1]

    def accept(self, values=((h2.STREAMS_MAX, 100),), hello=True):
        """The next connection that the gateway makes."""
        sock, _ = self.listener.accept()
        sock.settimeout(PATIENCE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.secure:
            sock = self.context.wrap_socket(sock, server_side=True)
            assert sock.selected_alpn_protocol() == "h2", "3.2"
        self.hosts.append(Host(sock, self.secure, values, hello))
        return self.hosts[-1]

    def begin(self, *accept, **options):
        """A connection with a request on it: the client, the connection, the request's stream."""
        client = self.ask(**options)
        host = self.accept(*accept)
        return client, host, host.request()

    def is_served_anew(self):
        """What comes now is served, by another connection."""
        client, host, stream = self.begin()
        host.answer(stream)
        client.is_whole()

    def is_served_on(self, host):
        """Another request is served on this connection."""
        client = self.ask("another")
        stream = host.request()
        assert b'"another"' in host.on(stream).body, host
        host.answer(stream)
        client.is_whole()

    def is_left_alone(self):
        """The gateway has made no other connection."""
        self.listener.setblocking(False)
        try:
            self.listener.accept()
        except BlockingIOError:
            return
        finally:
            self.listener.settimeout(PATIENCE_S)
        raise AssertionError("another connection")

    def stop(self):
        alive = self.gateway.process.child.poll() is None
        self.gateway.process.stop()
        for one in [*self.hosts, *self.clients]:
            one.sock.close()
        self.listener.close()
        lines = "\n".join(self.gateway.process.lines)
        assert alive and "panicked" not in lines, "the gateway died:\n" + lines


def certificates(folder):
    authority = certify(folder, "authority")
    return authority[0], *certify(folder, "provider", authority)

