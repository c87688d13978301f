"""A client that says in HTTP/2 whatever a test has it say, and watches what it is told.

Frames are read by hyperframe, compressed by hpack; nothing is sent that a test did not ask for, but acknowledgements
and windows. Every frame from the gateway is held against the rules that hold always (`_judge`): windows, sizes, states,
what an answer's head may be. A test of one rule so tests these too.
"""

import contextlib
import socket
import ssl
import struct
import time

import hpack
from hyperframe.frame import Frame

from conftest import KEY, PATIENCE_S

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITIZED = 0x4, 0x8, 0x20
(NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR,
 REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM) = range(12)
TABLE_SIZE, ENABLE_PUSH, STREAMS_MAX, INITIAL_WINDOW, FRAME_MAX, HEAD_MAX = range(1, 7)
ENABLE_CONNECT = 8

WINDOW = 65535
HOP_BY_HOP = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    """A frame as bytes, whatever it holds; `length` is what its header says, if not the truth."""
    length = len(payload) if length is None else length
    return struct.pack(">I", length)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(values=(), flags=0):
    """SETTINGS of a dict, or of pairs in their order."""
    pairs = values.items() if isinstance(values, dict) else values
    return frame(SETTINGS, flags, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def window_update(stream, increment):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def reset(stream, code=CANCEL):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def ping(payload=b"12345678", flags=0):
    return frame(PING, flags, 0, payload)


def data(stream, payload, end=False):
    return frame(DATA, END_STREAM if end else 0, stream, payload)


class Answer:
    """What has come on one stream."""

    def __init__(self, window):
        self.window = window
        self.interim = []
        self.fields = None
        self.pieces = []
        self.trailers = None
        self.ended = False
        self.reset = None

    @property
    def over(self):
        return self.ended or self.reset is not None

    @property
    def status(self):
        return self.fields and int(self.fields[0][1])

    @property
    def body(self):
        return b"".join(self.pieces)

    def get(self, name):
        return next((value for known, value in self.fields or () if known == name), None)

    def __repr__(self):
        return f"<{self.status} ended={self.ended} reset={self.reset} {self.body[:200]!r} {self.trailers}>"


class Peer:
    """One connection. Unless `trust` is None it is a TLS one, on which HTTP/2 is agreed by ALPN."""

    def __init__(self, port, trust=None, values=(), hello=True):
        self.scheme, self.authority = "https" if trust else "http", f"localhost:{port}"
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if trust:
            trust.set_alpn_protocols(["h2"])
            self.sock = trust.wrap_socket(self.sock, server_hostname="localhost")
            assert self.sock.selected_alpn_protocol() == "h2"
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.input = b""
        self.answers = {}
        self.settings = None
        self.acks = 0
        self.pongs = []
        self.goaways = []
        self.closed = False
        self.frames = []
        # What the gateway may do: by our settings, which hold once it has acknowledged them.
        self.mine = {INITIAL_WINDOW: WINDOW, FRAME_MAX: 16384}
        self.unacknowledged = []
        self.window = WINDOW
        self.grants = True
        # What we may do.
        self.may_send, self.may_send_on = WINDOW, {}
        self.next_stream = 1
        self.open_block = None
        if hello:
            self.send(PREFACE + self.own_settings(values))

    # What we say.

    def send(self, *frames):
        # That it has closed is seen by reading: what it said before that counts.
        with contextlib.suppress(OSError):
            self.sock.sendall(b"".join(frames))

    def own_settings(self, values=()):
        pairs = list(values.items() if isinstance(values, dict) else values)
        self.unacknowledged.append(pairs)
        sizes = [value for kind, value in pairs if kind == TABLE_SIZE]
        if sizes:
            self.decoder.max_allowed_table_size = max(sizes[-1], self.decoder.max_allowed_table_size)
        return settings(pairs)

    def stream(self):
        self.next_stream += 2
        return self.next_stream - 2

    def get(self, path="/v1/models", method="GET", *more):
        return [(":method", method), (":scheme", self.scheme), (":authority", self.authority), (":path", path),
                ("authorization", f"Bearer {KEY}"), *more]

    def post(self, *more, path="/v1/chat/completions"):
        return self.get(path, "POST", ("content-type", "application/json"), *more)

    def block(self, fields):
        return self.encoder.encode(fields)

    def head(self, stream, fields, end=True, flags=0):
        return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0) | flags, stream, self.block(fields))

    def request(self, fields=None, body=None, end=True):
        """Sends a whole request (or its beginning, if not `end`) and returns its stream."""
        stream = self.stream()
        self.send(self.head(stream, fields or self.get(), end and body is None))
        if body is not None:
            self.send(data(stream, body, end))
        return stream

    def chat(self, model, stream=True, end=True, more=()):
        """Asks the provider for an answer that `model` steers."""
        body = chat_body(model, stream)
        return self.request(self.post(*more), body, end)

    # What we are told.

    def answer(self, stream):
        """The answer on `stream`, waited for to its end or that of the connection."""
        self.pump(lambda: self.on(stream).over or self.closed)
        return self.on(stream)

    def on(self, stream):
        return self.answers.setdefault(stream, Answer(self.mine[INITIAL_WINDOW]))

    @property
    def goaway(self):
        """The code of the last GOAWAY."""
        return self.goaways[-1][1] if self.goaways else None

    def pump(self, until):
        """Takes frames until `until` says so."""
        deadline = time.monotonic() + PATIENCE_S
        while not until():
            assert not self.closed, f"closed: {self!r}"
            while (taken := self._take()) is None and not self.closed:
                left = deadline - time.monotonic()
                assert left > 0, f"not in time: {self!r}"
                self.sock.settimeout(left)
                try:
                    more = self.sock.recv(65536)
                except TimeoutError:
                    raise AssertionError(f"not in time: {self!r}") from None
                except (ConnectionError, ssl.SSLError):
                    more = b""
                self.closed = not more
                self.input += more
            if taken:
                self._judge(*taken)

    def pump_past(self, *frames):
        """Sends `frames` and takes all that comes before the gateway has seen them."""
        word = struct.pack(">Q", len(self.pongs) + 1)
        self.send(*frames, ping(word))
        self.pump(lambda: word in self.pongs or self.closed)
        assert not self.closed, f"closed: {self!r}"

    def _take(self):
        if len(self.input) < 9:
            return None
        header = memoryview(self.input)[:9]
        length = int.from_bytes(header[:3], "big")
        if len(self.input) < 9 + length:
            return None
        # Strictly: a type that was not negotiated may be sent, but this gateway has none.
        got, _ = Frame.parse_frame_header(header, strict=True)
        got.parse_body(memoryview(self.input)[9:9 + length])
        flags = header[4]
        del header
        self.input = self.input[9 + length:]
        return got, length, flags

    def _judge(self, got, length, flags):
        kind, stream = got.type, got.stream_id
        self.frames.append((kind, flags, stream, length))
        assert self.settings is not None or (kind == SETTINGS and not flags & ACK), f"3.4: first came {got!r}"
        assert length <= self.mine[FRAME_MAX], f"4.2: {length} bytes: {got!r}"
        if self.open_block:
            assert (kind, stream) == (CONTINUATION, self.open_block[0]), f"6.10: {got!r}"
        if stream:
            assert stream % 2 == 1 and stream < self.next_stream, f"5.1: an idle stream: {got!r}"
            assert kind in (PRIORITY, WINDOW_UPDATE, RST_STREAM) or not self.on(stream).over, f"5.1: closed: {got!r}"
            assert self.on(stream).reset is None or kind == PRIORITY, f"6.4: after RST_STREAM: {got!r}"
        match kind:
            case 0:
                self._data(got, length)
            case 1 | 9:
                assert kind == HEADERS or self.open_block, f"6.10: {got!r}"
                _, block, end = self.open_block or (stream, b"", bool(flags & END_STREAM))
                self.open_block = (stream, block + got.data, end)
                if flags & END_HEADERS:
                    self.open_block = None
                    self._fields(self.on(stream), self.decoder.decode(block + got.data, raw=True), end)
            case 3:
                self.on(stream).reset = got.error_code
            case 4 if flags & ACK:
                self.acks += 1
                assert self.unacknowledged, "6.5.3: more acknowledgements than settings"
                for key, value in self.unacknowledged.pop(0):
                    if key == INITIAL_WINDOW:
                        for answer in self.answers.values():
                            answer.window += value - self.mine[key]
                    self.mine[key] = value
            case 4:
                self._settings(got.settings)
            case 6 if flags & ACK:
                self.pongs.append(got.opaque_data)
            case 6:
                self.send(ping(got.opaque_data, ACK))
            case 7:
                assert not self.goaways or got.last_stream_id <= self.goaways[-1][0], f"6.8: grown: {got!r}"
                self.goaways.append((got.last_stream_id, got.error_code))
            case 8:
                assert 0 < got.window_increment < 1 << 31, f"6.9: {got!r}"
                if not stream:
                    self.may_send += got.window_increment
                else:
                    self.may_send_on[stream] = self.room(stream) + got.window_increment
            case _:
                raise AssertionError(f"8.4, 5.3.2: not for a server to send here: {got!r}")

    def _data(self, got, length):
        answer = self.on(got.stream_id)
        assert answer.fields is not None, f"8.1: before the head: {got!r}"
        self.window -= length
        answer.window -= length
        assert length == 0 or (self.window >= 0 and answer.window >= 0), \
            f"6.9.1: {self.window}, {answer.window}: {got!r}"
        answer.pieces.append(got.data)
        answer.ended = "END_STREAM" in got.flags
        if self.grants and length:
            self.grant(0, length)
            if not answer.ended:
                self.grant(got.stream_id, length)

    def _fields(self, answer, fields, end):
        fields = [(bytes(name), bytes(value)) for name, value in fields]
        names = [name for name, _ in fields]
        assert all(name == name.lower() for name in names), f"8.2.1: {fields}"
        assert not HOP_BY_HOP & set(names), f"8.2.2: {fields}"
        for name, value in fields:
            assert value == value.strip(b" \t") and not set(value) & {0, 10, 13}, f"8.2.1: {name} {value}"
            assert not set(name[1:]) & set(b':\x7f "(),/;<=>?@[\\]{}'), f"8.2.1: {name}"
        if answer.fields is not None:
            assert end, "8.1: trailers end the stream"
            assert not any(name.startswith(b":") for name in names), f"8.1: {fields}"
            answer.trailers, answer.ended = fields, True
            return
        assert names[0] == b":status" and not any(name.startswith(b":") for name in names[1:]), f"8.3.2: {fields}"
        status = int(fields[0][1])
        assert status != 101, "8.6: there is no switching of protocols"
        if status < 200:
            assert not end, "8.1: an interim answer does not end the stream"
            answer.interim.append(fields)
        else:
            answer.fields, answer.ended = fields, end

    def _settings(self, values):
        for key, value in values.items():
            bounds = {ENABLE_PUSH: (0, 0), INITIAL_WINDOW: (0, (1 << 31) - 1), FRAME_MAX: (16384, (1 << 24) - 1)}
            low, high = bounds.get(key, (0, (1 << 32) - 1))
            assert low <= value <= high, f"6.5.2: {values}"
        before = (self.settings or {}).get(INITIAL_WINDOW, WINDOW)
        self.settings = dict(values)
        for stream in self.may_send_on:
            self.may_send_on[stream] += values.get(INITIAL_WINDOW, before) - before
        self.send(frame(SETTINGS, ACK))

    def room(self, stream):
        """What may still be sent on `stream`, of which the caller keeps account."""
        return self.may_send_on.setdefault(stream, (self.settings or {}).get(INITIAL_WINDOW, WINDOW))

    def grant(self, stream, increment):
        if stream:
            self.on(stream).window += increment
        else:
            self.window += increment
        self.send(window_update(stream, increment))

    # What a test expects.

    def is_served(self):
        """Another request is answered on this connection."""
        answer = self.answer(self.request())
        assert answer.status == 200 and answer.ended, f"5.4.2: the connection does not go on: {answer} {self!r}"

    def expect_connection_error(self, *codes):
        """The connection ends, and its last word is a GOAWAY with one of `codes`."""
        self.pump(lambda: self.closed)
        assert self.goaway in codes, f"5.4.1: wanted {codes}: {self!r}"

    def expect_stream_error(self, stream, *codes, or_status=()):
        """`stream` ends with one of `codes`, and others go on; or it is answered with one of `or_status` (8.1.1); or the
        whole connection ends so (5.4.1)."""
        answer = self.on(stream)
        self.pump(lambda: answer.over or self.closed or self.goaway)
        if self.goaway is not None or self.closed:
            return self.expect_connection_error(*codes)
        if answer.ended and answer.reset is None:
            assert answer.status in or_status, f"wanted {codes} or {or_status}: {answer}"
        else:
            assert answer.reset in codes, f"5.4.2: wanted {codes}: {answer}"
        return self.is_served()

    def close(self):
        self.sock.close()

    def __repr__(self):
        seen = {number: answer for number, answer in self.answers.items() if answer.fields or answer.over}
        return f"goaway={self.goaways} closed={self.closed} {seen} {self.frames[-8:]}"


def chat_body(model, stream=True):
    return b'{"model":"%b","stream":%b,"messages":[{"role":"user","content":"hi"}]}' % (
        model.encode(), b"true" if stream else b"false")
